/* y_ni = w_i x_ni r_n, r_n = (mean_i x_ni^2 + eps)^-1/2 (blocks.md 1.4). x, y: [N, D], w: [D].
 * With M groups the mean is over each M-th of a row's channels by itself (Mamba-2, blocks.md 6.2).
 * Second output r: [N, M], kept for backward. */
#ifndef PN_KERNELS_RMS_NORM_H
#define PN_KERNELS_RMS_NORM_H

#include "op.h"

typedef struct pn_rms_norm_attr {
    double eps;
    int64_t groups; /* M >= 1, a divisor of D */
} pn_rms_norm_attr;

static inline pn_status pn_group_rms_norm(pn_tape *t, pn_tensor *x, pn_tensor *w, int64_t groups, double eps,
                                          pn_tensor **y) {
    pn_rms_norm_attr attr = { .eps = eps, .groups = groups };
    pn_tensor *in[] = { x, w }, *out[2];
    PN_TRY(pn_tape_call(t, &pn_op_rms_norm, &attr, sizeof attr, in, 2, out, 2));
    *y = out[0];
    return PN_OK;
}

static inline pn_status pn_rms_norm(pn_tape *t, pn_tensor *x, pn_tensor *w, double eps, pn_tensor **y) {
    return pn_group_rms_norm(t, x, w, 1, eps, y);
}

#endif
