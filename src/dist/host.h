/* Collectives over host memory, for whatever can bring bytes from one rank to another.
 *
 * A thread runs them in order, so that they go on while the caller computes. The algorithms are ours, over pairs of
 * ranks that exchange parts: every rank owns one part of a sum, is sent it by all others, adds it up in the order of
 * ranks, and hands it round. That moves as few bytes as any algorithm, and the result depends on nothing but the
 * values. */
#ifndef PN_DIST_HOST_H
#define PN_DIST_HOST_H

#include <stdatomic.h>

#include "comm.h"

typedef struct pn_transport pn_transport;

typedef struct pn_transport_type {
    const char *name;
    /* Sends n_out bytes to one rank while it receives n_in bytes from one, perhaps the same. A rank of -1: nothing in
     * that direction. Both sides give the same number. Ends early, with PN_COMM, when a rank fails or `stop` is set,
     * and uses neither buffer once it has returned. Called by one thread at a time. */
    pn_status (*exchange)(pn_transport *t, int to, const void *out, size_t n_out, int from, void *in, size_t n_in);
    void (*close)(pn_transport *t); /* frees it */
} pn_transport_type;

struct pn_transport { /* first member of an implementation's own struct */
    const pn_transport_type *type;
    int rank, size;
    pn_control *control;
    atomic_bool stop; /* looked at as often as the control channel is: pn_transport_status */
};

/* Whether an exchange goes on. */
pn_status pn_transport_status(pn_transport *t);

/* Takes the transport, whether it succeeds or not. */
pn_status pn_comm_host(pn_transport *t, pn_comm **out);

#endif
