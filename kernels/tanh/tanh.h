/* y = tanh(x): inside the decay of RWKV-7 (blocks.md 9.1). x, y: same shape, any rank. */
#ifndef PN_KERNELS_TANH_H
#define PN_KERNELS_TANH_H

#include "op.h"

static inline pn_status pn_tanh(pn_tape *t, pn_tensor *x, pn_tensor **y) {
    PN_TRY(pn_tape_call(t, &pn_op_tanh, NULL, 0, &x, 1, y, 1));
    return PN_OK;
}

#endif
