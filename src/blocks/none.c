/* none: the layer's token mixer removed. y = 0, no weights, no state. */
#include "block.h"

static pn_status forward(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                         pn_tensor **y) {
    (void)b, (void)docs, (void)state, (void)carry;
    PN_TRY(pn_tape_new(t, x->dtype, x->rank, x->shape, y));
    PN_TRY(pn_tensor_fill_zero(*y));
    return PN_OK;
}

const pn_block_type pn_block_none = {
    .name = "none",
    .hf_name = "none",
    .summary = "no token mixer: the layer keeps its MLP only",
    .role = PN_MIXER,
    .forward = forward,
};
