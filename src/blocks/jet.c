/* jet: JetBlock (arXiv:2508.15884; blocks.md 10): a gated delta rule with a dynamic convolution on v alone.
 *
 *     q, k = l2norm(silu(W x))     c = W_v x     K_t = W_2 silu(W_1 x_t) + b_2     v = silu(sum_w K_t[w] c_{t-(W-1)+w})
 *
 * then delta_rule.h. Decode state: the last W raw values c, and S. */
#include "block.h"
#include "delta_rule.h"
#include "qkv.h"

#include "dynamic_conv/dynamic_conv.h"
#include "l2_norm/l2_norm.h"
#include "linear/linear.h"
#include "silu/silu.h"

typedef struct options {
    int64_t num_heads, head_dim, conv_size, dconv_generator_reduction;
    double expand_v, norm_eps;
    bool qkv_bias, rope;
} options;

static const pn_option table[] = {
    PN_OPT_INT(options, num_heads, 0, 0, 1024, "heads H; 0: as many as the model's attention has"),
    PN_OPT_INT(options, head_dim, 0, 0, 256, "key width dk of a head; 0: the attention's head_dim"),
    PN_OPT_FLOAT(options, expand_v, 2.0, 0.01, 16, "value width over key width; dk * expand_v must be whole"),
    PN_OPT_INT(options, conv_size, 4, 1, 16, "taps of the dynamic convolution on v"),
    PN_OPT_INT(options, dconv_generator_reduction, 8, 1, 1024, "the kernel generator's width is H dv over this"),
    PN_OPT_FLOAT(options, norm_eps, 1e-5, 1e-12, 1, "epsilon of the output norm"),
    PN_OPT_EXTENSION(options, qkv_bias,
                     "q, k and v have biases, as the attention of some models; only postnas reads it"),
    PN_OPT_EXTENSION(options, rope, "rotary positions on q and k, as the model's attention has; only postnas reads it"),
    PN_OPT_END,
};

enum { STATE_CONV, STATE_S };

typedef struct jet {
    pn_delta_shape shape;
    pn_qkv qkv;              /* without convolutions: [H dk, D], [H dk, D], [V, D], V = H dv */
    pn_tensor *w1, *w2, *b2; /* kernel generator: [R, D], [V W, R], [V W] */
    pn_delta_rule rule;
} jet;

static pn_status resolve(void *o_, const pn_dims *dims) {
    options *o = o_;
    if (!o->num_heads) o->num_heads = dims->heads;
    if (!o->head_dim) o->head_dim = dims->head_dim;
    int64_t dv;
    PN_TRY(pn_delta_value_dim("jet", o->head_dim, o->expand_v, &dv));
    PN_TRY(pn_extension_rope_check("jet", o->rope, o->head_dim));
    PN_CHECK(o->num_heads * dv >= o->dconv_generator_reduction, PN_USAGE,
             "jet: dconv_generator_reduction %lld leaves no generator channels of %lld values",
             (long long)o->dconv_generator_reduction, (long long)(o->num_heads * dv));
    return PN_OK;
}

static pn_status build(pn_block *b, pn_params *params) {
    jet *a = b->data;
    const options *o = (const options *)b->spec.options;
    a->shape = (pn_delta_shape){ .heads = o->num_heads,
                                 .v_heads = o->num_heads,
                                 .dk = o->head_dim,
                                 .use_decay = true,
                                 .use_beta = true,
                                 .use_gate = true,
                                 .norm_eps = o->norm_eps };
    PN_TRY(pn_delta_value_dim("jet", o->head_dim, o->expand_v, &a->shape.dv));
    const int64_t D = b->dims.hidden, W = o->conv_size, keys = o->num_heads * o->head_dim;
    const int64_t V = o->num_heads * a->shape.dv, R = V / o->dconv_generator_reduction;
    const pn_init normal = { PN_INIT_NORMAL, 0.02, 0 }, zeros = { PN_INIT_ZEROS, 0, 0 };
    /* w1 random, w2 zero: the static identity kernel at the start, and gradient reaches w2 (both zero is a dead saddle
     * point, blocks.md 10.2). */
    const pn_init identity = { PN_INIT_IDENTITY_TAPS, (double)W, 0 };
    const struct {
        pn_param_spec spec;
        pn_tensor **out;
    } rows[] = {
        { { "dynamic_conv1d.kernel_generator.w1.weight", 2, { R, D }, normal, true, false }, &a->w1 },
        { { "dynamic_conv1d.kernel_generator.w2.weight", 2, { V * W, R }, zeros, true, false }, &a->w2 },
        { { "dynamic_conv1d.kernel_generator.w2.bias", 1, { V * W }, identity, false, true }, &a->b2 },
    };
    a->qkv = (pn_qkv){ .channels = { keys, keys, V }, .with_bias = o->qkv_bias };
    for (int i = 0; i < 3; i++) PN_TRY(pn_qkv_projection(b, params, &a->qkv, i));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        PN_TRY(pn_block_weight(b, params, &rows[i].spec, rows[i].out));
    PN_TRY(pn_delta_build(b, params, &a->shape, &a->rule));
    return PN_OK;
}

static pn_status forward(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                         pn_tensor **y) {
    (void)carry;
    const jet *a = b->data;
    const options *o = (const options *)b->spec.options;
    pn_tensor *in[3], *h, *v, *window;
    for (int i = 0; i < 3; i++) {
        PN_TRY(pn_tape_branch(t));
        PN_TRY(pn_qkv_apply(&a->qkv, i, false, t, x, docs, NULL, &in[i]));
        if (i == PN_V) continue;
        PN_TRY(pn_l2_norm(t, in[i], a->shape.dk, true, &in[i]));
        PN_TRY(pn_extension_rope(b, o->rope, a->shape.heads, a->shape.dk, t, docs, &in[i]));
    }
    PN_TRY(pn_tape_branch(t));
    PN_TRY(pn_linear(t, x, a->w1, NULL, &h));
    PN_TRY(pn_silu(t, h, &h));
    PN_TRY(pn_tape_join(t));
    PN_TRY(pn_tape_branch(t));
    const pn_dynamic_conv_attr attr = { .docs = pn_docs_without_past(docs), .width = (int)o->conv_size };
    PN_TRY(pn_dynamic_conv(t, in[PN_V], h, a->w2, a->b2, state ? state->tensor[STATE_CONV] : NULL, &attr, &v, &window));
    if (state) PN_TRY(pn_state_replace(state, STATE_CONV, window));
    PN_TRY(pn_delta_mix(&a->rule, &a->shape, t, x, in[PN_Q], in[PN_K], v, docs, state, STATE_S, y));
    return PN_OK;
}

static void attention_map(const pn_block *b, pn_attention_map *map) {
    const jet *a = b->data;
    pn_qkv_map(&a->qkv, a->shape.heads, a->shape.heads, a->shape.heads, map);
    pn_delta_map(&a->rule, &a->shape, map);
}

static pn_status state_create(const pn_block *b, pn_state *s) {
    const jet *a = b->data;
    const int64_t W = ((const options *)b->spec.options)->conv_size;
    PN_TRY(pn_state_add(s, "conv", 3, (int64_t[]){ s->n, a->shape.heads * a->shape.dv, W }));
    PN_TRY(pn_state_add_wide(s, "S", 4, (int64_t[]){ s->n, a->shape.heads, a->shape.dk, a->shape.dv }));
    return PN_OK;
}

static double cache_bytes(const pn_block *b, int64_t context, size_t activation_bytes) {
    (void)context;
    const jet *a = b->data;
    double values = (double)(a->shape.heads * a->shape.dv), W = (double)((const options *)b->spec.options)->conv_size;
    return 4.0 * values * (double)a->shape.dk + values * W * (double)activation_bytes;
}

const pn_block_type pn_block_jet = {
    .name = "jet",
    .hf_name = "jet",
    .summary = "JetBlock: gated delta rule with a dynamic convolution on v",
    .role = PN_MIXER,
    .attention_map = attention_map,
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(jet),
    .resolve = resolve,
    .build = build,
    .forward = forward,
    .state_create = state_create,
    .cache_bytes = cache_bytes,
};
