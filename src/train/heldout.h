/* Held-out loss while training: the same rows each time, which no step sees. */
#ifndef PN_TRAIN_HELDOUT_H
#define PN_TRAIN_HELDOUT_H

#include "trainer.h"

/* Means over the first heldout_tokens of the mixture's held-out split, in passes of the job's size, with the loss
 * weights of after `step` steps; cross-entropy is always measured, and kl where the teacher is there: teacher rows are
 * of the train split. The tape is reset before and after. */
pn_status pn_heldout_loss(pn_tape *t, const pn_train_job *job, int64_t step, pn_loss_parts *out);

#endif
