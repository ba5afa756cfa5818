/* Token shift: y_t = x_t + w (x_{t-1} - x_t), a weight per channel (RWKV-7, blocks.md 9.3, step 1).
 *
 * x, y [N, D]; w [1, 1, D] as files have it; previous [documents, D]: the last input of each document before these,
 * NULL: zeros, as at the start of a document. Second output: last [documents, D], the `previous` of the next piece
 * (that of a document without tokens stays), not differentiable. */
#ifndef PN_KERNELS_TOKEN_SHIFT_H
#define PN_KERNELS_TOKEN_SHIFT_H

#include "op.h"

typedef struct pn_token_shift_attr {
    pn_docs docs;
} pn_token_shift_attr;

/* previous and last may be NULL. */
static inline pn_status pn_token_shift(pn_tape *t, pn_tensor *x, pn_tensor *w, pn_tensor *previous, const pn_docs *docs,
                                       pn_tensor **y, pn_tensor **last) {
    const pn_token_shift_attr attr = { .docs = pn_docs_without_past(docs) };
    pn_tensor *in[] = { x, w, previous }, *out[2];
    PN_TRY(pn_tape_call(t, &pn_op_token_shift, &attr, sizeof attr, in, 3, out, 2));
    *y = out[0];
    if (last) *last = out[1];
    return PN_OK;
}

#endif
