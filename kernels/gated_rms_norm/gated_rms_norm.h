/* Gated norm A ("norm, then gate", blocks.md 1.4), per head: y = w * o * r * silu(z), r = (mean(o^2) + eps)^-1/2.
 * o, y: [N, H*d], head h at channels h*d .. h*d+d-1; z: as o, or NULL (no gate); w: [d], shared by all heads. */
#ifndef PN_KERNELS_GATED_RMS_NORM_H
#define PN_KERNELS_GATED_RMS_NORM_H

#include "op.h"

typedef struct pn_gated_rms_norm_attr {
    int64_t head_dim;
    double eps;
} pn_gated_rms_norm_attr;

static inline pn_status pn_gated_rms_norm(pn_tape *t, pn_tensor *o, pn_tensor *z, pn_tensor *w, int64_t head_dim,
                                          double eps, pn_tensor **y) {
    pn_gated_rms_norm_attr attr = { .head_dim = head_dim, .eps = eps };
    pn_tensor *in[] = { o, z, w };
    PN_TRY(pn_tape_call(t, &pn_op_gated_rms_norm, &attr, sizeof attr, in, 3, y, 1));
    return PN_OK;
}

#endif
