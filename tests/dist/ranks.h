/* Ranks as processes of a test: forked, each with a control channel over a rendezvous in a directory of the test's. */
#ifndef PN_TESTS_RANKS_H
#define PN_TESTS_RANKS_H

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "comm.h"
#include "files.h"
#include "harness.h"

enum { RANKS_MOST = 8 };

/* What ranks tell the test: memory that all of them share. */
typedef struct rank_report {
    bool started;
    uint64_t digest;
    double began, failed; /* pn_seconds is the same clock in all processes of a machine */
    pn_status status;
    char message[1024];
} rank_report;

typedef struct ranks {
    int n;
    pid_t pid[RANKS_MOST];
    int exit_status[RANKS_MOST]; /* of wait; -1: not ended */
    rank_report *report;         /* RANKS_MOST */
    char dir[64], rendezvous[96];
    const char *run_id;
    double limit, start;
} ranks;

typedef int rank_program(ranks *r, int rank, pn_control *control);

static inline ranks *ranks_new(int n) {
    ranks *r = calloc(1, sizeof *r);
    r->n = n;
    r->limit = 60; /* tests run beside others: nobody is given up early unless that is what is tested */
    r->start = 60;
    r->run_id = "test";
    r->report = mmap(NULL, RANKS_MOST * sizeof *r->report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    strcpy(r->dir, "/tmp/postnas-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(r->dir));
    snprintf(r->rendezvous, sizeof r->rendezvous, "local:%s/meet", r->dir);
    return r;
}

static inline pn_status ranks_open(const ranks *r, int rank, pn_control **out) {
    return pn_control_open(&(pn_control_settings){ .rank = rank,
                                                   .size = r->n,
                                                   .rendezvous = r->rendezvous,
                                                   .run_id = r->run_id,
                                                   .limit_seconds = r->limit,
                                                   .start_seconds = r->start },
                           out);
}

static inline void report_failure(rank_report *at, pn_status s) {
    at->failed = pn_seconds();
    at->status = s;
    snprintf(at->message, sizeof at->message, "%s", pn_error_message());
}

/* One rank; a program exits with 0 when all is as it should be. */
static inline void ranks_start_one(ranks *r, int rank, rank_program *program) {
    fflush(NULL);
    r->exit_status[rank] = -1;
    r->pid[rank] = fork();
    ck_assert_int_ge(r->pid[rank], 0);
    if (r->pid[rank]) return;
    alarm(120);
    pn_control *control;
    rank_report *report = &r->report[rank];
    const pn_status s = ranks_open(r, rank, &control);
    if (s) {
        report_failure(report, s);
        _exit(10);
    }
    report->began = pn_seconds();
    report->started = true;
    const int code = program(r, rank, control);
    pn_control_close(&control);
    _exit(code);
}

static inline void ranks_start(ranks *r, rank_program *program) {
    for (int i = 0; i < r->n; i++) ranks_start_one(r, i, program);
}

static inline void ranks_wait_started(const ranks *r) {
    for (int i = 0; i < r->n; i++)
        while (!*(volatile bool *)&r->report[i].started) usleep(2000);
}

static inline void ranks_wait_one(ranks *r, int rank) {
    if (r->exit_status[rank] == -1) waitpid(r->pid[rank], &r->exit_status[rank], 0);
}

/* All of them; the test goes on when the last one has ended. */
static inline void ranks_wait(ranks *r) {
    for (int i = 0; i < r->n; i++) ranks_wait_one(r, i);
}

static inline void ranks_all_succeed(ranks *r) {
    ranks_wait(r);
    for (int i = 0; i < r->n; i++)
        ck_assert_msg(r->exit_status[i] == 0, "rank %d of %d: wait status %d: %s", i, r->n, r->exit_status[i],
                      r->report[i].message);
}

static inline void ranks_free(ranks *r) {
    ck_ok(pn_remove_tree(r->dir));
    munmap(r->report, RANKS_MOST * sizeof *r->report);
    free(r);
}

/* In a rank: ends it, with the story, when something is not as it should be. */
#define RANK_OK(report, expr)                                                                                          \
    do {                                                                                                               \
        const pn_status rank_s_ = (expr);                                                                              \
        if (rank_s_) {                                                                                                 \
            report_failure((report), rank_s_);                                                                         \
            return 11;                                                                                                 \
        }                                                                                                              \
    } while (0)
#define RANK_CHECK(report, ok, ...)                                                                                    \
    do {                                                                                                               \
        if (!(ok)) {                                                                                                   \
            snprintf((report)->message, sizeof(report)->message, __VA_ARGS__);                                         \
            return 12;                                                                                                 \
        }                                                                                                              \
    } while (0)

#endif
