/* ZeRO-1 (arXiv:1910.02054): ranks that train one model on different rows. Every rank has all weights; the optimizer's
 * masters, moments and work are shared out.
 *
 * The weights that train lie in flat arrays, bucket by bucket in the order in which backward finishes their gradients
 * (bucket.h); their tensors are parts of these. A bucket's gradients are made in one array, which leaves as soon as
 * backward is through with it: a reduce_scatter gives every rank the sum of its part over all ranks, while backward
 * goes on. The rank's optimizer has slots for its parts alone, and all_gather brings what it made of them to all.
 *
 *     for every pass of the step:     pn_zero_pass, forward with marks (pn_zero_passed), backward
 *     then                            pn_zero_reduce, pn_adamw_begin, pn_zero_gather
 *
 * Gradients are summed: what a rank's loss is of the whole is in its loss. */
#ifndef PN_TRAIN_ZERO_H
#define PN_TRAIN_ZERO_H

#include "comm.h"
#include "optimizer.h"
#include "tape.h"

typedef struct pn_zero pn_zero;

/* Of the weights in p that train: they move into arrays of their own, which they keep when it is gone. All ranks call
 * it with the same weights. bucket_bytes: of gradients that travel together. The communicator is borrowed, and in the
 * memory where the weights are. */
pn_status pn_zero_create(const pn_params *p, pn_comm *comm, const pn_adamw_settings *settings, int64_t bucket_bytes,
                         pn_zero **out);
/* In the middle of a step, after a failure: the communicator is abandoned. */
void pn_zero_destroy(pn_zero **z);

/* The optimizer of this rank's parts; it clips by the norm over all ranks. Borrowed. */
pn_adamw *pn_zero_optimizer(pn_zero *z);
/* Its part of run state: as pn_optimizer_arrays, each a range of a whole weight. */
int pn_zero_arrays(pn_zero *z, pn_checkpoint_array *out, char (*names)[PN_OPTIMIZER_NAME]);

/* Before a pass on the tape, whose gradients are to be made in the buckets. last: after it no other adds to them, so
 * they leave as they are finished. */
void pn_zero_pass(pn_zero *z, pn_tape *t, bool last);
/* For pn_tape_mark before each layer of the forward pass, with its number; ctx: the pn_zero. */
pn_status pn_zero_passed(void *ctx, pn_tape *t, int layer);
/* After the last backward: the rest leaves, and the optimizer's slots have their gradients. */
pn_status pn_zero_reduce(pn_zero *z);
/* After an update, or after weights were read: the parts of all ranks come to every rank. */
pn_status pn_zero_gather(pn_zero *z);

/* Bytes of gradients and weights that a bucket has by default. */
enum { PN_ZERO_BUCKET = 64 << 20 };

#endif
