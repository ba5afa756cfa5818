/* ids_n = argmax_v <h_n, W_v>: greedy decoding and token accuracy, without holding the logits. The first maximum wins.
 * h: [N, D], W: [V, D] with V >= 1, ids: [N] I32. Not differentiable. */
#ifndef PN_KERNELS_LINEAR_ARGMAX_H
#define PN_KERNELS_LINEAR_ARGMAX_H

#include "op.h"

static inline pn_status pn_linear_argmax(pn_tape *t, pn_tensor *h, pn_tensor *W, pn_tensor **ids) {
    pn_tensor *in[] = { h, W };
    PN_TRY(pn_tape_call(t, &pn_op_linear_argmax, NULL, 0, in, 2, ids, 1));
    return PN_OK;
}

#endif
