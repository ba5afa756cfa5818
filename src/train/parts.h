/* Gradient accumulation: a step's batch in parts of whole rows, each with a pass of its own, on one rank or many.
 *
 * The losses of a batch are means: ce and kl over its weighted targets, feature over its tokens. So that the parts'
 * gradients add up to those of the whole batch, the mean of a part counts by its share of the whole's weight. The
 * feature loss is a ratio whose denominator, the variance of the teacher's outputs, is that of the part: its mean over
 * parts comes near that of the whole batch, and is not the same. */
#ifndef PN_TRAIN_PARTS_H
#define PN_TRAIN_PARTS_H

#include <stdbool.h>

#include "step.h"

typedef struct pn_parts {
    const pn_batch *whole; /* borrowed */
    int64_t tokens;        /* of a part */
    int n;
    bool alone;              /* the batch is taken as it is */
    double weight;           /* of the targets of the step, on all ranks */
    int ranks;               /* that have as many tokens each */
    pn_batch batch;          /* of the part that was taken last; owned, kept from step to step */
    pn_loss_weights weights; /* of its losses: to be used by its pass */
    pn_step_share share;
} pn_parts;

/* p starts as {0}; each step's batch is opened in it, and part_tokens divides it. weight: what pn_batch_weight says of
 * the batches of all ranks together; of one rank nothing is asked. */
void pn_parts_open(pn_parts *p, const pn_batch *whole, int64_t part_tokens, int ranks, double weight);
/* Part i, with the step's loss weights shared out. *loses: whether there is a loss to make of it; where no target of a
 * part has weight there is none. */
pn_status pn_parts_take(pn_parts *p, int i, const pn_loss_weights *weights, bool *loses);
/* The batch of the part that was taken last: the whole one where it is the only one. */
const pn_batch *pn_parts_batch(const pn_parts *p);
void pn_parts_free(pn_parts *p);

#endif
