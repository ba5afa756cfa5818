/* AdamW (decoupled weight decay, arXiv:1711.05101) with global-norm clipping, where the values are.
 *
 * Masters, moments and gradients are F32. A gradient belongs to the pass that makes it (tape.h) and goes when a step
 * has used it: its memory serves the next forward pass. A value without one has a gradient of zero. The master of an
 * F32 value is the value itself. That of a BF16 value, on the GPU, starts as the value, which is its rounding after
 * every step; what it has beyond the value takes 16 bits beside it (master.h). */
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

/* Drops gradients that the values have. */
pn_status pn_adamw_create(const pn_adamw_slot *slots, int n, const pn_adamw_settings *settings, pn_adamw **out);
/* The same where the values are, if there are any, in memory of that kind. */
pn_status pn_adamw_create_in(pn_pool_kind kind, const pn_adamw_slot *slots, int n, const pn_adamw_settings *settings,
                             pn_adamw **out);
void pn_adamw_destroy(pn_adamw **o);
/* Clips, updates, drops the gradients; waits for the GPU once. *norm (NULL ok): the gradient norm before clipping.
 * PN_NUMERIC, naming the first value with such a gradient, when it is not finite: nothing was updated. */
pn_status pn_adamw_step(pn_adamw *o, double learning_rate, double *norm);
/* The same in two parts, for who has other work to ask the GPU for in between: begin asks for the step, finish waits
 * for it and says what came of it. loss (NULL: none): [1], F32 on the GPU; where it is not finite nothing is updated
 * either. Nor is anything where an input was outside its contract (device.h). Gradients are dropped by begin. */
pn_status pn_adamw_begin(pn_adamw *o, double learning_rate, const pn_tensor *loss);
pn_status pn_adamw_finish(pn_adamw *o, double *norm);
void pn_adamw_drop_gradients(pn_adamw *o);

/* Several optimizers, one per rank, each with a part of the weights (ZeRO, arXiv:1910.02054), clip by the norm of all
 * their gradients and make a step or leave it together. sum: adds up x, [n] F64 where the values are, over the ranks;
 * called once in every begin. NULL: this optimizer is alone. */
typedef pn_status (*pn_adamw_sum)(void *ctx, pn_tensor *x);
void pn_adamw_share(pn_adamw *o, pn_adamw_sum sum, void *ctx);

/* For checkpoints: the step count, and of slot i its name, the moments, [0] first, [1] second, borrowed, and the
 * masters: as many as the value has elements. Written, they also make the value. */
int pn_adamw_slots(const pn_adamw *o);
int64_t *pn_adamw_steps(pn_adamw *o);
const char *pn_adamw_name(const pn_adamw *o, int i);
pn_tensor *pn_adamw_value(pn_adamw *o, int i);
pn_tensor *pn_adamw_moment(pn_adamw *o, int i, int which);
pn_status pn_adamw_read_master(const pn_adamw *o, int i, float *masters);
pn_status pn_adamw_write_master(pn_adamw *o, int i, const float *masters);

/* Bytes that an optimizer of n values takes beside them: moments, and what masters of values of that type have beyond
 * them. */
double pn_adamw_bytes(double n, pn_dtype type);

#endif
