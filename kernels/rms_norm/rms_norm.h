/* y_ni = w_i x_ni r_n, r_n = (mean_i x_ni^2 + eps)^-1/2 (blocks.md 1.4). x, y: [N, D], w: [D].
 * Second output r: [N], kept for backward. */
#ifndef PN_KERNELS_RMS_NORM_H
#define PN_KERNELS_RMS_NORM_H

#include "op.h"

typedef struct pn_rms_norm_attr {
    double eps;
} pn_rms_norm_attr;

static inline pn_status pn_rms_norm(pn_tape *t, pn_tensor *x, pn_tensor *w, double eps, pn_tensor **y) {
    pn_rms_norm_attr attr = { .eps = eps };
    pn_tensor *in[] = { x, w }, *out[2];
    PN_TRY(pn_tape_call(t, &pn_op_rms_norm, &attr, sizeof attr, in, 2, out, 2));
    *y = out[0];
    return PN_OK;
}

#endif
