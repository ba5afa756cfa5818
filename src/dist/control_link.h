/* The inside of the control channel: its state, and the thread that reads and writes every connection of it. */
#ifndef PN_DIST_CONTROL_LINK_H
#define PN_DIST_CONTROL_LINK_H

#include <pthread.h>
#include <stdatomic.h>

#include "buffer.h"
#include "control.h"
#include "rendezvous.h"

enum { PN_CAUSE_BYTES = 1024, PN_DOING_BYTES = 64 };

/* What a beat says of the main thread: it waits for other ranks, or does what need not get anywhere (perhaps both). */
typedef enum pn_beat_state { PN_BEAT_WAITS = 1, PN_BEAT_BUSY = 2 } pn_beat_state;

/* What is known of a rank. */
typedef struct pn_member {
    double heard;      /* when it last said something */
    double progressed; /* when it last got somewhere */
    uint64_t progress;
    unsigned state; /* of pn_beat_state */
    bool there, left;
    char doing[PN_DOING_BYTES];
    char *given; /* its part of the exchange under way, owned; NULL: not yet */
    size_t n_given;
    char label[PN_WIRE_LABEL];
    pn_net_address address; /* n_bytes 0: rank 0's machine */
} pn_member;

/* A connection. */
typedef struct pn_link {
    int fd;
    int rank;     /* of who is at the other end; -1: it has not said so yet */
    double since; /* connected */
    pn_buf in, out;
    size_t sent; /* of out */
    bool ends;   /* once everything is sent */
} pn_link;

struct pn_control {
    int rank, size;
    double limit, start_deadline;
    pn_meeting meeting;
    int port;

    pthread_mutex_t lock; /* everything below */
    pthread_cond_t changed;
    pthread_t thread;
    bool started, stop;
    int wake[2]; /* a pipe: something is there to be sent */
    int listener;
    pn_link *link; /* rank 0: one for each rank and for whoever knocks; others: rank 0 */
    int n_links, room;
    pn_member *member; /* of every rank; what only rank 0 knows is 0 elsewhere */
    int n_there;
    bool ready; /* all are there */

    uint64_t asked, answered; /* exchanges this rank has begun and ended */
    pn_buf all;               /* everybody's bytes, of the last one */
    int n_given;

    bool gone; /* this rank has said BYE */
    atomic_bool failed;
    int failed_rank;
    char cause[PN_CAUSE_BYTES];
    double failed_at;
    void (*on_failure)(void *ctx);
    void *on_failure_ctx;
    bool told; /* on_failure was called, or is being called */

    atomic_uint_fast64_t progress;
    atomic_int waiting;
    _Atomic(const char *) busy;
    char doing[PN_DOING_BYTES];
};

/* All with the lock held. */
void pn_control_fail(pn_control *c, int rank, const char *fmt, ...) PN_PRINTF(3, 4);
void pn_control_say(pn_control *c, pn_link *to, pn_wire_type type, const void *head, size_t n_head, const void *body,
                    size_t n_body);
pn_link *pn_control_link_of(pn_control *c, int rank);
pn_status pn_control_add_link(pn_control *c, int fd, int rank);
void pn_control_wake(pn_control *c);
/* Rank 0: a rank's part of the exchange; ends it when it was the last one. */
void pn_control_take(pn_control *c, int rank, const char *label, const void *bytes, size_t n_bytes);

/* Every whole frame that came from a link; what is left of the last one stays. False: the connection is no good. */
bool pn_control_hear(pn_control *c, pn_link *l, double now);

void *pn_control_run(void *c); /* the thread */

#endif
