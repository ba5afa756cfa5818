/* Group norm (blocks.md 1.4): every group of channels of a token less its mean, over sqrt(its biased variance + eps),
 * then y = w * that + b per channel. RWKV-7's output norm has one group per head (9.3, step 9). x, y: [N, C]; w, b:
 * [C]; G groups of C/G neighbouring channels. Second and third output: the means and 1 / sqrt(variance + eps), [N, G],
 * kept for backward. */
#ifndef PN_KERNELS_GROUP_NORM_H
#define PN_KERNELS_GROUP_NORM_H

#include "op.h"

typedef struct pn_group_norm_attr {
    double eps;
    int64_t groups; /* G >= 1, a divisor of C */
} pn_group_norm_attr;

static inline pn_status pn_group_norm(pn_tape *t, pn_tensor *x, pn_tensor *w, pn_tensor *b, int64_t groups, double eps,
                                      pn_tensor **y) {
    pn_group_norm_attr attr = { .eps = eps, .groups = groups };
    pn_tensor *in[] = { x, w, b };
    PN_TRY(pn_tape_call(t, &pn_op_group_norm, &attr, sizeof attr, in, 3, y, 1));
    return PN_OK;
}

#endif
