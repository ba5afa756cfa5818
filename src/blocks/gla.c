/* gla: gated linear attention (arXiv:2312.06635; blocks.md 5).
 *
 *     q, k, v = W x        with use_short_conv silu(conv(W x))
 *     g = max(logsigmoid(W_1 (W_0 x) + b_1) / gate_logit_normalizer, clamp_min)      one per key channel
 *     o = gated linear attention(q, k, v, g), scale dk^-1/2
 *     y = W_o concat_h( rms(o_h; w, eps) * silu(z_h) ),     z = W_g x
 *
 * With fewer key/value heads, k, v and g are shared by neighbouring heads. Decode state: S, after the last W raw inputs
 * of the three convolutions if they are on. */
#include "block.h"

#include <math.h>
#include <stddef.h>

#include "causal_conv/causal_conv.h"
#include "gated_linear/gated_linear.h"
#include "gated_rms_norm/gated_rms_norm.h"
#include "linear/linear.h"
#include "log_sigmoid/log_sigmoid.h"

typedef struct options {
    int64_t num_heads, num_kv_heads, gate_low_rank_dim, conv_size;
    double expand_k, expand_v, gate_logit_normalizer, clamp_min, norm_eps;
    bool use_short_conv, fuse_norm;
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
    PN_OPT_END,
};

enum { Q, K, V };

typedef struct gla {
    int64_t heads, kv_heads, dk, dv;
    pn_tensor *w[3], *conv[3];   /* q, k, v: [channels, D]; [channels, 1, W] or NULL */
    pn_tensor *w0, *w1, *b1;     /* decay: [rank, D], [Hkv dk, rank], [Hkv dk] */
    pn_tensor *wg, *g_norm, *wo; /* [H dv, D], [dv], [D, H dv] */
} gla;

/* The width of one head: hidden * expand over heads, both divisions whole (within relative 1e-5, as blocks.md 10.2). */
static pn_status head_width(const char *name, int64_t hidden, double expand, int64_t heads, int64_t *out) {
    double exact = (double)hidden * expand, nearest = nearbyint(exact);
    PN_CHECK(
        nearest >= 1 && fabs(exact - nearest) <= 1e-5 * exact && (int64_t)nearest % heads == 0, PN_USAGE,
        "gla: hidden size %lld times %s %.10g is %.10g, which %lld heads do not share evenly; choose another %s or "
        "num_heads",
        (long long)hidden, name, expand, exact, (long long)heads, name);
    *out = (int64_t)nearest / heads;
    return PN_OK;
}

static pn_status resolve(void *o_, const pn_dims *dims) {
    options *o = o_;
    int64_t width;
    if (!o->num_heads) o->num_heads = dims->heads;
    if (!o->num_kv_heads) o->num_kv_heads = o->num_heads;
    PN_CHECK(o->num_heads % o->num_kv_heads == 0, PN_USAGE,
             "gla: num_heads %lld is not a multiple of num_kv_heads %lld", (long long)o->num_heads,
             (long long)o->num_kv_heads);
    PN_TRY(head_width("expand_k", dims->hidden, o->expand_k, o->num_heads, &width));
    PN_TRY(head_width("expand_v", dims->hidden, o->expand_v, o->num_heads, &width));
    return PN_OK;
}

static pn_status build(pn_block *b, pn_params *params) {
    gla *a = b->data;
    const options *o = (const options *)b->spec.options;
    const int64_t D = b->dims.hidden, W = o->conv_size, R = o->gate_low_rank_dim;
    a->heads = o->num_heads;
    a->kv_heads = o->num_kv_heads;
    PN_TRY(head_width("expand_k", D, o->expand_k, a->heads, &a->dk));
    PN_TRY(head_width("expand_v", D, o->expand_v, a->heads, &a->dv));
    const int64_t keys = a->kv_heads * a->dk, values = a->kv_heads * a->dv, all = a->heads * a->dv;
    const int64_t channels[] = { a->heads * a->dk, keys, values };
    const pn_init normal = { PN_INIT_NORMAL, 0.02, 0 }, ones = { PN_INIT_ONES, 0, 0 }, zeros = { PN_INIT_ZEROS, 0, 0 };
    const double bound = 1 / sqrt((double)W);
    const pn_init taps = { PN_INIT_UNIFORM, -bound, bound };
    const bool conv = o->use_short_conv;
    const struct {
        pn_param_spec spec;
        pn_tensor **out;
        bool present;
    } rows[] = {
        { { "q_proj.weight", 2, { channels[Q], D }, normal, true, false }, &a->w[Q], true },
        { { "k_proj.weight", 2, { channels[K], D }, normal, true, false }, &a->w[K], true },
        { { "v_proj.weight", 2, { channels[V], D }, normal, true, false }, &a->w[V], true },
        { { "q_conv1d.weight", 3, { channels[Q], 1, W }, taps, true, false }, &a->conv[Q], conv },
        { { "k_conv1d.weight", 3, { channels[K], 1, W }, taps, true, false }, &a->conv[K], conv },
        { { "v_conv1d.weight", 3, { channels[V], 1, W }, taps, true, false }, &a->conv[V], conv },
        { { "gk_proj.0.weight", 2, { R, D }, normal, true, false }, &a->w0, true },
        { { "gk_proj.1.weight", 2, { keys, R }, normal, true, false }, &a->w1, true },
        { { "gk_proj.1.bias", 1, { keys }, zeros, false, true }, &a->b1, true },
        { { "g_proj.weight", 2, { all, D }, normal, true, false }, &a->wg, true },
        { { o->fuse_norm ? "g_norm_swish_gate.weight" : "g_norm.weight", 1, { a->dv }, ones, false, true },
          &a->g_norm,
          true },
        { { "o_proj.weight", 2, { D, all }, normal, true, false }, &a->wo, true },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].present) PN_TRY(pn_block_weight(b, params, &rows[i].spec, rows[i].out));
    return PN_OK;
}

static pn_status projections(const gla *a, const options *o, pn_tape *t, pn_tensor *x, const pn_docs *docs,
                             pn_state *state, pn_tensor *out[3]) {
    const pn_causal_conv_attr attr = { .docs = { .n = docs->n, .offset = docs->offset },
                                       .width = (int)o->conv_size,
                                       .silu = true };
    for (int i = 0; i < 3; i++) {
        pn_tensor *window;
        PN_TRY(pn_linear(t, x, a->w[i], NULL, &out[i]));
        if (!a->conv[i]) continue;
        PN_TRY(pn_causal_conv(t, out[i], a->conv[i], NULL, state ? state->tensor[i] : NULL, &attr, &out[i], &window));
        if (state) PN_TRY(pn_state_replace(state, i, window));
    }
    return PN_OK;
}

static pn_status forward(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                         pn_tensor **y) {
    (void)carry;
    const gla *a = b->data;
    const options *o = (const options *)b->spec.options;
    pn_tensor *in[3], *g, *z, *mixed, *final_state;
    PN_TRY(projections(a, o, t, x, docs, state, in));
    PN_TRY(pn_linear(t, x, a->w0, NULL, &g));
    PN_TRY(pn_linear(t, g, a->w1, a->b1, &g));
    PN_TRY(pn_log_sigmoid(t, g, 1 / o->gate_logit_normalizer, o->clamp_min, &g));
    const pn_gated_linear_attr attr = { .docs = { .n = docs->n, .offset = docs->offset },
                                        .heads = (int)a->heads,
                                        .q_heads = (int)a->heads,
                                        .k_heads = (int)a->kv_heads,
                                        .v_heads = (int)a->kv_heads,
                                        .g_heads = (int)a->kv_heads,
                                        .dk = (int)a->dk,
                                        .dv = (int)a->dv,
                                        .vector_gate = true,
                                        .scale = 1 / sqrt((double)a->dk) };
    const int s = o->use_short_conv ? 3 : 0; /* S comes after the convolutions' windows */
    PN_TRY(pn_gated_linear(t, &attr, in[Q], in[K], in[V], g, state ? state->tensor[s] : NULL, &mixed, &final_state));
    if (state) PN_TRY(pn_state_replace(state, s, final_state));
    PN_TRY(pn_linear(t, x, a->wg, NULL, &z));
    PN_TRY(pn_gated_rms_norm(t, mixed, z, a->g_norm, a->dv, o->norm_eps, &mixed));
    PN_TRY(pn_linear(t, mixed, a->wo, NULL, y));
    return PN_OK;
}

static pn_status state_create(const pn_block *b, pn_state *s) {
    const gla *a = b->data;
    const options *o = (const options *)b->spec.options;
    if (o->use_short_conv) {
        PN_TRY(pn_state_add(s, "q", 3, (int64_t[]){ s->n, a->heads * a->dk, o->conv_size }));
        PN_TRY(pn_state_add(s, "k", 3, (int64_t[]){ s->n, a->kv_heads * a->dk, o->conv_size }));
        PN_TRY(pn_state_add(s, "v", 3, (int64_t[]){ s->n, a->kv_heads * a->dv, o->conv_size }));
    }
    PN_TRY(pn_state_add(s, "S", 4, (int64_t[]){ s->n, a->heads, a->dk, a->dv }));
    return PN_OK;
}

static double cache_bytes(const pn_block *b, int64_t context, size_t activation_bytes) {
    (void)context;
    const gla *a = b->data;
    const options *o = (const options *)b->spec.options;
    double channels = (double)(a->heads * a->dk + a->kv_heads * (a->dk + a->dv));
    double windows = o->use_short_conv ? channels * (double)o->conv_size : 0;
    return 4.0 * (double)(a->heads * a->dk * a->dv) + windows * (double)activation_bytes;
}

const pn_block_type pn_block_gla = {
    .name = "gla",
    .hf_name = "gla",
    .summary = "gated linear attention: a decay for every key channel, no convolution by default",
    .role = PN_MIXER,
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(gla),
    .resolve = resolve,
    .build = build,
    .forward = forward,
    .state_create = state_create,
    .cache_bytes = cache_bytes,
};
