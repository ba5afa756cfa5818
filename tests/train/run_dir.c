/* The directory of a run: one process at a time, one configuration; and the time that its processes took. */
#include "harness.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "json.h"
#include "log.h"
#include "run_clock.h"

static char top[] = "/tmp/pn_run_XXXXXX", path[64];

static void setup(void) {
    ck_assert_ptr_nonnull(mkdtemp(top));
    snprintf(path, sizeof path, "%s/run", top);
}

typedef struct settings {
    int64_t steps, keep;
} settings;

static pn_status open_with(int64_t steps, int64_t keep, pn_run_dir *run) {
    static const pn_option table[] = { PN_OPT_INT(settings, steps, 1, 0, 9, "any number"),
                                       PN_OPT_INT(settings, keep, 1, 0, 9, "any number", .incidental = true),
                                       PN_OPT_END };
    char text[64];
    pn_config *c;
    snprintf(text, sizeof text, "steps: %lld\nkeep: %lld\n", (long long)steps, (long long)keep);
    ck_ok(pn_config_parse("test", text, &c));
    settings value;
    ck_ok(pn_config_read(c, "", table, &value));
    pn_status s = pn_run_dir_open(path, c, NULL, 0, run);
    pn_config_destroy(&c);
    return s;
}

static pn_status open_run(int64_t steps, pn_run_dir *run) {
    return open_with(steps, 1, run);
}

START_TEST(one_process_works_in_it) {
    setup();
    pn_run_dir first, second;
    ck_ok(open_run(1, &first));
    ck_assert(!first.resumed);
    ck_assert_int_eq(open_run(1, &second), PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "another process is working in this directory"));
    pn_run_dir_close(&first);
    ck_ok(open_run(1, &second));
    ck_assert(second.resumed);
    pn_run_dir_close(&second);
    ck_assert_int_eq(open_run(2, &second), PN_USAGE);
    ck_assert_ptr_nonnull(
        strstr(pn_error_message(), "holds a run with other settings: test:1: steps is 2, and 1 in that run;"));
    ck_ok(open_run(1, &second)); /* one that was refused holds no lock */
    pn_run_dir_close(&second);
    ck_ok(open_with(1, 5, &second)); /* what changes no result may change */
    ck_assert(second.resumed);
    pn_run_dir_close(&second);
    ck_ok(pn_remove_tree(top));
}
END_TEST

/* A process that opens the run, begins a phase and dies `seconds` after the last record of its log. */
static void work_and_die(const char *phase) {
    pid_t child = fork();
    if (child == 0) {
        pn_run_dir run;
        pn_run_clock clock;
        if (open_run(1, &run) || pn_run_clock_open(&run, &clock) || pn_run_clock_begin(&clock, phase)) _exit(1);
        usleep(60000);
        pn_log_quiet(true);
        pn_info("a sign of life");
        raise(SIGKILL);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
}

START_TEST(time_of_all_processes_counts) {
    setup();
    work_and_die("search_seconds");
    work_and_die("search_seconds"); /* the lock of the first has gone with it */
    pn_run_dir run;
    pn_run_clock clock;
    ck_ok(open_run(1, &run));
    ck_assert(run.resumed);
    ck_ok(pn_run_clock_open(&run, &clock));
    pn_run_clock_add(&clock, "prepare_seconds", 5);
    ck_ok(pn_run_clock_begin(&clock, "search_seconds"));
    usleep(20000);
    ck_ok(pn_run_clock_begin(&clock, NULL));
    pn_run_clock_close(&clock);
    for (int again = 0; again < 2; again++) { /* a clean end adds nothing later */
        double total, search;
        ck_ok(pn_run_clock_open(&run, &clock));
        json_t *root = pn_run_clock_json(&clock, &total);
        ck_ok(pn_json_get_f64(root, "clock", "search_seconds", 0.13, 60, &search));
        ck_assert_double_eq_tol(total, search + 5, 1e-9);
        ck_assert_ptr_null(json_object_get(root, "working"));
        json_decref(root);
        pn_run_clock_close(&clock);
    }
    pn_run_dir_close(&run);
    ck_ok(pn_remove_tree(top));
}
END_TEST

/* A process that died before its directory was in place, and one that died after: neither stands in the way. */
START_TEST(a_process_that_died_early_leaves_no_obstacle) {
    setup();
    char aside[96];
    pn_run_dir run;
    snprintf(aside, sizeof aside, "%s.postnas-partial", path);
    ck_ok(pn_make_directories(aside));
    ck_ok(open_run(1, &run));
    ck_assert(!run.resumed);
    ck_assert(!pn_file_exists(aside));
    pn_run_dir_close(&run);
    ck_ok(pn_remove_tree(top));
}
END_TEST

TEST_MAIN("run_dir", one_process_works_in_it, time_of_all_processes_counts,
          a_process_that_died_early_leaves_no_obstacle)
