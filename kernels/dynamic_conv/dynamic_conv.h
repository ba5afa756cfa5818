/* JetBlock's dynamic causal convolution, fused with the second matrix of its kernel generator (blocks.md 10.3, 10.4).
 *
 * c [N, V] raw values, h [N, R] = silu(W_1 x), w2 [V*W, R], b2 [V*W], state [documents, V, W] or NULL: the last W rows
 * of c of each document before these, oldest first. Taps K_t = w2 h_t + b2, read as K_t[ch][w] = flat[ch*W + w], weight
 * the window of token t, tap W-1 being the token itself. Outputs: v = silu(sum_w K_t[ch][w] c_{t-(W-1)+w}[ch]) [N, V];
 * new_state [documents, V, W], not differentiable. Taps exist for a run of tokens at a time and backward makes them
 * again: they would be 4 V numbers per token. No term crosses a document border, in either direction. */
#ifndef PN_KERNELS_DYNAMIC_CONV_H
#define PN_KERNELS_DYNAMIC_CONV_H

#include "op.h"

typedef struct pn_dynamic_conv_attr {
    pn_docs docs;
    int width; /* W >= 1 */
} pn_dynamic_conv_attr;

/* state and new_state may be NULL. */
static inline pn_status pn_dynamic_conv(pn_tape *t, pn_tensor *c, pn_tensor *h, pn_tensor *w2, pn_tensor *b2,
                                        pn_tensor *state, const pn_dynamic_conv_attr *attr, pn_tensor **v,
                                        pn_tensor **new_state) {
    pn_tensor *in[] = { c, h, w2, b2, state }, *out[2];
    PN_TRY(pn_tape_call(t, &pn_op_dynamic_conv, attr, sizeof *attr, in, 5, out, 2));
    *v = out[0];
    if (new_state) *new_state = out[1];
    return PN_OK;
}

#endif
