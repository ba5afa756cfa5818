/* The k most likely words of each token and their log-probabilities, without keeping the logits: what a teacher's rows
 * are written from (linear_kl_topk).
 *
 *     z = h W^T / tau,   ids_n = the words of the k largest z_nv, of equal ones the lower words, in ascending order
 *     log_p_nj = z_n,ids[n,j] - log sum_v exp(z_nv)        over all V words; never above 0
 *
 * h: [N, D], W: [V, D], 1 <= k <= V; ids: [N, k] I32, log_p: [N, k] wide. Not differentiable. */
#ifndef PN_KERNELS_LINEAR_TOPK_H
#define PN_KERNELS_LINEAR_TOPK_H

#include "op.h"

typedef struct pn_linear_topk_attr {
    int64_t k;
    double temperature; /* tau > 0 */
} pn_linear_topk_attr;

static inline pn_status pn_linear_topk(pn_tape *t, pn_tensor *h, pn_tensor *W, int64_t k, double temperature,
                                       pn_tensor **ids, pn_tensor **log_p) {
    pn_linear_topk_attr attr = { .k = k, .temperature = temperature };
    pn_tensor *in[] = { h, W }, *out[2];
    PN_TRY(pn_tape_call(t, &pn_op_linear_topk, &attr, sizeof attr, in, 2, out, 2));
    *ids = out[0];
    *log_p = out[1];
    return PN_OK;
}

#endif
