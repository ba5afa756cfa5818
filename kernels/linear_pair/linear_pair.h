/* y0 = x W0^T and y1 = x W1^T: two small projections of one wide input, as the gates per head of the delta rules
 * (blocks.md 8.1), which a kernel can make while it reads x once. x: [N, in], w0: [out0, in], w1: [out1, in],
 * y0: [N, out0], y1: [N, out1]. */
#ifndef PN_KERNELS_LINEAR_PAIR_H
#define PN_KERNELS_LINEAR_PAIR_H

#include "op.h"

static inline pn_status pn_linear_pair(pn_tape *t, pn_tensor *x, pn_tensor *w0, pn_tensor *w1, pn_tensor **y0,
                                       pn_tensor **y1) {
    pn_tensor *in[] = { x, w0, w1 }, *y[2];
    PN_TRY(pn_tape_call(t, &pn_op_linear_pair, NULL, 0, in, 3, y, 2));
    *y0 = y[0];
    *y1 = y[1];
    return PN_OK;
}

#endif
