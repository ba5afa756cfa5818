/* gla: gated linear attention (arXiv:2312.06635; blocks.md 5).
 *
 *     q, k, v = W x        with use_short_conv silu(conv(W x))
 *     g = max(logsigmoid(W_1 (W_0 x) + b_1) / gate_logit_normalizer, clamp_min)      one per key channel
 *     o = gated linear attention(q, k, v, g), scale dk^-1/2
 *     y = W_o concat_h( rms(o_h; w, eps) * silu(z_h) ),     z = W_g x
 *
 * With fewer key/value heads, k, v and g are shared by neighbouring heads. There is no extension `rope`: channels that
 * decay each at its own rate do not turn in pairs. Decode state: S, after the last W raw inputs
 * of the three convolutions if they are on. */
#include "block.h"
#include "linear_rule.h"
#include "qkv.h"

#include <stddef.h>

#include "linear/linear.h"
#include "log_sigmoid/log_sigmoid.h"

typedef struct options {
    int64_t num_heads, num_kv_heads, gate_low_rank_dim, conv_size;
    double expand_k, expand_v, gate_logit_normalizer, clamp_min, norm_eps;
    bool use_short_conv, fuse_norm, qkv_bias;
} options;

static const pn_option table[] = {
    PN_OPT_INT(options, num_heads, 0, 0, 1024, "heads H; 0: as many as the model's attention has"),
    PN_OPT_INT(options, num_kv_heads, 0, 0, 1024, "heads of k, v and the decay, a divisor of num_heads; 0: num_heads"),
    PN_OPT_FLOAT(options, expand_k, 0.5, 0.001, 64, "width of all keys over hidden size; num_heads must divide it"),
    PN_OPT_FLOAT(options, expand_v, 1.0, 0.001, 64, "width of all values over hidden size; num_heads must divide it"),
    PN_OPT_INT(options, gate_low_rank_dim, 16, 1, 4096, "rank of the decay's projection"),
    PN_OPT_FLOAT(options, gate_logit_normalizer, 16, 1e-3, 1e6, "the log decay is logsigmoid over this"),
    PN_OPT_FLOAT(options, clamp_min, -1e30, -1e30, 0, "smallest log decay of a token; as low as -1e30: no limit"),
    PN_OPT_BOOL(options, use_short_conv, false, "causal convolutions and silu on q, k and v"),
    PN_OPT_INT(options, conv_size, 4, 1, 16, "their taps"),
    PN_OPT_FLOAT(options, norm_eps, 1e-5, 1e-12, 1, "epsilon of the output norm"),
    PN_OPT_BOOL(options, fuse_norm, true, "the output norm is named g_norm_swish_gate in files, else g_norm"),
    PN_OPT_EXTENSION(options, qkv_bias,
                     "q, k and v have biases, as the attention of some models; only postnas reads it"),
    PN_OPT_END,
};

typedef struct gla {
    pn_linear_shape shape;
    pn_qkv qkv;
    pn_tensor *w0, *w1, *b1; /* decay: [rank, D], [Hkv dk, rank], [Hkv dk] */
    pn_linear_rule rule;
} gla;

static pn_status shape_of(const options *o, const pn_dims *dims, pn_linear_shape *out) {
    PN_TRY(pn_linear_shape_of("gla", dims->hidden, o->num_heads, o->num_kv_heads, o->expand_k, o->expand_v, out));
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
    gla *a = b->data;
    const options *o = (const options *)b->spec.options;
    PN_TRY(shape_of(o, &b->dims, &a->shape));
    a->qkv = pn_linear_qkv(&a->shape, o->use_short_conv ? o->conv_size : 0);
    a->qkv.with_bias = o->qkv_bias;
    for (int i = 0; i < 3; i++) PN_TRY(pn_qkv_projection(b, params, &a->qkv, i));
    for (int i = 0; i < 3; i++) PN_TRY(pn_qkv_convolution(b, params, &a->qkv, i));
    const int64_t D = b->dims.hidden, R = o->gate_low_rank_dim, keys = a->shape.kv_heads * a->shape.dk;
    const pn_init normal = { PN_INIT_NORMAL, 0.02, 0 }, zeros = { PN_INIT_ZEROS, 0, 0 };
    const struct {
        pn_param_spec spec;
        pn_tensor **out;
    } rows[] = {
        { { "gk_proj.0.weight", 2, { R, D }, normal, true, false }, &a->w0 },
        { { "gk_proj.1.weight", 2, { keys, R }, normal, true, false }, &a->w1 },
        { { "gk_proj.1.bias", 1, { keys }, zeros, false, true }, &a->b1 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        PN_TRY(pn_block_weight(b, params, &rows[i].spec, rows[i].out));
    PN_TRY(pn_linear_rule_build(b, params, &a->shape, o->fuse_norm, &a->rule));
    return PN_OK;
}

static pn_status forward(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                         pn_tensor **y) {
    (void)carry;
    const gla *a = b->data;
    const options *o = (const options *)b->spec.options;
    pn_tensor *in[3], *g;
    for (int i = 0; i < 3; i++) {
        PN_TRY(pn_tape_branch(t));
        PN_TRY(pn_qkv_apply(&a->qkv, i, true, t, x, docs, state, &in[i]));
    }
    PN_TRY(pn_tape_branch(t));
    PN_TRY(pn_linear(t, x, a->w0, NULL, &g));
    PN_TRY(pn_linear(t, g, a->w1, a->b1, &g));
    PN_TRY(pn_log_sigmoid(t, g, 1 / o->gate_logit_normalizer, o->clamp_min, &g));
    const int s = pn_qkv_state_index(&a->qkv);
    PN_TRY(pn_linear_rule_mix(&a->rule, &a->shape, t, x, in[PN_Q], in[PN_K], in[PN_V], g, true, docs, state, s, y));
    return PN_OK;
}

static void attention_map(const pn_block *b, pn_attention_map *map) {
    const gla *a = b->data;
    pn_qkv_map(&a->qkv, a->shape.heads, a->shape.kv_heads, a->shape.kv_heads, map);
    pn_linear_rule_map(&a->rule, &a->shape, map);
}

static pn_status state_create(const pn_block *b, pn_state *s) {
    const gla *a = b->data;
    PN_TRY(pn_qkv_state(&a->qkv, s));
    return PN_OK;
}

static double cache_bytes(const pn_block *b, int64_t context, size_t activation_bytes) {
    (void)context;
    const gla *a = b->data;
    return pn_qkv_state_bytes(&a->qkv, activation_bytes);
}

const pn_block_type pn_block_gla = {
    .name = "gla",
    .hf_name = "gla",
    .summary = "gated linear attention: a decay for every key channel, no convolution by default",
    .role = PN_MIXER,
    .attention_map = attention_map,
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(gla),
    .resolve = resolve,
    .build = build,
    .forward = forward,
    .state_create = state_create,
    .cache_bytes = cache_bytes,
};
