/* Distillation: KL(teacher || student) of two output projections, without holding either's logits (cpu/logits.h).
 *
 *     p_n = softmax(h_t W_t^T / tau),  q_n = softmax(h_s W^T / tau),  kl_n = sum_v p_nv log(p_nv / q_nv)
 *     loss = tau^2 sum_n w_n kl_n / sum_n w_n                              0 when the weights sum to 0
 *
 * h_s: [N, D], W: [V, D]; h_t: [N, D_t], W_t: [V, D_t] (may be W itself); weights: [N], not negative, or NULL (all 1).
 * loss: [1]. kl: [N], at temperature tau and without the factor tau^2: a report, not differentiated, as are the two
 * log-sum-exps [N, 2] kept for backward. first: [N, 2] I32, the words of the largest logits of student and teacher, the
 * lowest of equal ones. The teacher side has no gradient. With z = h_s W^T:
 *     dz = tau (q - p) w_n / sum(w) dloss,   dh_s = dz W,   dW = dz^T h_s. */
#ifndef PN_KERNELS_LINEAR_KL_H
#define PN_KERNELS_LINEAR_KL_H

#include "op.h"

typedef struct pn_linear_kl_attr {
    double temperature; /* tau > 0 */
} pn_linear_kl_attr;

/* kl and first may be NULL when the caller does not want them. */
static inline pn_status pn_linear_kl(pn_tape *t, pn_tensor *h_s, pn_tensor *W, pn_tensor *h_t, pn_tensor *W_t,
                                     pn_tensor *weights, double temperature, pn_tensor **loss, pn_tensor **kl,
                                     pn_tensor **first) {
    pn_linear_kl_attr attr = { .temperature = temperature };
    pn_tensor *in[] = { h_s, W, h_t, W_t, weights }, *out[4];
    PN_TRY(pn_tape_call(t, &pn_op_linear_kl, &attr, sizeof attr, in, 5, out, 4));
    *loss = out[0];
    if (kl) *kl = out[1];
    if (first) *first = out[3];
    return PN_OK;
}

#endif
