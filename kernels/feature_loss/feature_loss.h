/* The error of y as a share of its target's variance: 0 is a perfect copy, 1 is no better than the target's mean.
 *
 *     loss = sum_nc (y_nc - t_nc)^2 / S,   S = sum_nc (t_nc - mean_n t_nc)^2
 *
 * The layers of a network differ by orders of magnitude in scale; this loss does not. Where the target does not vary
 * (one row, or S below 1e-10 of sum t^2, which is rounding) S is the number of elements: the mean squared error.
 * y, target: [N, D]; loss: [1], 0 for no rows. Second output: S [1], kept for backward. Gradient to y only. */
#ifndef PN_KERNELS_FEATURE_LOSS_H
#define PN_KERNELS_FEATURE_LOSS_H

#include "op.h"

#define PN_FEATURE_LOSS_MIN_VARIANCE 1e-10

static inline pn_status pn_feature_loss(pn_tape *t, pn_tensor *y, pn_tensor *target, pn_tensor **loss) {
    pn_tensor *in[] = { y, target }, *out[2];
    PN_TRY(pn_tape_call(t, &pn_op_feature_loss, NULL, 0, in, 2, out, 2));
    *loss = out[0];
    return PN_OK;
}

#endif
