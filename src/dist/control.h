/* The control channel: a TCP star around rank 0 that is there in every run of more than one rank.
 *
 * It brings the ranks together, carries small messages (the NCCL id, the agreement on a checkpoint), and sees to it
 * that no rank waits for ever: a rank whose process ends is noticed at once by its closed connection, one that hangs
 * within `limit_seconds`, and the failure reaches every rank with the rank and the cause. Whoever waits for other ranks
 * asks pn_control_status while it does.
 *
 * A thread of its own in every rank sends a heartbeat and answers. The heartbeat carries how far the main thread is
 * (pn_control_tick) and whether it waits for others, so that a main thread that hangs is told from one that waits: a
 * stopped process sends no heartbeats, a hung main thread no progress. When all wait for one another, for five times
 * the limit, that is said too. Work that cannot tick for long says what it is (pn_control_busy). A process that has not
 * closed the channel within the limit after a failure cannot be told by other means: the thread says the failure on
 * standard error and ends the process with exit code 3.
 *
 * One thread per process uses these functions, except where it says so. With one rank everything succeeds at once. */
#ifndef PN_DIST_CONTROL_H
#define PN_DIST_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "net.h"
#include "wire.h"

typedef struct pn_control pn_control;

enum { PN_EXCHANGE_MOST = PN_WIRE_MOST - 8 }; /* of all ranks together */

typedef struct pn_control_settings {
    int rank, size;
    const char *rendezvous, *run_id; /* launch.h */
    double limit_seconds;            /* a rank that shows no sign of life for as long has failed */
    double start_seconds;            /* within which all ranks must have come */
    /* Carries rank 0's note (PN_NOTE_BYTES, rendezvous.h) to all others, for "mpi:". NULL: cannot. */
    pn_status (*carry)(void *ctx, char *note);
    void *ctx;
} pn_control_settings;

/* Returns when all ranks are there. PN_COMM after start_seconds: who is missing, where it was tried, and the last
 * answer. PN_INTERRUPTED when a signal or the time limit asks rank 0 to stop meanwhile, or another rank and nobody
 * comes for seconds. PN_USAGE: rendezvous or number of ranks do not fit. */
pn_status pn_control_open(const pn_control_settings *s, pn_control **out);
/* The orderly end: waits until what was said is delivered and, in rank 0, until all others have ended or one of them
 * fails. After a failure it only delivers that. */
void pn_control_close(pn_control **c);

int pn_control_rank(const pn_control *c);
int pn_control_size(const pn_control *c);
double pn_control_limit(const pn_control *c);

/* PN_OK, or PN_COMM once some rank has failed: "rank 2 failed: its process ended". Any thread. */
pn_status pn_control_status(pn_control *c);
bool pn_control_failed(const pn_control *c); /* the same without a message: a look at a flag */
/* The rank that failed first and why; false: none has. A rank of -1: no single one. Any thread. */
bool pn_control_failure(pn_control *c, int *rank, char *cause, size_t n_bytes);
/* This rank has failed, and all are told: before it ends with an error of its own. The first failure stands. Any
 * thread.
 */
void pn_control_abort(pn_control *c, const char *cause);
/* The same for another rank that this one has lost. */
void pn_control_lost(pn_control *c, int rank, const char *cause);
/* Called once, by the channel's thread, when a rank has failed: to stop what cannot be told otherwise. fn NULL: no
 * longer; returns when it is not running. */
void pn_control_on_failure(pn_control *c, void (*fn)(void *ctx), void *ctx);

/* The main thread got somewhere: at least every few seconds, every micro-step say. Any thread. */
void pn_control_tick(pn_control *c);
/* It does something that may take longer than the limit without a tick, "loading the model"; it is not expected to get
 * anywhere until it says NULL, nor are those that wait for it, for however long. A literal. Returns what it said
 * before. */
const char *pn_control_busy(pn_control *c, const char *what);
/* What it is doing, for the message when it hangs, "step 12". */
void pn_control_doing(pn_control *c, const char *fmt, ...) PN_PRINTF(2, 3);
/* It waits for other ranks, or no longer. Calls nest. */
void pn_control_waiting(pn_control *c, bool waits);

/* Everybody gives n_bytes (the same number, size times it at most PN_EXCHANGE_MOST) and gets all ranks' in the order of
 * ranks: size x n_bytes. what: up to 31 bytes, the same on all ranks; ranks that ask for different things fail. */
pn_status pn_control_exchange(pn_control *c, const char *what, const void *mine, size_t n_bytes, void *all);
pn_status pn_control_barrier(pn_control *c, const char *what);
/* Rank `from`'s bytes, for everybody. */
pn_status pn_control_broadcast(pn_control *c, const char *what, int from, void *bytes, size_t n_bytes);
/* The largest of all ranks' values. */
pn_status pn_control_max(pn_control *c, const char *what, int64_t *value);
/* Did it go well everywhere? Every rank says how its part went (mine, with its story when it is a failure) and gets the
 * same answer: PN_OK, or the status of the lowest rank that failed, with that rank and its story. Not a failure of the
 * channel: the ranks go on. What a checkpoint's commit stands on. */
pn_status pn_control_agree(pn_control *c, const char *what, pn_status mine);

/* Where rank `rank` is as seen from here: its address, with no port. For those that open connections of their own. */
pn_status pn_control_address(const pn_control *c, int rank, pn_net_address *out);
const unsigned char *pn_control_token(const pn_control *c);

#endif
