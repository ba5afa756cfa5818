/* retnet: multi-scale retention (arXiv:2307.08621; blocks.md 4): linear attention with a constant decay for each head.
 *
 *     q, k = rope(W x)     v = W_v x        with use_short_conv silu(conv(W x)), before the rotation
 *     g_h = log(1 - 2^(-5-h))               head 0 forgets fastest
 *
 * then linear_rule.h. With fewer key/value heads, k and v are shared by neighbouring heads. Decode state: S, after the
 * last W raw inputs of the three convolutions if they are on; positions are the tokens that a sequence has seen. */
#include "block.h"
#include "fixed_gates.h"
#include "linear_rule.h"
#include "qkv.h"

#include <math.h>

#include "rope/rope.h"

typedef struct options {
    int64_t num_heads, num_kv_heads, conv_size;
    double expand_k, expand_v, norm_eps;
    bool use_short_conv, fuse_norm, qkv_bias;
} options;

enum { MAX_DK = 256 }; /* upstream's bound */

static const pn_option table[] = {
    PN_OPT_INT(options, num_heads, 0, 0, 1024, "heads H; 0: as many as the model's attention has"),
    PN_OPT_INT(options, num_kv_heads, 0, 0, 1024, "heads of k and v, a divisor of num_heads; 0: num_heads"),
    PN_OPT_FLOAT(options, expand_k, 1.0, 0.001, 64, "width of all keys over hidden size; num_heads must divide it"),
    PN_OPT_FLOAT(options, expand_v, 2.0, 0.001, 64, "width of all values over hidden size; num_heads must divide it"),
    PN_OPT_BOOL(options, use_short_conv, false, "causal convolutions and silu on q, k and v"),
    PN_OPT_INT(options, conv_size, 4, 1, 16, "their taps"),
    PN_OPT_FLOAT(options, norm_eps, 1e-5, 1e-12, 1, "epsilon of the output norm"),
    PN_OPT_BOOL(options, fuse_norm, true, "the output norm is named g_norm_swish_gate in files, else g_norm"),
    PN_OPT_EXTENSION(options, qkv_bias,
                     "q, k and v have biases, as the attention of some models; only postnas reads it"),
    PN_OPT_END,
};

typedef struct retnet {
    pn_linear_shape shape;
    pn_qkv qkv;
    pn_linear_rule rule;
} retnet;

static pn_status shape_of(const options *o, const pn_dims *dims, pn_linear_shape *out) {
    PN_TRY(pn_linear_shape_of("retnet", dims->hidden, o->num_heads, o->num_kv_heads, o->expand_k, o->expand_v, out));
    PN_CHECK(out->dk <= MAX_DK && out->dk % 2 == 0, PN_USAGE,
             "retnet: expand_k %.10g makes keys of %lld channels per head, which must be even and at most %d: choose "
             "another expand_k or num_heads",
             o->expand_k, (long long)out->dk, MAX_DK);
    out->norm_eps = o->norm_eps;
    return PN_OK;
}

static pn_status resolve(void *o_, const pn_dims *dims) {
    options *o = o_;
    pn_linear_shape shape;
    if (!o->num_heads) o->num_heads = dims->heads;
    PN_TRY(shape_of(o, dims, &shape));
    o->num_kv_heads = shape.kv_heads;
    return PN_OK;
}

static pn_status build(pn_block *b, pn_params *params) {
    retnet *a = b->data;
    const options *o = (const options *)b->spec.options;
    PN_TRY(shape_of(o, &b->dims, &a->shape));
    a->qkv = pn_linear_qkv(&a->shape, o->use_short_conv ? o->conv_size : 0);
    a->qkv.with_bias = o->qkv_bias;
    for (int i = 0; i < 3; i++) {
        PN_TRY(pn_qkv_projection(b, params, &a->qkv, i));
        PN_TRY(pn_qkv_convolution(b, params, &a->qkv, i));
    }
    PN_TRY(pn_linear_rule_build(b, params, &a->shape, o->fuse_norm, &a->rule));
    return PN_OK;
}

static double log_decay(int64_t head) {
    return log1p(-exp2(-5 - (double)head));
}

static pn_status forward(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                         pn_tensor **y) {
    (void)carry;
    const retnet *a = b->data;
    const double theta = 1e4;
    const int heads[] = { (int)a->shape.heads, (int)a->shape.kv_heads };
    pn_tensor *in[3], *g;
    for (int i = 0; i < 3; i++) {
        PN_TRY(pn_tape_branch(t));
        PN_TRY(pn_qkv_apply(&a->qkv, i, true, t, x, docs, state, &in[i]));
        if (i != PN_V) PN_TRY(pn_rope(t, in[i], &(pn_rope_attr){ *docs, heads[i], (int)a->shape.dk, theta }, &in[i]));
    }
    PN_TRY(pn_tape_branch(t));
    PN_TRY(pn_fixed_gates(t, x->shape[0], a->shape.heads, log_decay, &g));
    const int s = pn_qkv_state_index(&a->qkv);
    PN_TRY(pn_linear_rule_mix(&a->rule, &a->shape, t, x, in[PN_Q], in[PN_K], in[PN_V], g, false, docs, state, s, y));
    return PN_OK;
}

static void attention_map(const pn_block *b, pn_attention_map *map) {
    const retnet *a = b->data;
    pn_qkv_map(&a->qkv, a->shape.heads, a->shape.kv_heads, a->shape.kv_heads, map);
    pn_linear_rule_map(&a->rule, &a->shape, map);
}

static pn_status state_create(const pn_block *b, pn_state *s) {
    const retnet *a = b->data;
    PN_TRY(pn_qkv_state(&a->qkv, s));
    return PN_OK;
}

static double cache_bytes(const pn_block *b, int64_t context, size_t activation_bytes) {
    (void)context;
    const retnet *a = b->data;
    return pn_qkv_state_bytes(&a->qkv, activation_bytes);
}

const pn_block_type pn_block_retnet = {
    .name = "retnet",
    .hf_name = "retnet",
    .summary = "RetNet: linear attention with a constant decay for each head, rotary positions",
    .role = PN_MIXER,
    .attention_map = attention_map,
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(retnet),
    .resolve = resolve,
    .build = build,
    .forward = forward,
    .state_create = state_create,
    .cache_bytes = cache_bytes,
};
