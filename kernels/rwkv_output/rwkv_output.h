/* What RWKV-7 does with its normalised core output before the last projection: the bonus for the current token and the
 * output gate (blocks.md 9.3, steps 9 and 10). Per head:
 *
 *     y = (o + c v) * gate,     c = sum_i r_i k_i r_k_i
 *
 * o, r, k, v, gate, y: [N, H*d], head h at channels h*d ..; r_k: [H, d]. */
#ifndef PN_KERNELS_RWKV_OUTPUT_H
#define PN_KERNELS_RWKV_OUTPUT_H

#include "op.h"

typedef struct pn_rwkv_output_in {
    pn_tensor *o, *r, *k, *v, *gate, *r_k;
} pn_rwkv_output_in;

static inline pn_status pn_rwkv_output(pn_tape *t, const pn_rwkv_output_in *x, pn_tensor **y) {
    pn_tensor *in[] = { x->o, x->r, x->k, x->v, x->gate, x->r_k };
    PN_TRY(pn_tape_call(t, &pn_op_rwkv_output, NULL, 0, in, 6, y, 1));
    return PN_OK;
}

#endif
