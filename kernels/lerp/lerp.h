/* y = a + w (b - a), element by element: RWKV-7's value residual (blocks.md 9.3, step 4). a, b, w, y: same shape, any
 * rank. */
#ifndef PN_KERNELS_LERP_H
#define PN_KERNELS_LERP_H

#include "op.h"

static inline pn_status pn_lerp(pn_tape *t, pn_tensor *a, pn_tensor *b, pn_tensor *w, pn_tensor **y) {
    pn_tensor *in[] = { a, b, w };
    PN_TRY(pn_tape_call(t, &pn_op_lerp, NULL, 0, in, 3, y, 1));
    return PN_OK;
}

#endif
