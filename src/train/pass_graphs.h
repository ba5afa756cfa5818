/* Forward and backward of training steps as two CUDA graphs (replay.h): for small steps (pn_distill_small), where the
 * processor takes longer to ask for kernels than the GPU takes to run them.
 *
 * Everything that differs from step to step is in memory that stays where it is and is written before a launch: token
 * ids, targets and their weights, and the tables of documents, which are of any layout of a few powers of two of
 * documents (pn_batch_docs). So one recording serves every batch of as many tokens.
 *
 * A step is recorded as a whole and not by layers: where its activations are follows from all that was asked for before
 * them, so a layer's graph would serve the same passes as the whole one, for more launches. What never comes back, as
 * sampled paths do not, would not gain from graphs of layers either, unless their boundaries were copied.
 *
 * A kind of step runs kernel by kernel the first time, is recorded the second time and launched from then on. Steps
 * with gates or in parts, those whose gradients are sent to other ranks, what shares the tape's memory with others, and
 * what cannot be recorded run as if this were not here; the bits are the same. */
#ifndef PN_TRAIN_PASS_GRAPHS_H
#define PN_TRAIN_PASS_GRAPHS_H

#include "distill.h"

typedef struct pn_pass_graphs pn_pass_graphs;

/* Borrows the tape. */
pn_status pn_pass_graphs_create(pn_tape *t, pn_pass_graphs **out);
void pn_pass_graphs_destroy(pn_pass_graphs **g);

/* pn_distill_forward, on a tape that was reset. The losses are valid until the tape's next use. */
pn_status pn_pass_graphs_forward(pn_pass_graphs *g, const pn_distill *pass, const pn_batch *batch,
                                 pn_distill_losses *losses);
/* pn_tape_backward_unchecked of the total that the forward pass gave. */
pn_status pn_pass_graphs_backward(pn_pass_graphs *g);

/* Whether the forward pass made last is one of those that are recorded, or may be: what it made is not the tape's, and
 * nothing may be asked of the tape before backward. No longer, after leave: the step is made in another way. */
bool pn_pass_graphs_begun(const pn_pass_graphs *g);
void pn_pass_graphs_leave(pn_pass_graphs *g);

/* Of all steps: passes that were launched, and recordings. */
int64_t pn_pass_graphs_launches(const pn_pass_graphs *g);
int pn_pass_graphs_recordings(const pn_pass_graphs *g);

#endif
