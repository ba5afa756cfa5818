/* y = s x + a, one factor s for all channels of a head: Mamba-2's step size on its input and its skip D
 * (blocks.md 6.2). x, y: [N, C]; s: [N, H], or [H] for all tokens alike, H a divisor of C, head h at channels h*C/H ..;
 * a: as x, or NULL (nothing is added). */
#ifndef PN_KERNELS_HEAD_SCALE_H
#define PN_KERNELS_HEAD_SCALE_H

#include "op.h"

static inline pn_status pn_head_scale(pn_tape *t, pn_tensor *x, pn_tensor *s, pn_tensor *a, pn_tensor **y) {
    pn_tensor *in[] = { x, s, a };
    PN_TRY(pn_tape_call(t, &pn_op_head_scale, NULL, 0, in, 3, y, 1));
    return PN_OK;
}

#endif
