/* Collectives: sums, maxima and copies over all ranks, with one process, MPI or TCP over the host's memory, or NCCL
 * over the GPUs'.
 *
 *     pn_ticket t;
 *     PN_TRY(pn_comm_reduce_scatter(comm, gradients, mine, n, PN_F32, PN_SUM, &t));   // returns at once
 *     ... more of backward ...
 *     PN_TRY(pn_comm_wait(comm, t));                                                  // now `mine` may be read
 *
 * All ranks call the same functions in the same order with the same counts, types and roots; they run in that order,
 * one after the other, while the caller goes on. A buffer belongs to the collective from the call until the wait. With
 * a NULL ticket the call waits itself.
 *
 * Host memory: a wait blocks until it is done. GPU memory: a collective starts when the GPU has done what was asked for
 * before, and after a wait what is asked for next starts when it is done; the host waits for neither. So what the GPU
 * is asked for after a wait, a copy to the host and its event too, has the collective's values. A host that waits for
 * such a copy waits for the other ranks with it: when one fails, nothing ends that but the control channel's thread,
 * which aborts NCCL, and what is read then is anything: look at pn_control_status before it counts. pn_comm_finish
 * waits too, and itself returns with the rank that failed.
 *
 * Every rank gets the same bits. On the host a sum is made in double precision in the order of ranks and rounded once,
 * whatever the count and whatever carries it: `tcp` and `mpi` give the same bits, from run to run too. With NCCL it is
 * the same from run to run for one size, one kind of machine and one version of NCCL. A maximum of values one of which
 * is NaN is NaN on the host; NCCL does not promise that: sum what tells whether all are finite.
 *
 * When a rank fails, everything here returns PN_COMM with that rank and the cause (control.h), and the communicator is
 * of no more use. One thread calls these functions. */
#ifndef PN_DIST_COMM_H
#define PN_DIST_COMM_H

#include "control.h"
#include "tensor.h"

typedef struct pn_comm pn_comm;
typedef uint64_t pn_ticket; /* 0: nothing to wait for */

typedef enum pn_reduce { PN_SUM, PN_MAX } pn_reduce;

typedef enum pn_collective_kind {
    PN_ALL_REDUCE,
    PN_REDUCE_SCATTER,
    PN_ALL_GATHER,
    PN_BROADCAST,
    PN_BARRIER
} pn_collective_kind;

/* A collective as a value: what implementations are given. */
typedef struct pn_collective {
    pn_collective_kind kind;
    pn_reduce reduce;
    const void *src; /* all_reduce, broadcast: dst */
    void *dst;
    int64_t count; /* elements: of the whole (all_reduce, broadcast), of a rank's part (the others) */
    pn_dtype dtype;
    int root;
} pn_collective;

typedef struct pn_comm_type {
    const char *name;                                          /* "self", "mpi", "tcp", "nccl" */
    pn_status (*start)(pn_comm *c, const pn_collective *what); /* the next one in order */
    pn_status (*wait)(pn_comm *c, pn_ticket t);
    pn_status (*finish)(pn_comm *c);
    void (*abandon)(pn_comm *c); /* pn_comm_abandon, once, before destroy */
    void (*destroy)(pn_comm *c); /* data; waits for nothing when a rank has failed */
} pn_comm_type;

struct pn_comm {
    const pn_comm_type *type;
    int rank, size;
    pn_pool_kind memory; /* PN_POOL_HOST or PN_POOL_DEVICE: where buffers are */
    pn_control *control; /* borrowed */
    pn_ticket last;      /* of the last one that was started: they count up from 1 */
    bool abandoned;
    void *data;
};

/* F32, BF16, F64 and I64 can be reduced; any type can be gathered and broadcast. Integer sums wrap around. */

/* In place: count elements, their sum or maximum over all ranks in every rank. */
pn_status pn_comm_all_reduce(pn_comm *c, void *x, int64_t count, pn_dtype t, pn_reduce op, pn_ticket *ticket);
/* src: size x count elements, one part for each rank. dst: count, this rank's part reduced over all ranks; dst may be
 * that part of src, and does not overlap it otherwise. The other parts of src stay as they are. */
pn_status pn_comm_reduce_scatter(pn_comm *c, const void *src, void *dst, int64_t count, pn_dtype t, pn_reduce op,
                                 pn_ticket *ticket);
/* src: count elements. dst: size x count, in the order of ranks; src may be this rank's part of dst. */
pn_status pn_comm_all_gather(pn_comm *c, const void *src, void *dst, int64_t count, pn_dtype t, pn_ticket *ticket);
/* In place: rank root's count elements, in every rank. */
pn_status pn_comm_broadcast(pn_comm *c, void *x, int64_t count, pn_dtype t, int root, pn_ticket *ticket);
/* Every rank has come here. On the GPU: its stream has. */
pn_status pn_comm_barrier(pn_comm *c);

/* For what has a ticket and all that was started before it. */
pn_status pn_comm_wait(pn_comm *c, pn_ticket t);
/* The host waits until everything that was started is done, on the GPU too. */
pn_status pn_comm_finish(pn_comm *c);

/* Before buffers go that something started may still use: after a failure, where it cannot be waited for. What was
 * started is ended where it is, and when this returns nothing of it uses its buffers, which hold anything (what the
 * GPU's own stream was asked for goes on there, in its order). It does not wait for other ranks, and tells them
 * nothing: this rank has failed and says so next (pn_world_close). The communicator is of no more use: everything but
 * pn_comm_destroy returns PN_COMM. Twice is as once; leaves pn_error_message as it is.
 */
void pn_comm_abandon(pn_comm *c);

/* Whole tensors, contiguous as all are, in the communicator's memory. */
pn_status pn_comm_all_reduce_tensor(pn_comm *c, pn_tensor *x, pn_reduce op, pn_ticket *ticket);
pn_status pn_comm_broadcast_tensor(pn_comm *c, pn_tensor *x, int root, pn_ticket *ticket);

/* The caller owns *out and destroys it before the control channel is closed. */
/* One rank: copies. */
pn_status pn_comm_self(pn_control *control, pn_pool_kind memory, pn_comm **out);
/* Connections of its own from every rank to every other, in host memory. */
pn_status pn_comm_tcp(pn_control *control, pn_comm **out);
/* MPI_COMM_WORLD's messages, in host memory. PN_UNSUPPORTED where this build has no MPI (mpi_library.h). */
pn_status pn_comm_mpi(pn_control *control, pn_comm **out);
/* GPU memory; the device is open. PN_UNSUPPORTED where this build has no NCCL, or the library is not to be found. */
pn_status pn_comm_nccl(pn_control *control, pn_comm **out);
void pn_comm_destroy(pn_comm **c);

/* For implementations. */
pn_status pn_comm_create(const pn_comm_type *type, pn_pool_kind memory, pn_control *control, void *data, pn_comm **out);

#endif
