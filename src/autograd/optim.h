/* AdamW (decoupled weight decay, arXiv:1711.05101) with global-norm clipping, where the values are.
 *
 * Masters, moments and gradients are F32. The master of an F32 value is the value itself; a BF16 value, on the GPU, has
 * one beside it, made from the value, and is its rounding after every step. */
#ifndef PN_AUTOGRAD_OPTIM_H
#define PN_AUTOGRAD_OPTIM_H

#include "tensor.h"

typedef struct pn_adamw pn_adamw;

typedef struct pn_adamw_slot {
    pn_tensor *value; /* F32, or BF16 on the GPU; wants_grad; retained. All of them are on the host or on the GPU */
    bool decay;       /* false for norms, biases, A_log, dt_bias (blocks.md 1.2) */
    const char *name; /* for messages; must outlive the optimizer */
} pn_adamw_slot;

typedef struct pn_adamw_settings {
    double beta1, beta2, epsilon, weight_decay;
    double clip; /* global gradient norm; 0: no clipping */
} pn_adamw_settings;

/* Also gives every value a zero gradient that lives as long as the optimizer. */
pn_status pn_adamw_create(const pn_adamw_slot *slots, int n, const pn_adamw_settings *settings, pn_adamw **out);
void pn_adamw_destroy(pn_adamw **o);
/* Clips, updates, zeroes the gradients; waits for the GPU once. *norm (NULL ok): the gradient norm before clipping.
 * PN_NUMERIC, naming the first value with such a gradient, when it is not finite: nothing was updated. */
pn_status pn_adamw_step(pn_adamw *o, double learning_rate, double *norm);
pn_status pn_adamw_zero_grad(pn_adamw *o);

/* For checkpoints: the step count, and of slot i the master and the moments, [0] first, [1] second; borrowed. After
 * masters were written, pn_adamw_restored gives the values their roundings. */
int pn_adamw_slots(const pn_adamw *o);
int64_t *pn_adamw_steps(pn_adamw *o);
pn_tensor *pn_adamw_master(pn_adamw *o, int i);
pn_tensor *pn_adamw_moment(pn_adamw *o, int i, int which);
pn_status pn_adamw_restored(pn_adamw *o);

/* Bytes that an optimizer of n values takes beside them: gradients, moments, and masters of values of that type. */
double pn_adamw_bytes(double n, pn_dtype type);

#endif
