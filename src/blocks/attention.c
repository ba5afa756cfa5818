/* attention: full softmax attention, every token sees all before it and itself (softmax_attention.h). Its decode state
 * grows with the context. */
#include "softmax_attention.h"

static pn_status forward(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                         pn_tensor **y) {
    (void)carry;
    return pn_softmax_attention_mix(b, 0, t, x, docs, state, y);
}

static pn_status state_create(const pn_block *b, pn_state *s) {
    return pn_softmax_attention_state(b, 0, s);
}

static double cache_bytes(const pn_block *b, int64_t context, size_t activation_bytes) {
    return pn_softmax_attention_cache_bytes(&b->dims, context, activation_bytes);
}

const pn_block_type pn_block_attention = {
    .name = "attention",
    .hf_name = "attn",
    .summary = "full softmax attention, rotary positions, grouped keys and values",
    .role = PN_MIXER,
    .attention_weights = true,
    .data_bytes = sizeof(pn_softmax_attention),
    .build = pn_softmax_attention_build,
    .forward = forward,
    .state_create = state_create,
    .cache_bytes = cache_bytes,
};
