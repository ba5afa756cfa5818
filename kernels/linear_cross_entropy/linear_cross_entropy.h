/* Cross-entropy of softmax(h W^T) against target ids, without holding the logits (cpu/logits.h).
 *
 *     nll_n = log sum_v exp(z_nv) - z_n,target_n,   z = h W^T         (0 where the target is PN_IGNORE)
 *     loss  = sum_n w_n nll_n / sum_n w_n           over rows that are not ignored; 0 when nothing is left
 *
 * h: [N, D]; W: [V, D] (the embedding when tied); targets: [N] I32, PN_IGNORE or 0 .. V-1 (PN_USAGE otherwise);
 * weights: [N], not negative, or NULL (all 1). loss: [1]. nll: [N], a report: not differentiated, as is the log-sum-exp
 * [N] kept for backward (0 where ignored). Gradients go to h and W:
 *     dz = (softmax(z) - onehot(target)) w_n / sum(w) dloss,   dh = dz W,   dW = dz^T h. */
#ifndef PN_KERNELS_LINEAR_CROSS_ENTROPY_H
#define PN_KERNELS_LINEAR_CROSS_ENTROPY_H

#include "op.h"

enum { PN_IGNORE = -1 };

/* nll may be NULL when the caller does not want it. */
static inline pn_status pn_linear_cross_entropy(pn_tape *t, pn_tensor *h, pn_tensor *W, pn_tensor *targets,
                                                pn_tensor *weights, pn_tensor **loss, pn_tensor **nll) {
    pn_tensor *in[] = { h, W, targets, weights }, *out[3];
    PN_TRY(pn_tape_call(t, &pn_op_linear_cross_entropy, NULL, 0, in, 4, out, 3));
    *loss = out[0];
    if (nll) *nll = out[1];
    return PN_OK;
}

#endif
