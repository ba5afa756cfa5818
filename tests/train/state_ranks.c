/* Checkpoints of ranks that are processes: any number goes on from what any other number wrote, and one that is killed
 * while state is written costs no more than that state. */
#include "dist/ranks.h"

#include "checkpoint_background.h"
#include "log.h"
#include "state_ranks.h"

enum { JOB = 7, LONG = 300001, PARTS = 64 }; /* many ranges: what ranks tell each other takes more than one round */

typedef struct held {
    int64_t step;
    double *values; /* of LONG, this rank's parts: every n-th of PARTS */
    int n;
    char (*name)[16];
    pn_checkpoint_array *array;
} held;

enum { ARRAYS = 40 };

/* Rank r of n has parts r, r + n, ... of each of ARRAYS arrays. */
static void hold(held *h, int64_t step, int rank, int n) {
    *h = (held){ .step = step, .values = calloc(LONG, sizeof(double)) };
    h->array = calloc(ARRAYS * PARTS + 1, sizeof *h->array);
    h->name = calloc(ARRAYS, sizeof *h->name);
    for (int a = 0; a < ARRAYS; a++) {
        const int64_t begin = LONG * (int64_t)a / ARRAYS, total = LONG * (int64_t)(a + 1) / ARRAYS - begin;
        snprintf(h->name[a], sizeof *h->name, "array/%d", a);
        for (int k = rank; k < PARTS; k += n) {
            const int64_t from = total * k / PARTS, to = total * (k + 1) / PARTS;
            double *values = h->values + begin + from;
            for (int64_t i = from; step >= 0 && i < to; i++) h->values[begin + i] = (double)(step + begin + i);
            h->array[h->n++] =
                pn_checkpoint_part(pn_checkpoint_data(h->name[a], PN_F64, to - from, values), from, total);
        }
    }
    h->array[h->n++] = pn_checkpoint_data("step", PN_I64, 1, &h->step);
}

static void let_go(held *h) {
    free(h->values);
    free(h->array);
    free(h->name);
}

static pn_checkpoint_place place_of(const ranks *r, const pn_checkpoint_ranks *of) {
    static char dir[80];
    snprintf(dir, sizeof dir, "%s/state", r->dir);
    return (pn_checkpoint_place){ .dir = dir, .fingerprint = JOB, .ranks = of };
}

/* The step that is there, after a check that it is that one everywhere; -1: none. */
static pn_status load(const pn_checkpoint_place *where, int64_t *step) {
    held got, want;
    hold(&got, -1, where->ranks->rank, where->ranks->n);
    pn_status s = pn_checkpoint_read(where, got.array, got.n, step);
    if (!s && *step >= 0) {
        hold(&want, *step, where->ranks->rank, where->ranks->n);
        if (got.step != *step || memcmp(got.values, want.values, LONG * sizeof(double)))
            s = pn_fail_at(__FILE__, __LINE__, PN_MISMATCH, "step %lld came back as another", (long long)*step);
        let_go(&want);
    }
    let_go(&got);
    return s;
}

/* However many ranks there are: what all of them may say at once is no bound. */
static int long_word(ranks *r, int rank, pn_control *control) {
    enum { BYTES = PN_EXCHANGE_MOST + 12345 };
    rank_report *report = &r->report[rank];
    const pn_checkpoint_ranks of = pn_state_ranks(control);
    unsigned char *x = calloc(BYTES, 1);
    for (int i = 0; rank == 0 && i < BYTES; i++) x[i] = (unsigned char)(i * 7 + i / 1000);
    RANK_OK(report, of.broadcast(of.ctx, x, BYTES));
    for (int i = 0; i < BYTES; i++)
        RANK_CHECK(report, x[i] == (unsigned char)(i * 7 + i / 1000), "byte %d is another", i);
    free(x);
    return 0;
}

START_TEST(a_word_of_any_length) {
    ranks *r = ranks_new(3);
    ranks_start(r, long_word);
    ranks_all_succeed(r);
    ranks_free(r);
}
END_TEST

static int64_t least; /* the step that has to be there, or a later one */

/* Goes on from what is there by three steps, the last of which is waited for. */
static int three_more(ranks *r, int rank, pn_control *control) {
    rank_report *report = &r->report[rank];
    const pn_checkpoint_ranks of = pn_state_ranks(control);
    const pn_checkpoint_place where = place_of(r, &of);
    pn_checkpoint_writer *w;
    int64_t step;
    RANK_OK(report, load(&where, &step));
    RANK_CHECK(report, step >= least, "step %lld was saved, %lld is there", (long long)least, (long long)step);
    RANK_OK(report, pn_checkpoint_writer_open(&where, &w));
    for (int i = 1; i <= 3; i++) {
        held h;
        hold(&h, step + i, rank, r->n);
        RANK_OK(report, pn_checkpoint_writer_save(w, step + i, h.array, h.n));
        let_go(&h);
        RANK_OK(report, pn_checkpoint_writer_advance(w));
    }
    RANK_OK(report, pn_checkpoint_writer_finish(w));
    pn_checkpoint_writer_close(&w);
    report->digest = (uint64_t)(step + 3);
    return 0;
}

/* Loads, and saves until a rank fails. */
static int save_until_failure(ranks *r, int rank, pn_control *control) {
    rank_report *report = &r->report[rank];
    const pn_checkpoint_ranks of = pn_state_ranks(control);
    const pn_checkpoint_place where = place_of(r, &of);
    pn_checkpoint_writer *w;
    int64_t step;
    RANK_OK(report, load(&where, &step));
    RANK_OK(report, pn_checkpoint_writer_open(&where, &w));
    pn_status s = PN_OK;
    while (!s) {
        held h;
        hold(&h, ++step, rank, r->n);
        s = pn_checkpoint_writer_save(w, step, h.array, h.n);
        let_go(&h);
        for (int i = 0; i < 20 && !s; i++) {
            s = pn_checkpoint_writer_advance(w);
            usleep(500);
        }
    }
    report_failure(report, s);
    pn_checkpoint_writer_close(&w);
    return 0;
}

START_TEST(ranks_come_and_go) {
    static const int numbers[] = { 3, 1, 4, 2 };
    ranks *r = ranks_new(1);
    least = -1;
    for (int i = 0; i < 4; i++) {
        r->n = numbers[i];
        ranks_start(r, three_more);
        ranks_all_succeed(r);
        for (int k = 0; k < r->n; k++) ck_assert_int_eq(r->report[k].digest, (uint64_t)(3 * i + 2));
        least = 3 * i + 2;
    }
    ranks_free(r);
}
END_TEST

START_TEST(a_rank_that_is_killed_costs_the_state_that_was_being_written) {
    ranks *r = ranks_new(3);
    unsigned at = 7;
    least = -1;
    for (int kills = 0; kills < 6; kills++) {
        for (int i = 0; i < RANKS_MOST; i++) r->report[i] = (rank_report){ 0 };
        r->n = 2 + kills % 2;
        ranks_start(r, save_until_failure);
        ranks_wait_started(r);
        at = at * 1103515245 + 12345;
        usleep(100000 + at / 65536 % 65536 * 4);
        const int victim = kills % r->n;
        kill(r->pid[victim], SIGKILL);
        ranks_wait(r);
        for (int i = 0; i < r->n; i++)
            if (i != victim)
                ck_assert_msg(WIFEXITED(r->exit_status[i]) && strstr(r->report[i].message, "its process ended"),
                              "rank %d: wait status %d: %s", i, r->exit_status[i], r->report[i].message);
        r->n = 1 + kills % 3; /* others go on */
        ranks_start(r, three_more);
        ranks_all_succeed(r);
        least = (int64_t)r->report[0].digest;
    }
    ranks_free(r);
}
END_TEST

TEST_MAIN("state of ranks", a_word_of_any_length, ranks_come_and_go,
          a_rank_that_is_killed_costs_the_state_that_was_being_written)
