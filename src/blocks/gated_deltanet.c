/* gated_deltanet: Gated DeltaNet (arXiv:2412.06464; blocks.md 8).
 *
 *     q, k = l2norm(silu(conv(W x)))    v = silu(conv(W_v x))    then delta_rule.h
 *
 * Decode state: the last W raw inputs of the three convolutions, and S. */
#include "block.h"
#include "delta_rule.h"
#include "qkv.h"

#include <stddef.h>

#include "l2_norm/l2_norm.h"

typedef struct options {
    int64_t num_heads, num_v_heads, head_dim, conv_size;
    double expand_v, norm_eps;
    bool use_gate, allow_neg_eigval, qkv_bias, rope;
} options;

static const pn_option table[] = {
    PN_OPT_INT(options, num_heads, 0, 0, 1024, "query/key heads H; 0: as many as the model's attention has"),
    PN_OPT_INT(options, num_v_heads, 0, 0, 1024, "value heads, a multiple of num_heads; 0: num_heads"),
    PN_OPT_INT(options, head_dim, 0, 0, 256, "key width dk of a head; 0: the attention's head_dim"),
    PN_OPT_FLOAT(options, expand_v, 2.0, 0.01, 16, "value width over key width; dk * expand_v must be whole"),
    PN_OPT_INT(options, conv_size, 4, 1, 16, "taps of the causal convolutions on q, k and v"),
    PN_OPT_BOOL(options, use_gate, true, "gate the output with silu(W_g x)"),
    PN_OPT_BOOL(options, allow_neg_eigval, false, "beta in (0, 2) instead of (0, 1)"),
    PN_OPT_FLOAT(options, norm_eps, 1e-5, 1e-12, 1, "epsilon of the output norm"),
    PN_OPT_EXTENSION(options, qkv_bias,
                     "q, k and v have biases, as the attention of some models; only postnas reads it"),
    PN_OPT_EXTENSION(options, rope, "rotary positions on q and k, as the model's attention has; only postnas reads it"),
    PN_OPT_END,
};

typedef struct gated_deltanet {
    pn_delta_shape shape;
    pn_qkv qkv;
    pn_delta_rule rule;
} gated_deltanet;

static pn_status resolve(void *o_, const pn_dims *dims) {
    options *o = o_;
    if (!o->num_heads) o->num_heads = dims->heads;
    if (!o->num_v_heads) o->num_v_heads = o->num_heads;
    if (!o->head_dim) o->head_dim = dims->head_dim;
    PN_CHECK(o->num_v_heads % o->num_heads == 0, PN_USAGE,
             "gated_deltanet: num_v_heads %lld is not a multiple of num_heads %lld", (long long)o->num_v_heads,
             (long long)o->num_heads);
    int64_t dv;
    PN_TRY(pn_delta_value_dim("gated_deltanet", o->head_dim, o->expand_v, &dv));
    PN_TRY(pn_extension_rope_check("gated_deltanet", o->rope, o->head_dim));
    return PN_OK;
}

static pn_status build(pn_block *b, pn_params *params) {
    gated_deltanet *a = b->data;
    const options *o = (const options *)b->spec.options;
    a->shape = (pn_delta_shape){ .heads = o->num_heads,
                                 .v_heads = o->num_v_heads,
                                 .dk = o->head_dim,
                                 .use_decay = true,
                                 .use_beta = true,
                                 .use_gate = o->use_gate,
                                 .negative_eigenvalues = o->allow_neg_eigval,
                                 .norm_eps = o->norm_eps };
    PN_TRY(pn_delta_value_dim("gated_deltanet", o->head_dim, o->expand_v, &a->shape.dv));
    a->qkv = pn_delta_qkv(&a->shape, o->conv_size);
    a->qkv.with_bias = o->qkv_bias;
    for (int i = 0; i < 3; i++) {
        PN_TRY(pn_qkv_projection(b, params, &a->qkv, i));
        PN_TRY(pn_qkv_convolution(b, params, &a->qkv, i));
    }
    PN_TRY(pn_delta_build(b, params, &a->shape, &a->rule));
    return PN_OK;
}

static pn_status forward(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                         pn_tensor **y) {
    (void)carry;
    const gated_deltanet *a = b->data;
    const options *o = (const options *)b->spec.options;
    pn_tensor *in[3];
    for (int i = 0; i < 3; i++) {
        PN_TRY(pn_tape_branch(t));
        PN_TRY(pn_qkv_apply(&a->qkv, i, true, t, x, docs, state, &in[i]));
        if (i == PN_V) continue;
        PN_TRY(pn_l2_norm(t, in[i], a->shape.dk, false, &in[i]));
        PN_TRY(pn_extension_rope(b, o->rope, a->shape.heads, a->shape.dk, t, docs, &in[i]));
    }
    const int s = pn_qkv_state_index(&a->qkv);
    PN_TRY(pn_delta_mix(&a->rule, &a->shape, t, x, in[PN_Q], in[PN_K], in[PN_V], docs, state, s, y));
    return PN_OK;
}

static void attention_map(const pn_block *b, pn_attention_map *map) {
    const gated_deltanet *a = b->data;
    pn_qkv_map(&a->qkv, a->shape.heads, a->shape.heads, a->shape.v_heads, map);
    pn_delta_map(&a->rule, &a->shape, map);
}

static pn_status state_create(const pn_block *b, pn_state *s) {
    const gated_deltanet *a = b->data;
    PN_TRY(pn_qkv_state(&a->qkv, s));
    return PN_OK;
}

static double cache_bytes(const pn_block *b, int64_t context, size_t activation_bytes) {
    (void)context;
    const gated_deltanet *a = b->data;
    return pn_qkv_state_bytes(&a->qkv, activation_bytes);
}

const pn_block_type pn_block_gated_deltanet = {
    .name = "gated_deltanet",
    .hf_name = "gdn",
    .summary = "Gated DeltaNet: gated delta rule with short convolutions on q, k and v",
    .role = PN_MIXER,
    .attention_map = attention_map,
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(gated_deltanet),
    .resolve = resolve,
    .build = build,
    .forward = forward,
    .state_create = state_create,
    .cache_bytes = cache_bytes,
};
