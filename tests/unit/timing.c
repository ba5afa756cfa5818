/* Timing by repeated runs, on a clock that the test moves; and what is said of the machine. */
#include "harness.h"

#include <string.h>

#include "machine.h"
#include "timing.h"

static double now;
static double clock_of_test(void) {
    return now;
}

typedef struct job {
    const double *takes; /* seconds, in turn */
    int n, runs, fails;  /* the run that fails; -1: none */
} job;

static pn_status run(void *ctx) {
    job *j = ctx;
    if (j->runs == j->fails) PN_FAIL(PN_NUMERIC, "run %d fails", j->runs);
    now += j->takes[j->runs++ % j->n];
    return PN_OK;
}

static pn_timing timed(job *j, int64_t warm, int64_t runs, double seconds) {
    const pn_timing_rule rule = { .clock = clock_of_test, .warm = warm, .runs = runs, .seconds = seconds };
    pn_timing t;
    now = 0;
    ck_ok(pn_time_runs(&rule, run, j, &t));
    return t;
}

START_TEST(median_least_and_most_after_the_warm_up) {
    static const double takes[] = { 100, 90, 4, 2, 3, 9, 1 };
    job j = { takes, 7, 0, -1 };
    pn_timing t = timed(&j, 2, 5, 1000);
    ck_assert_int_eq(j.runs, 7);
    ck_assert(t.runs == 5 && t.median == 3 && t.least == 1 && t.most == 9);
}
END_TEST

START_TEST(long_runs_are_fewer) {
    static const double takes[] = { 1 };
    const struct {
        double seconds;
        int64_t runs;
    } at[] = { { 7.5, 8 }, { 3, 3 }, { 0.9, 3 }, { 0.5, 2 }, { 0.1, 1 }, { 0, 1 } };
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        job j = { takes, 1, 0, -1 };
        ck_assert_int_eq(timed(&j, 1, 20, at[i].seconds).runs, at[i].runs);
        ck_assert_int_eq(j.runs, 1 + at[i].runs);
    }
}
END_TEST

START_TEST(short_runs_are_timed_several_together) {
    static const double takes[] = { 1e-6 };
    job j = { takes, 1, 0, -1 };
    pn_timing t = timed(&j, 3, 5, 1);
    ck_assert_int_eq(t.runs, 5);
    ck_assert_int_ge(j.runs, 3 + 5 * 199);
    ck_assert_double_eq_tol(t.median, 1e-6, 1e-12);
}
END_TEST

START_TEST(a_failure_ends_it) {
    static const double takes[] = { 1 };
    const pn_timing_rule rule = { .clock = clock_of_test, .warm = 1, .runs = 5, .seconds = 100 };
    for (int at = 0; at < 2; at++) {
        job j = { takes, 1, 0, 3 * at };
        pn_timing t;
        ck_assert_int_eq(pn_time_runs(&rule, run, &j, &t), PN_NUMERIC);
        ck_assert_int_eq(j.runs, 3 * at);
    }
}
END_TEST

START_TEST(the_machine_has_a_name_and_sizes) {
    const char *name = pn_cpu_name();
    ck_assert(*name && !strpbrk(name, "\n\t") && name[0] != ' ' && name[strlen(name) - 1] != ' ');
    ck_assert_ptr_eq(name, pn_cpu_name());
    ck_assert(pn_bytes_beyond_caches() >= 192 << 20 && pn_bytes_beyond_caches() <= 512 << 20);
    ck_assert_double_gt(pn_memory_bytes(), 64 << 20);
}
END_TEST

TEST_MAIN("timing", median_least_and_most_after_the_warm_up, long_runs_are_fewer, short_runs_are_timed_several_together,
          a_failure_ends_it, the_machine_has_a_name_and_sizes)
