/* Distillation from a teacher of which the k most likely words of each token are known (linear_topk): KL(teacher ||
 * student) over k + 1 outcomes, the words that are listed and one for all others, without holding the student's logits
 * (cpu/logits.h).
 *
 *     q_n = softmax(h W^T / tau),  S_n = ids[n, :],  p_nj = exp(log_p[n, j])
 *     tail of the teacher: p_n,tail = max(0, 1 - sum_j p_nj), and exactly 0 where k = V: there are no others
 *     tail of the student: q_n,tail = sum of q_nv over v not in S_n, summed over just these: never a difference
 *     kl_n = sum_j p_nj log(p_nj / q_n,ids[n,j]) + p_n,tail log(p_n,tail / q_n,tail)             0 log 0 = 0
 *     loss = tau^2 sum_n w_n kl_n / sum_n w_n                                  0 when the weights sum to 0
 *
 * With k = V this is linear_kl. Otherwise it is less or equal: words taken together can hide a difference between
 * teacher and student, never make one (the log-sum inequality).
 *
 * h: [N, D], W: [V, D]; ids: [N, k] I32, 1 <= k <= V, ascending in each row (PN_USAGE otherwise); log_p: [N, k], at
 * temperature tau, not above 0; weights: [N], not negative, or NULL (all 1). loss: [1]. kl: [N], at temperature tau and
 * without the factor tau^2: a report, not differentiated, as is what backward needs: the listed words' logits [N, k],
 * and of each row [N, 4] the log-sum-exps of all words and of the tail (of all where k = V), p_tail, and the sum of all
 * p, which is 1 but for rounding. The teacher has no gradient; that of the student is derived in linear_kl_topk_ref.c.
 */
#ifndef PN_KERNELS_LINEAR_KL_TOPK_H
#define PN_KERNELS_LINEAR_KL_TOPK_H

#include "op.h"

typedef struct pn_linear_kl_topk_attr {
    double temperature; /* tau > 0 */
} pn_linear_kl_topk_attr;

/* The columns of its last output. */
enum { PN_TOPK_LSE, PN_TOPK_LSE_TAIL, PN_TOPK_P_TAIL, PN_TOPK_P_ALL, PN_TOPK_SUMS };

/* kl may be NULL when the caller does not want it. */
static inline pn_status pn_linear_kl_topk(pn_tape *t, pn_tensor *h, pn_tensor *W, pn_tensor *ids, pn_tensor *log_p,
                                          pn_tensor *weights, double temperature, pn_tensor **loss, pn_tensor **kl) {
    pn_linear_kl_topk_attr attr = { .temperature = temperature };
    pn_tensor *in[] = { h, W, ids, log_p, weights }, *out[4];
    PN_TRY(pn_tape_call(t, &pn_op_linear_kl_topk, &attr, sizeof attr, in, 5, out, 4));
    *loss = out[0];
    if (kl) *kl = out[1];
    return PN_OK;
}

#endif
