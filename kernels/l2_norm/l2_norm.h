/* Per head: y = s / sqrt(sum(s^2) + eps) with s = x, or s = silu(x) when `silu` (queries and keys of the delta rules,
 * blocks.md 8.2; eps is added to the sum, 1.4). x, y: [N, H*d], head h at channels h*d .. h*d+d-1. */
#ifndef PN_KERNELS_L2_NORM_H
#define PN_KERNELS_L2_NORM_H

#include "op.h"

typedef struct pn_l2_norm_attr {
    int64_t head_dim;
    double eps;
    bool silu;
} pn_l2_norm_attr;

static inline pn_status pn_l2_norm(pn_tape *t, pn_tensor *x, int64_t head_dim, bool silu, pn_tensor **y) {
    pn_l2_norm_attr attr = { .head_dim = head_dim, .eps = 1e-6, .silu = silu };
    PN_TRY(pn_tape_call(t, &pn_op_l2_norm, &attr, sizeof attr, &x, 1, y, 1));
    return PN_OK;
}

#endif
