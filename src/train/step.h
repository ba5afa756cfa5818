/* Steps of training asked for one after another. The host waits for each of them once, and late: what step k found is
 * read when the forward pass of step k + 1 has been asked for, so a GPU always has work. A step whose loss or gradient
 * is not finite updates nothing, and the next one is not begun before that is known.
 *
 *     pn_step_forward(k)        may come before
 *     pn_step_settle(k - 1)
 *     pn_step_update(k)         backward, and the optimizer
 *
 * Where a step's batch is taken in parts, each has its pass (pn_step_forward_part), all but the last with
 *
 *     pn_step_part(k, share)    backward; gradients add up, and losses with their shares
 *
 * and the last with pn_step_last_part before the update. */
#ifndef PN_TRAIN_STEP_H
#define PN_TRAIN_STEP_H

#include "distill.h"
#include "optim.h"
#include "pass_graphs.h"
#include "readback.h"
#include "zero.h"

typedef struct pn_step { /* tape and optimizer are borrowed; the rest is the step's own, and starts as {0} */
    pn_tape *tape;
    pn_adamw *optim;
    pn_zero *zero; /* whose optimizer it is, with many ranks: borrowed; NULL: one rank */
    pn_distill_losses losses;
    pn_pass_graphs *graphs; /* of small steps on the GPU */
    pn_readback *sent;      /* losses on their way */
    pn_pool *pool;          /* of `sum`: it lives from part to part, which the tape does not */
    pn_tensor *sum[4];      /* losses of the parts so far, each with its share; NULL: no step was taken in parts yet */
    bool parted;            /* this step is */
    bool nothing;           /* this rank adds nothing to it */
    bool open;              /* updated and not settled */
} pn_step;

pn_status pn_step_open(pn_step *s, pn_tape *tape, pn_adamw *optim);
/* The same with many ranks: each has its part of the batch, and its pass the marks of the zero (pn_zero_passed). */
pn_status pn_step_open_zero(pn_step *s, pn_tape *tape, pn_zero *zero);
void pn_step_close(pn_step *s);

/* On a tape that was reset: of a whole batch, or of a part of one. */
pn_status pn_step_forward(pn_step *s, const pn_distill *pass, const pn_batch *batch);
pn_status pn_step_forward_part(pn_step *s, const pn_distill *pass, const pn_batch *batch);
/* How much a part is of the whole: `term` of the mean over targets (ce and kl), feature of the feature loss. The pass
 * had its losses' weights times these, so that its gradients are what the whole batch's loss has from it. */
typedef struct pn_step_share {
    double term, feature;
} pn_step_share;
/* Backward of the pass made last, over a part. */
pn_status pn_step_part(pn_step *s, const pn_step_share *share);
/* Of the last part, before the update. */
pn_status pn_step_last_part(pn_step *s, const pn_step_share *share);
/* In place of a pass, on one of many ranks: it has nothing to add to this step. */
pn_status pn_step_nothing(pn_step *s);
/* Of the pass made last; pass and batch are not needed after it. */
pn_status pn_step_update(pn_step *s, double learning_rate);
/* Waits for the open step: its losses, 0 what was not computed, and gradient norm. PN_NUMERIC when the loss, or a
 * gradient, which is named, is not finite: then weights and optimizer are as before the step. */
pn_status pn_step_settle(pn_step *s, pn_loss_parts *losses, double *norm);

#endif
