/* AdamW (decoupled weight decay, arXiv:1711.05101) with global-norm clipping. Masters, moments and gradients are F32.
 */
#ifndef PN_AUTOGRAD_OPTIM_H
#define PN_AUTOGRAD_OPTIM_H

#include "tensor.h"

typedef struct pn_adamw pn_adamw;

typedef struct pn_adamw_slot {
    pn_tensor *value; /* F32, wants_grad; retained */
    bool decay;       /* false for norms, biases, A_log, dt_bias (blocks.md 1.2) */
} pn_adamw_slot;

typedef struct pn_adamw_settings {
    double beta1, beta2, epsilon, weight_decay;
    double clip; /* global gradient norm; 0: no clipping */
} pn_adamw_settings;

/* Also gives every value a zero gradient that lives as long as the optimizer. */
pn_status pn_adamw_create(const pn_adamw_slot *slots, int n, const pn_adamw_settings *settings, pn_adamw **out);
void pn_adamw_destroy(pn_adamw **o);
/* Clips, updates, zeroes the gradients. *norm (NULL ok): the gradient norm before clipping. PN_NUMERIC when it is not
 * finite: nothing was updated. */
pn_status pn_adamw_step(pn_adamw *o, double learning_rate, double *norm);
pn_status pn_adamw_zero_grad(pn_adamw *o);

/* For checkpoints: the step count and the moments, [0] first, [1] second, of slot i; borrowed. */
int pn_adamw_slots(const pn_adamw *o);
int64_t *pn_adamw_steps(pn_adamw *o);
pn_tensor *pn_adamw_moment(pn_adamw *o, int i, int which);

#endif
