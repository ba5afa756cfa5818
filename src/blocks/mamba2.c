/* mamba2: the Mamba-2 mixer (arXiv:2405.21060; blocks.md 6).
 *
 *     [z, xBC, dt] = W_in x        [x, B, C] = silu(conv(xBC) + bias)      x: H heads of p; B, C: M groups of N
 *     dt = clamp(softplus(dt + dt_bias))      g = -e^{A_log} dt            one each per head
 *     o = gated linear attention(q = C, k = B, v = dt x, g), scale 1, + D x
 *     y = W_out rms(o * silu(z); w, eps)      the gate first, then the norm, over the heads of a group together
 *
 * Head h reads group floor(h M / H). Decode state: the last W raw inputs of the convolution, and S. */
#include "attention_map.h"

#include <math.h>
#include <stddef.h>

#include "causal_conv/causal_conv.h"
#include "gated_linear/gated_linear.h"
#include "head_scale/head_scale.h"
#include "linear/linear.h"
#include "rms_norm/rms_norm.h"
#include "split/split.h"
#include "swiglu/swiglu.h"
#include "time_step/time_step.h"

typedef struct options {
    int64_t head_dim, state_size, n_groups, conv_kernel;
    double expand, time_step_limit_min, time_step_limit_max, norm_eps;
    bool use_conv_bias, use_bias, D_has_hdim;
} options;

static const pn_option table[] = {
    PN_OPT_FLOAT(options, expand, 2, 0.001, 64, "inner width over hidden size; head_dim must divide the inner width"),
    PN_OPT_INT(options, head_dim, 64, 1, 4096, "value width of a head"),
    PN_OPT_INT(options, state_size, 128, 1, 4096, "key width N of a head's state"),
    PN_OPT_INT(options, n_groups, 1, 1, 1024, "groups of heads that share B and C, a divisor of the heads"),
    PN_OPT_INT(options, conv_kernel, 4, 1, 16, "taps of the causal convolution on x, B and C"),
    PN_OPT_BOOL(options, use_conv_bias, true, "the convolution has a bias"),
    PN_OPT_BOOL(options, use_bias, false, "in_proj and out_proj have biases"),
    PN_OPT_FLOAT(options, time_step_limit_min, 0, 0, 1e30, "smallest step size dt of a token"),
    PN_OPT_FLOAT(options, time_step_limit_max, 1e30, 0, 1e30, "largest step size; as high as 1e30: no limit"),
    PN_OPT_BOOL(options, D_has_hdim, false, "the skip D has a factor for every channel instead of every head"),
    PN_OPT_FLOAT(options, norm_eps, 1e-5, 1e-12, 1, "epsilon of the output norm"),
    PN_OPT_END,
};

enum { CONV, S };

typedef struct mamba2 {
    int64_t heads, inner, groups, conv_channels; /* H, I, M, I + 2 M N */
    pn_tensor *w_in, *b_in, *w_out, *b_out;      /* [I + conv_channels + H, D], [D, I]; biases or NULL */
    pn_tensor *conv, *conv_bias;                 /* [conv_channels, 1, W], [conv_channels] or NULL */
    pn_tensor *dt_bias, *a_log, *skip;           /* [H], [H], [H] or [I] */
    pn_tensor *norm;                             /* [I] */
} mamba2;

/* I = hidden * expand, a whole number (within relative 1e-5, as blocks.md 10.2) of heads, and these of groups. */
static pn_status sizes(const options *o, int64_t hidden, mamba2 *a) {
    double exact = (double)hidden * o->expand, nearest = nearbyint(exact);
    PN_CHECK(
        nearest >= 1 && fabs(exact - nearest) <= 1e-5 * exact && (int64_t)nearest % o->head_dim == 0, PN_USAGE,
        "mamba2: hidden size %lld times expand %.10g is %.10g, which is no whole number of heads of head_dim %lld; "
        "choose another expand or head_dim",
        (long long)hidden, o->expand, exact, (long long)o->head_dim);
    a->inner = (int64_t)nearest;
    a->heads = a->inner / o->head_dim;
    a->groups = o->n_groups;
    a->conv_channels = a->inner + 2 * a->groups * o->state_size;
    PN_CHECK(a->heads % a->groups == 0, PN_USAGE,
             "mamba2: %lld heads are no multiple of n_groups %lld; choose another n_groups or head_dim",
             (long long)a->heads, (long long)a->groups);
    return PN_OK;
}

static pn_status resolve(void *o_, const pn_dims *dims) {
    const options *o = o_;
    mamba2 a;
    PN_TRY(sizes(o, dims->hidden, &a));
    PN_CHECK(o->time_step_limit_min <= o->time_step_limit_max, PN_USAGE,
             "mamba2: time_step_limit_min %.10g is above time_step_limit_max %.10g", o->time_step_limit_min,
             o->time_step_limit_max);
    return PN_OK;
}

static pn_status build(pn_block *b, pn_params *params) {
    mamba2 *a = b->data;
    const options *o = (const options *)b->spec.options;
    const int64_t D = b->dims.hidden, W = o->conv_kernel;
    PN_TRY(sizes(o, D, a));
    const int64_t H = a->heads, I = a->inner, cd = a->conv_channels, rows_in = I + cd + H;
    const pn_init normal = { PN_INIT_NORMAL, 0.02, 0 }, ones = { PN_INIT_ONES, 0, 0 }, zeros = { PN_INIT_ZEROS, 0, 0 };
    const pn_init a_log = { PN_INIT_LOG_UNIFORM, 1, 16 }, dt = { PN_INIT_DT_BIAS, 1e-3, 1e-1 };
    const double bound = 1 / sqrt((double)W);
    const pn_init taps = { PN_INIT_UNIFORM, -bound, bound };
    const struct {
        pn_param_spec spec;
        pn_tensor **out;
        bool present;
    } rows[] = {
        { { "in_proj.weight", 2, { rows_in, D }, normal, true, false }, &a->w_in, true },
        { { "in_proj.bias", 1, { rows_in }, zeros, false, false }, &a->b_in, o->use_bias },
        { { "conv1d.weight", 3, { cd, 1, W }, taps, true, false }, &a->conv, true },
        { { "conv1d.bias", 1, { cd }, taps, false, false }, &a->conv_bias, o->use_conv_bias },
        { { "dt_bias", 1, { H }, dt, false, true }, &a->dt_bias, true },
        { { "A_log", 1, { H }, a_log, false, true }, &a->a_log, true },
        { { "D", 1, { o->D_has_hdim ? I : H }, ones, false, true }, &a->skip, true },
        { { "norm.weight", 1, { I }, ones, false, true }, &a->norm, true },
        { { "out_proj.weight", 2, { D, I }, normal, true, false }, &a->w_out, true },
        { { "out_proj.bias", 1, { D }, zeros, false, false }, &a->b_out, o->use_bias },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].present) PN_TRY(pn_block_weight(b, params, &rows[i].spec, rows[i].out));
    return PN_OK;
}

static pn_status forward(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                         pn_tensor **y) {
    (void)carry;
    const mamba2 *a = b->data;
    const options *o = (const options *)b->spec.options;
    const int64_t H = a->heads, I = a->inner, N = o->state_size, MN = a->groups * N;
    enum { Z, XBC, RAW_DT, VALUE = 0, KEY, QUERY };
    pn_tensor *in[3], *xbc[3], *window, *dt, *g, *v, *mixed, *final_state;
    PN_TRY(pn_linear(t, x, a->w_in, a->b_in, &mixed));
    PN_TRY(pn_split(t, mixed, (const int64_t[]){ I, a->conv_channels, H }, 3, in));
    const pn_causal_conv_attr conv = { .docs = pn_docs_without_past(docs), .width = (int)o->conv_kernel, .silu = true };
    PN_TRY(
        pn_causal_conv(t, in[XBC], a->conv, a->conv_bias, state ? state->tensor[CONV] : NULL, &conv, &mixed, &window));
    if (state) PN_TRY(pn_state_replace(state, CONV, window));
    PN_TRY(pn_split(t, mixed, (const int64_t[]){ I, MN, MN }, 3, xbc));
    PN_TRY(pn_time_step(t, in[RAW_DT], a->a_log, a->dt_bias, o->time_step_limit_min, o->time_step_limit_max, &dt, &g));
    PN_TRY(pn_head_scale(t, xbc[VALUE], dt, NULL, &v));
    const pn_gated_linear_attr core = { .docs = pn_docs_without_past(docs),
                                        .heads = (int)H,
                                        .q_heads = (int)a->groups,
                                        .k_heads = (int)a->groups,
                                        .v_heads = (int)H,
                                        .g_heads = (int)H,
                                        .dk = (int)N,
                                        .dv = (int)o->head_dim,
                                        .scale = 1 };
    PN_TRY(
        pn_gated_linear(t, &core, xbc[QUERY], xbc[KEY], v, g, state ? state->tensor[S] : NULL, &mixed, &final_state));
    if (state) PN_TRY(pn_state_replace(state, S, final_state));
    PN_TRY(pn_head_scale(t, xbc[VALUE], a->skip, mixed, &mixed));
    PN_TRY(pn_swiglu(t, in[Z], mixed, &mixed));
    PN_TRY(pn_group_rms_norm(t, mixed, a->norm, a->groups, o->norm_eps, &mixed));
    PN_TRY(pn_linear(t, mixed, a->w_out, a->b_out, y));
    return PN_OK;
}

/* As MambaInLlama: decays, steps, skip and norm start as ever (blocks.md 11.1). */
static void attention_map(const pn_block *b, pn_attention_map *map) {
    const mamba2 *a = b->data;
    const options *o = (const options *)b->spec.options;
    const int64_t I = a->inner, M = a->groups, N = o->state_size;
    map->part[PN_MAP_V] =
        (pn_head_rows){ .w = a->w_in, .bias = a->b_in, .first = I, .heads = a->heads, .width = o->head_dim };
    map->part[PN_MAP_K] = (pn_head_rows){ .w = a->w_in, .bias = a->b_in, .first = 2 * I, .heads = M, .width = N };
    map->part[PN_MAP_Q] = map->part[PN_MAP_K];
    map->part[PN_MAP_Q].first += M * N;
    map->out = a->w_out;
    map->out_heads = a->heads;
    map->conv[0] = a->conv;
    if (a->conv_bias) pn_attention_map_value(map, a->conv_bias, 0);
}

static pn_status state_create(const pn_block *b, pn_state *s) {
    const mamba2 *a = b->data;
    const options *o = (const options *)b->spec.options;
    PN_TRY(pn_state_add(s, "conv", 3, (int64_t[]){ s->n, a->conv_channels, o->conv_kernel }));
    PN_TRY(pn_state_add_wide(s, "S", 4, (int64_t[]){ s->n, a->heads, o->state_size, o->head_dim }));
    return PN_OK;
}

static double cache_bytes(const pn_block *b, int64_t context, size_t activation_bytes) {
    (void)context;
    const mamba2 *a = b->data;
    const options *o = (const options *)b->spec.options;
    double window = (double)(a->conv_channels * o->conv_kernel);
    return 4.0 * (double)(a->inner * o->state_size) + window * (double)activation_bytes;
}

const pn_block_type pn_block_mamba2 = {
    .name = "mamba2",
    .hf_name = "mamba2",
    .summary = "Mamba-2: scalar decay and step size per head, keys and queries shared by groups of heads",
    .role = PN_MIXER,
    .attention_map = attention_map,
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(mamba2),
    .resolve = resolve,
    .build = build,
    .forward = forward,
    .state_create = state_create,
    .cache_bytes = cache_bytes,
};
