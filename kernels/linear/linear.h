/* y = x W^T (+ b). x: [N, in], w: [out, in] (a checkpoint's layout), b: [out] or NULL, y: [N, out]. */
#ifndef PN_KERNELS_LINEAR_H
#define PN_KERNELS_LINEAR_H

#include "op.h"

static inline pn_status pn_linear(pn_tape *t, pn_tensor *x, pn_tensor *w, pn_tensor *b, pn_tensor **y) {
    pn_tensor *in[] = { x, w, b };
    PN_TRY(pn_tape_call(t, &pn_op_linear, NULL, 0, in, 3, y, 1));
    return PN_OK;
}

#endif
