/* One training forward: the student along a path, the teacher along its own, and the weighted sum of three losses.
 *
 *     ce       mean next-token cross-entropy of the student
 *     kl       mean KL(teacher || student) over next-token distributions, at a temperature, times its square
 *     feature  mean over layers of |y - y_T|^2 / var(y_T): the student's mixer outputs against the teacher's
 *
 * Logits are never held (linear_cross_entropy, linear_kl). The teacher runs on the same tape without recording; it may
 * be the same model along another path, sharing every weight that neither trains. */
#ifndef PN_TRAIN_DISTILL_H
#define PN_TRAIN_DISTILL_H

#include "batch.h"
#include "model.h"

typedef struct pn_loss_weights {
    double ce, kl, feature; /* 0: not computed */
    double temperature;
} pn_loss_weights;

typedef struct pn_loss_parts {
    double total, ce, kl, feature;
} pn_loss_parts;

/* path NULL: candidate 0. teacher may be NULL when kl and feature are 0. `recompute`: keep only each layer's input and
 * run the layer again in backward. *loss: [1], ready for pn_tape_backward; owned by the tape. */
pn_status pn_distill_forward(pn_tape *t, const pn_model *student, const pn_path *path, const pn_model *teacher,
                             const pn_path *teacher_path, const pn_batch *batch, const pn_loss_weights *weights,
                             bool recompute, pn_tensor **loss, pn_loss_parts *parts);

#endif
