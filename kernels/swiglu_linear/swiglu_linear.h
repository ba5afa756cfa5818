/* y = (silu(gate) * up) W^T, silu(x) = x sig(x): the second half of the MLP (blocks.md 2.1). gate, up: [N, I], w:
 * [M, I] (a checkpoint's layout), y: [N, M].
 *
 * h = silu(gate) * up is as large as gate: backward makes it again from gate and up, which it reads for their gradients
 * anyway, so it is never kept. */
#ifndef PN_KERNELS_SWIGLU_LINEAR_H
#define PN_KERNELS_SWIGLU_LINEAR_H

#include "op.h"

static inline pn_status pn_swiglu_linear(pn_tape *t, pn_tensor *gate, pn_tensor *up, pn_tensor *w, pn_tensor **y) {
    pn_tensor *in[] = { gate, up, w };
    PN_TRY(pn_tape_call(t, &pn_op_swiglu_linear, NULL, 0, in, 3, y, 1));
    return PN_OK;
}

#endif
