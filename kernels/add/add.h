/* out = a + b: the residual connection. a, b, out: same shape. */
#ifndef PN_KERNELS_ADD_H
#define PN_KERNELS_ADD_H

#include "op.h"

static inline pn_status pn_add(pn_tape *t, pn_tensor *a, pn_tensor *b, pn_tensor **out) {
    pn_tensor *in[] = { a, b };
    PN_TRY(pn_tape_call(t, &pn_op_add, NULL, 0, in, 2, out, 1));
    return PN_OK;
}

#endif
