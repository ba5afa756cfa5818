/* A rank that dies, hangs or gives up: every other rank says which one and why, within the limit. */
#include "ranks.h"

#include <stdatomic.h>

/* Sums until it fails; then says with what and when. 0: it failed, as it should. */
static int sum_on(rank_report *report, pn_comm *comm, int64_t count) {
    float *x = calloc((size_t)count, sizeof *x);
    pn_status s;
    do s = pn_comm_all_reduce(comm, x, count, PN_F32, PN_SUM, NULL);
    while (!s);
    report_failure(report, s);
    pn_comm_destroy(&comm);
    free(x);
    return s == PN_COMM ? 0 : 13;
}

static int sum_until_failure(ranks *r, int rank, pn_control *control) {
    pn_comm *comm;
    RANK_OK(&r->report[rank], pn_comm_tcp(control, &comm));
    return sum_on(&r->report[rank], comm, 20000);
}

/* Rank `victim` of n gets the signal while all are summing; what the others say, and how soon. */
static void others_say(int n, int victim, int sig, const char *cause) {
    enum { LIMIT = 2 };
    ranks *r = ranks_new(n);
    r->limit = LIMIT;
    ranks_start(r, sum_until_failure);
    ranks_wait_started(r);
    usleep(200000);
    kill(r->pid[victim], sig);
    const double at = pn_seconds();
    char who[32];
    snprintf(who, sizeof who, "rank %d failed", victim);
    for (int i = 0; i < n; i++) {
        if (i == victim) continue;
        ranks_wait_one(r, i);
        const rank_report *said = &r->report[i];
        ck_assert_msg(r->exit_status[i] == 0, "rank %d: wait status %d: %s", i, r->exit_status[i], said->message);
        ck_assert_msg(strstr(said->message, who) && strstr(said->message, cause), "rank %d says: %s", i, said->message);
        ck_assert_msg(said->failed - at < 2 * LIMIT, "rank %d knew after %g s", i,
                      said->failed - at); /* a machine may have other work */
    }
    kill(r->pid[victim], SIGKILL);
    ranks_wait_one(r, victim);
    ranks_free(r);
}

START_TEST(a_killed_rank) {
    others_say(3, 1, SIGKILL, "its process ended");
    others_say(2, 0, SIGKILL, "its process ended");
}
END_TEST

START_TEST(a_stopped_rank) {
    others_say(3, 2, SIGSTOP, "no sign of life");
    others_say(3, 0, SIGSTOP, "no sign of life");
}
END_TEST

static int hang_in_step_7(ranks *r, int rank, pn_control *control) {
    pn_comm *comm;
    pn_control_doing(control, "step %d", 7);
    if (rank != 1) return sum_until_failure(r, rank, control);
    RANK_OK(&r->report[rank], pn_comm_tcp(control, &comm));
    r->report[rank].began = pn_seconds();
    for (;;) pause();
}

/* The process lives and answers, its main thread does not. It is ended: nobody else would. */
START_TEST(a_hung_main_thread) {
    enum { LIMIT = 2 };
    ranks *r = ranks_new(3);
    r->limit = LIMIT;
    ranks_start(r, hang_in_step_7);
    ranks_wait(r);
    for (int i = 0; i < 3; i += 2) {
        const char *said = r->report[i].message;
        ck_assert_msg(r->exit_status[i] == 0 && strstr(said, "rank 1 failed: its main thread hangs") &&
                          strstr(said, "step 7; ") && strstr(said, "ranks.limit_seconds"),
                      "rank %d says: %s", i, said);
        const double after = r->report[i].failed - r->report[1].began;
        ck_assert_msg(after < 2 * LIMIT, "known after %g s", after); /* twice: a machine may have other work */
    }
    ck_assert(WIFEXITED(r->exit_status[1]) && WEXITSTATUS(r->exit_status[1]) == 3);
    ranks_free(r);
}
END_TEST

/* Long work that says so, or that ticks, is no hang; nor is waiting for it. */
static int work_long(ranks *r, int rank, pn_control *control) {
    pn_control_busy(control, "loading the model");
    if (rank == 1) usleep(1200000);
    pn_control_busy(control, NULL);
    for (int i = 0; rank == 0 && i < 12; i++) {
        usleep(100000);
        pn_control_tick(control);
    }
    RANK_OK(&r->report[rank], pn_control_barrier(control, "after long work"));
    return 0;
}

START_TEST(long_work_is_no_hang) {
    ranks *r = ranks_new(3);
    r->limit = 1;
    ranks_start(r, work_long);
    ranks_all_succeed(r);
    ranks_free(r);
}
END_TEST

/* Longer than ranks may wait for one another: while somebody works, that is not what they do. */
static int work_very_long(ranks *r, int rank, pn_control *control) {
    const char *before = pn_control_busy(control, "reading the state");
    RANK_CHECK(&r->report[rank], !before, "it was busy with %s", before);
    if (rank > 0) usleep((useconds_t)(6.5 * r->limit * 1e6));
    RANK_OK(&r->report[rank], pn_control_barrier(control, "after very long work"));
    pn_control_busy(control, NULL);
    return 0;
}

START_TEST(very_long_work_is_no_deadlock) {
    ranks *r = ranks_new(3);
    r->limit = 0.6;
    ranks_start(r, work_very_long);
    ranks_all_succeed(r);
    ranks_free(r);
}
END_TEST

static int give_up(ranks *r, int rank, pn_control *control) {
    if (rank != 2) return sum_until_failure(r, rank, control);
    pn_comm *comm;
    RANK_OK(&r->report[rank], pn_comm_tcp(control, &comm));
    pn_control_abort(control, "shard 3 of english: checksum differs");
    pn_comm_destroy(&comm);
    return 0;
}

START_TEST(a_rank_that_gives_up_says_why) {
    ranks *r = ranks_new(4);
    ranks_start(r, give_up);
    ranks_all_succeed(r);
    for (int i = 0; i < 4; i++) {
        if (i == 2) continue;
        const char *said = r->report[i].message;
        ck_assert_msg(!strcmp(said, "rank 2 failed: shard 3 of english: checksum differs"), "rank %d says: %s", i,
                      said);
    }
    ranks_free(r);
}
END_TEST

enum { ABANDONED = 4, ABANDONED_BYTES = 8 << 20 };

/* Rank 0 is in the middle of sums when it fails: it gives up their buffers and only then says why. */
static int fail_in_the_middle(ranks *r, int rank, pn_control *control) {
    rank_report *report = &r->report[rank];
    pn_comm *comm;
    pn_ticket t[ABANDONED];
    RANK_OK(report, pn_comm_tcp(control, &comm));
    if (rank > 0) {
        usleep(300000); /* rank 0's sums wait for this one, and go on when it comes */
        return sum_on(report, comm, ABANDONED_BYTES / 4);
    }
    char *x = mmap(NULL, ABANDONED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < ABANDONED; i++)
        RANK_OK(report, pn_comm_all_reduce(comm, x, ABANDONED_BYTES / 4, PN_F32, PN_SUM, &t[i]));
    usleep(100000);
    const double at = pn_seconds();
    pn_comm_abandon(comm);
    RANK_CHECK(report, pn_seconds() - at < 10, "it waited for the others");
    munmap(x, ABANDONED_BYTES);
    RANK_CHECK(report, !pn_control_failed(control), "others were told before the cause was known");
    RANK_CHECK(report, pn_comm_wait(comm, t[0]) == PN_COMM, "waiting for what was abandoned");
    RANK_CHECK(report, pn_comm_barrier(comm) == PN_COMM, "a communicator that was abandoned");
    usleep(500000);
    pn_control_abort(control, "the loss is not a number");
    pn_comm_destroy(&comm);
    return 0;
}

START_TEST(a_rank_that_fails_in_the_middle) {
    ranks *r = ranks_new(3);
    ranks_start(r, fail_in_the_middle);
    ranks_all_succeed(r);
    for (int i = 1; i < 3; i++)
        ck_assert_msg(!strcmp(r->report[i].message, "rank 0 failed: the loss is not a number"), "rank %d says: %s", i,
                      r->report[i].message);
    ranks_free(r);
}
END_TEST

static int end_early(ranks *r, int rank, pn_control *control) {
    RANK_OK(&r->report[rank], pn_control_barrier(control, "the start"));
    if (rank == 1) return 0;
    const pn_status s = pn_control_barrier(control, "the end");
    report_failure(&r->report[rank], s);
    return s == PN_COMM ? 0 : 13;
}

START_TEST(a_rank_that_ends_early) {
    ranks *r = ranks_new(3);
    ranks_start(r, end_early);
    ranks_all_succeed(r);
    ck_assert_msg(strstr(r->report[2].message, "rank 1 failed: it ended while other ranks still wait"), "%s",
                  r->report[2].message);
    ranks_free(r);
}
END_TEST

static int wait_for_ever(ranks *r, int rank, pn_control *control) {
    pn_comm *comm;
    float x = 0;
    pn_status s;
    RANK_OK(&r->report[rank], pn_comm_tcp(control, &comm));
    pn_control_busy(control, rank == 0 ? "writing a checkpoint" : NULL); /* which waiting is no part of */
    if (rank == 0)
        s = pn_control_barrier(control, "checkpoint");
    else
        s = pn_comm_all_reduce(comm, &x, 1, PN_F32, PN_SUM, NULL);
    report_failure(&r->report[rank], s);
    pn_comm_destroy(&comm);
    return s == PN_COMM ? 0 : 13;
}

START_TEST(all_wait_for_one_another) {
    ranks *r = ranks_new(2);
    r->limit = 0.6;
    ranks_start(r, wait_for_ever);
    ranks_all_succeed(r);
    for (int i = 0; i < 2; i++)
        ck_assert_msg(strstr(r->report[i].message, "all ranks have waited for one another") &&
                          strstr(r->report[i].message, "writing a checkpoint"),
                      "%s", r->report[i].message);
    ranks_free(r);
}
END_TEST

/* Rank 0 stays until the last one ends. */
static int work_after_rank_0(ranks *r, int rank, pn_control *control) {
    for (int i = 0; rank == 2 && i < 20; i++) {
        usleep(100000);
        pn_control_tick(control);
    }
    RANK_OK(&r->report[rank], pn_control_status(control));
    return 0;
}

START_TEST(a_rank_that_works_longest) {
    ranks *r = ranks_new(3);
    r->limit = 1;
    ranks_start(r, work_after_rank_0);
    ranks_all_succeed(r);
    ranks_free(r);
}
END_TEST

/* A failure that nothing else could tell a rank: the one who registered for it is called. */
static atomic_int called;
static void note_call(void *ctx) {
    (void)ctx;
    called++;
}
static int be_called(ranks *r, int rank, pn_control *control) {
    pn_control_on_failure(control, note_call, NULL);
    RANK_OK(&r->report[rank], pn_control_barrier(control, "ready"));
    if (rank == 1) {
        pn_control_abort(control, "why not");
        return 0;
    }
    const double until = pn_seconds() + 10;
    while (!called && pn_seconds() < until) usleep(1000);
    pn_control_on_failure(control, NULL, NULL);
    RANK_CHECK(&r->report[rank], called == 1, "called %d times", (int)called);
    return 0;
}

START_TEST(a_failure_calls_back_once) {
    ranks *r = ranks_new(2);
    ranks_start(r, be_called);
    ranks_all_succeed(r);
    ranks_free(r);
}
END_TEST

TEST_MAIN("faults", a_killed_rank, a_stopped_rank, a_hung_main_thread, long_work_is_no_hang,
          very_long_work_is_no_deadlock, a_rank_that_gives_up_says_why, a_rank_that_fails_in_the_middle,
          a_rank_that_ends_early, all_wait_for_one_another, a_rank_that_works_longest, a_failure_calls_back_once)
