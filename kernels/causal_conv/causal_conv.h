/* Static causal depthwise convolution with optional bias, fused silu and state (blocks.md 1.6).
 *
 * x [N, C], w [C, 1, W] (tap W-1 is the current token), bias [C] or NULL, state [documents, C, W] or NULL: the last W
 * inputs of each document before these, oldest first. Outputs: y [N, C]; new_state [documents, C, W], not
 * differentiable. A document without a state starts from zeros; a piece of any length, also shorter than W, continues
 * the document. */
#ifndef PN_KERNELS_CAUSAL_CONV_H
#define PN_KERNELS_CAUSAL_CONV_H

#include "op.h"

typedef struct pn_causal_conv_attr {
    pn_docs docs;
    int width; /* W >= 1 */
    bool silu; /* y = silu(convolution), else the convolution itself */
} pn_causal_conv_attr;

/* bias, state and new_state may be NULL. */
static inline pn_status pn_causal_conv(pn_tape *t, pn_tensor *x, pn_tensor *w, pn_tensor *bias, pn_tensor *state,
                                       const pn_causal_conv_attr *attr, pn_tensor **y, pn_tensor **new_state) {
    pn_tensor *in[] = { x, w, bias, state }, *out[2];
    PN_TRY(pn_tape_call(t, &pn_op_causal_conv, attr, sizeof *attr, in, 4, out, 2));
    *y = out[0];
    if (new_state) *new_state = out[1];
    return PN_OK;
}

#endif
