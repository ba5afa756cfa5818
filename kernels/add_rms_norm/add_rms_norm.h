/* A branch joins the residual stream, which is normalised for the next: s = x + r, rounded to the compute type, and
 * y_ni = w_i s_ni q_n, q_n = (mean_i s_ni^2 + eps)^-1/2 (blocks.md 1.4), of s as it was rounded. So s and y are what
 * add and rms_norm give, in one pass over memory. x, r, s, y: [N, D], w: [D]. Third output q: [N, 1], kept for
 * backward. */
#ifndef PN_KERNELS_ADD_RMS_NORM_H
#define PN_KERNELS_ADD_RMS_NORM_H

#include "op.h"

typedef struct pn_add_rms_norm_attr {
    double eps;
} pn_add_rms_norm_attr;

static inline pn_status pn_add_rms_norm(pn_tape *t, pn_tensor *x, pn_tensor *r, pn_tensor *w, double eps, pn_tensor **s,
                                        pn_tensor **y) {
    pn_add_rms_norm_attr attr = { .eps = eps };
    pn_tensor *in[] = { x, r, w }, *out[3];
    PN_TRY(pn_tape_call(t, &pn_op_add_rms_norm, &attr, sizeof attr, in, 3, out, 3));
    *s = out[0];
    *y = out[1];
    return PN_OK;
}

#endif
