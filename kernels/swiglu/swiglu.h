/* y = silu(gate) * up, silu(x) = x sig(x): the MLP's activation (blocks.md 2.1). All [N, I]. */
#ifndef PN_KERNELS_SWIGLU_H
#define PN_KERNELS_SWIGLU_H

#include "op.h"

static inline pn_status pn_swiglu(pn_tape *t, pn_tensor *gate, pn_tensor *up, pn_tensor **y) {
    pn_tensor *in[] = { gate, up };
    PN_TRY(pn_tape_call(t, &pn_op_swiglu, NULL, 0, in, 2, y, 1));
    return PN_OK;
}

#endif
