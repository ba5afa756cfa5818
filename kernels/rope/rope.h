/* Rotary embedding, half rotation over all channels of a head (blocks.md 1.5).
 *
 * x [N, heads * head_dim] -> y, same shape. Channel i of a head is paired with channel i + head_dim/2 and turned by the
 * angle n theta^(-2i/head_dim), n = position of the token in its document (docs.past included). Linear in x: backward
 * turns dy the other way and nothing is saved. */
#ifndef PN_KERNELS_ROPE_H
#define PN_KERNELS_ROPE_H

#include "op.h"

typedef struct pn_rope_attr {
    pn_docs docs;
    int heads, head_dim; /* head_dim is even */
    double theta;        /* > 0; 1e6 in Qwen2.5, 1e4 in RetNet */
} pn_rope_attr;

static inline pn_status pn_rope(pn_tape *t, pn_tensor *x, const pn_rope_attr *attr, pn_tensor **y) {
    pn_tensor *in[] = { x };
    PN_TRY(pn_tape_call(t, &pn_op_rope, attr, sizeof *attr, in, 1, y, 1));
    return PN_OK;
}

#endif
