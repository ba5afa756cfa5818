/* deltanet: DeltaNet (arXiv:2102.11174, 2406.06484; blocks.md 7): the delta rule without decay.
 *
 *     q, k = l2norm(silu(conv(W x)))    v = silu(conv(W_v x))    then delta_rule.h with g = 0
 *
 * Decode state: S, after the last W raw inputs of the three convolutions if they are on. */
#include "block.h"
#include "delta_rule.h"
#include "qkv.h"

#include <stddef.h>

#include "gated_delta/gated_delta.h"
#include "l2_norm/l2_norm.h"
#include "silu/silu.h"

typedef struct options {
    int64_t num_heads, conv_size, qk_activation, qk_norm;
    double expand_k, expand_v, norm_eps;
    bool use_beta, use_gate, use_short_conv, allow_neg_eigval, qkv_bias, rope;
} options;

enum { SILU, IDENTITY };
static const char *const activations[] = { [SILU] = "silu", [IDENTITY] = "identity", NULL };
/* The core needs keys of unit length (blocks.md 8.4). */
static const char *const norms[] = { "l2", NULL };

static const pn_option table[] = {
    PN_OPT_INT(options, num_heads, 0, 0, 1024, "heads H; 0: as many as the model's attention has"),
    PN_OPT_FLOAT(options, expand_k, 1.0, 0.001, 64, "width of all keys over hidden size; num_heads must divide it"),
    PN_OPT_FLOAT(options, expand_v, 1.0, 0.001, 64, "width of all values over hidden size; num_heads must divide it"),
    PN_OPT_BOOL(options, use_beta, true, "step size sig(W_b x), else 1"),
    PN_OPT_BOOL(options, allow_neg_eigval, false, "step size twice that"),
    PN_OPT_BOOL(options, use_gate, false, "gate the output with silu(W_g x)"),
    PN_OPT_BOOL(options, use_short_conv, true, "causal convolutions on q, k and v"),
    PN_OPT_INT(options, conv_size, 4, 1, 16, "their taps"),
    PN_OPT_ENUM(options, qk_activation, "silu", activations, "activation of q and k; v always has silu"),
    PN_OPT_ENUM(options, qk_norm, "l2", norms, "normalisation of q and k, after it and per head"),
    PN_OPT_FLOAT(options, norm_eps, 1e-5, 1e-12, 1, "epsilon of the output norm"),
    PN_OPT_EXTENSION(options, qkv_bias,
                     "q, k and v have biases, as the attention of some models; only postnas reads it"),
    PN_OPT_EXTENSION(options, rope, "rotary positions on q and k, as the model's attention has; only postnas reads it"),
    PN_OPT_END,
};

typedef struct deltanet {
    pn_delta_shape shape;
    pn_qkv qkv;
    pn_delta_rule rule;
} deltanet;

static pn_status shape_of(const options *o, const pn_dims *dims, pn_delta_shape *out) {
    *out = (pn_delta_shape){ .heads = o->num_heads,
                             .v_heads = o->num_heads,
                             .use_beta = o->use_beta,
                             .use_gate = o->use_gate,
                             .negative_eigenvalues = o->allow_neg_eigval,
                             .norm_eps = o->norm_eps };
    PN_TRY(pn_head_width("deltanet", "expand_k", dims->hidden, o->expand_k, o->num_heads, &out->dk));
    PN_TRY(pn_head_width("deltanet", "expand_v", dims->hidden, o->expand_v, o->num_heads, &out->dv));
    PN_CHECK(out->dk <= PN_GATED_DELTA_MAX_DK, PN_USAGE,
             "deltanet: expand_k %.10g makes keys of %lld channels per head; at most %d are possible: choose a smaller "
             "expand_k or a larger num_heads",
             o->expand_k, (long long)out->dk, PN_GATED_DELTA_MAX_DK);
    PN_TRY(pn_extension_rope_check("deltanet", o->rope, out->dk));
    return PN_OK;
}

static pn_status resolve(void *o_, const pn_dims *dims) {
    options *o = o_;
    pn_delta_shape shape;
    if (!o->num_heads) o->num_heads = dims->heads;
    PN_TRY(shape_of(o, dims, &shape));
    return PN_OK;
}

static pn_status build(pn_block *b, pn_params *params) {
    deltanet *a = b->data;
    const options *o = (const options *)b->spec.options;
    PN_TRY(shape_of(o, &b->dims, &a->shape));
    a->qkv = pn_delta_qkv(&a->shape, o->use_short_conv ? o->conv_size : 0);
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
    const deltanet *a = b->data;
    const options *o = (const options *)b->spec.options;
    const bool silu = o->qk_activation == SILU;
    pn_tensor *in[3];
    for (int i = 0; i < 3; i++) {
        PN_TRY(pn_tape_branch(t));
        PN_TRY(pn_qkv_apply(&a->qkv, i, i == PN_V || silu, t, x, docs, state, &in[i]));
        if (i != PN_V) {
            PN_TRY(pn_l2_norm(t, in[i], a->shape.dk, silu && !o->use_short_conv, &in[i]));
            PN_TRY(pn_extension_rope(b, o->rope, a->shape.heads, a->shape.dk, t, docs, &in[i]));
        } else if (!o->use_short_conv) {
            PN_TRY(pn_silu(t, in[i], &in[i]));
        }
    }
    const int s = pn_qkv_state_index(&a->qkv);
    PN_TRY(pn_delta_mix(&a->rule, &a->shape, t, x, in[PN_Q], in[PN_K], in[PN_V], docs, state, s, y));
    return PN_OK;
}

static void attention_map(const pn_block *b, pn_attention_map *map) {
    const deltanet *a = b->data;
    pn_qkv_map(&a->qkv, a->shape.heads, a->shape.heads, a->shape.v_heads, map);
    pn_delta_map(&a->rule, &a->shape, map);
}

static pn_status state_create(const pn_block *b, pn_state *s) {
    const deltanet *a = b->data;
    PN_TRY(pn_qkv_state(&a->qkv, s));
    return PN_OK;
}

static double cache_bytes(const pn_block *b, int64_t context, size_t activation_bytes) {
    (void)context;
    const deltanet *a = b->data;
    return pn_qkv_state_bytes(&a->qkv, activation_bytes);
}

const pn_block_type pn_block_deltanet = {
    .name = "deltanet",
    .hf_name = "deltanet",
    .summary = "DeltaNet: delta rule without decay, short convolutions on q, k and v",
    .role = PN_MIXER,
    .attention_map = attention_map,
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(deltanet),
    .resolve = resolve,
    .build = build,
    .forward = forward,
    .state_create = state_create,
    .cache_bytes = cache_bytes,
};
