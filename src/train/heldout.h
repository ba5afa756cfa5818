/* Held-out loss while training: the same rows each time, which no step sees. */
#ifndef PN_TRAIN_HELDOUT_H
#define PN_TRAIN_HELDOUT_H

#include "trainer.h"

/* Means of ce, which is always measured, and kl over the first heldout_tokens of the mixture's held-out split, in
 * passes of the job's size; total is their sum with the loss weights of after `step` steps. The feature loss serves
 * training alone: 0. Where training follows a teacher's rows, which are of the train split, kl is 0 and total ce. The
 * tape is reset before and after. */
pn_status pn_heldout_loss(pn_tape *t, const pn_train_job *job, int64_t step, pn_loss_parts *out);

#endif
