/* swa: sliding-window attention, every token sees the last window_size tokens, itself included (softmax_attention.h;
 * blocks.md 3.2). Its decode state never holds more than them. */
#include "swa.h"

#include "softmax_attention.h"

typedef struct options {
    int64_t window_size; /* 0: auto */
} options;

static const pn_option table[] = {
    PN_OPT_INT_OR(options, window_size, "auto", "auto", 1, INT32_MAX,
                  "tokens that a token sees, itself included; auto, in a search: as many as have a bf16 cache of the "
                  "size of the linear block's state"),
    PN_OPT_END,
};

pn_status pn_swa_auto_window(const pn_dims *dims, double state_bytes, size_t activation_bytes, int64_t *window) {
    double keys = state_bytes / pn_softmax_attention_cache_bytes(dims, 1, activation_bytes);
    PN_CHECK(keys >= 1 && keys <= INT32_MAX, PN_USAGE,
             "swa: window_size is auto, but a state of %.0f bytes is that of %.2f keys; write a number", state_bytes,
             keys);
    *window = (int64_t)keys;
    return PN_OK;
}

pn_status pn_swa_settle(pn_block_spec *spec, const pn_block_spec *blocks, int n_blocks, const pn_dims *dims) {
    options *o = (options *)spec->options;
    if (spec->type != &pn_block_swa || o->window_size) return PN_OK;
    for (int i = 0; i < n_blocks; i++) {
        const pn_block_type *type = blocks[i].type;
        double recurrent;
        if (type->attention_weights || !type->state_create) continue;
        PN_TRY(pn_block_spec_cache_bytes(&blocks[i], dims, 0, 0, &recurrent));
        PN_TRY(pn_swa_auto_window(dims, recurrent, pn_dtype_bytes(PN_BF16), &o->window_size));
        return PN_OK;
    }
    PN_FAIL(PN_USAGE, "swa: window_size is auto, but there is no linear block whose state it could match; write a "
                      "number");
}

static pn_status resolve(void *o, const pn_dims *dims) {
    (void)dims;
    PN_CHECK(((const options *)o)->window_size, PN_USAGE,
             "swa: window_size is auto, which means something only beside a linear block; write a number");
    return PN_OK;
}

static int64_t window_of(const pn_block *b) {
    return ((const options *)b->spec.options)->window_size;
}

static pn_status forward(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                         pn_tensor **y) {
    (void)carry;
    return pn_softmax_attention_mix(b, window_of(b), t, x, docs, state, y);
}

static pn_status state_create(const pn_block *b, pn_state *s) {
    return pn_softmax_attention_state(b, window_of(b), s);
}

static double cache_bytes(const pn_block *b, int64_t context, size_t activation_bytes) {
    int64_t window = window_of(b);
    return pn_softmax_attention_cache_bytes(&b->dims, context < window ? context : window, activation_bytes);
}

const pn_block_type pn_block_swa = {
    .name = "swa",
    .hf_name = "swa",
    .summary = "softmax attention to the last window_size tokens, weights as attention",
    .role = PN_MIXER,
    .attention_weights = true,
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(pn_softmax_attention),
    .resolve = resolve,
    .build = pn_softmax_attention_build,
    .forward = forward,
    .state_create = state_create,
    .cache_bytes = cache_bytes,
};
