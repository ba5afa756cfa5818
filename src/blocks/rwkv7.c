/* rwkv7: the time mixing of RWKV-7 (arXiv:2503.14456; blocks.md 9).
 *
 *     x^c = x_t + (x_{t-1} - x_t) x_c, c = r, w, k, v, a, g       r, k, v = W_c x^c
 *     g = -e^{-1/2} sig(w_lora(x^w)), one log decay per channel    a = sig(a_lora(x^a))    gate = g_lora(x^g)
 *     v = v + (v_first - v) sig(v_lora(x^v))       with use_v_first, but in the first such layer: there v_first = v
 *     kk = k k_k, of unit length per head      k = k (1 + (a - 1) k_a)
 *     o = groupnorm(dplr(q = r, k, v, a = -kk, b = kk a, g), a group per head) + (sum r k r_k) v
 *     y = W_o (o * gate)
 *
 * A lora is W_2 f(W_0 x) + bias, f: tanh in w, sig in g. Decode state: the last input x, and S. */
#include "attention_map.h"

#include <math.h>
#include <stddef.h>

#include "dplr/dplr.h"
#include "group_norm/group_norm.h"
#include "lerp/lerp.h"
#include "linear/linear.h"
#include "rwkv_keys/rwkv_keys.h"
#include "rwkv_output/rwkv_output.h"
#include "sigmoid/sigmoid.h"
#include "tanh/tanh.h"
#include "token_shift/token_shift.h"

typedef struct options {
    int64_t head_dim, decay_low_rank_dim, gate_low_rank_dim, a_low_rank_dim, v_low_rank_dim;
    double norm_eps;
    bool fuse_norm, use_v_first;
} options;

static const pn_option table[] = {
    PN_OPT_INT(options, head_dim, 0, 0, 1024,
               "width N of a head; 0: 64, or the attention's where 64 does not divide the hidden size"),
    PN_OPT_INT(options, decay_low_rank_dim, 0, 0, 65536, "rank of the decay's projection; 0: from the hidden size"),
    PN_OPT_INT(options, gate_low_rank_dim, 0, 0, 65536, "rank of the output gate's; 0: from the hidden size"),
    PN_OPT_INT(options, a_low_rank_dim, 0, 0, 65536, "rank of the in-context learning rate's; 0: as the decay's"),
    PN_OPT_INT(options, v_low_rank_dim, 0, 0, 65536, "rank of the value residual's; 0: from the hidden size"),
    PN_OPT_FLOAT(options, norm_eps, 1e-5, 1e-12, 1, "epsilon of the output norm, times head_dim"),
    PN_OPT_BOOL(options, fuse_norm, false, "keys are normalised with 1e-6 under the root, as fla's fused kernel does"),
    PN_OPT_BOOL(options, use_v_first, false,
                "later layers mix in the values of the first one: only where layers train together"),
    PN_OPT_END,
};

/* In the order of x_r, x_w, ... */
enum { R, W, K, V, A, G, INPUTS };
/* State tensors. */
enum { STATE_X, STATE_S };

/* up f(down x) + bias; bias NULL: none. */
typedef struct lora {
    pn_tensor *down, *up, *bias; /* [rank, D], [D, rank], [D] */
} lora;

typedef struct rwkv7 {
    pn_tensor *shift[INPUTS];          /* [1, 1, D] */
    pn_tensor *k_k, *k_a, *r_k;        /* [D], [D], [H, N] */
    pn_tensor *w_r, *w_k, *w_v, *w_o;  /* [D, D] */
    lora decay, rate, value, gate;     /* value: NULLs without v_lora */
    pn_tensor *norm_scale, *norm_bias; /* [D] */
} rwkv7;

static int64_t rank_of(double hidden, double factor) {
    double rank = 32 * nearbyint(factor * sqrt(hidden) / 32);
    return rank < 32 ? 32 : (int64_t)rank;
}

static pn_status resolve(void *o_, const pn_dims *dims) {
    options *o = o_;
    if (!o->head_dim) o->head_dim = dims->hidden % 64 == 0 ? 64 : dims->head_dim;
    PN_CHECK(dims->hidden % o->head_dim == 0, PN_USAGE,
             "rwkv7: hidden size %lld is no whole number of heads of head_dim %lld; choose another head_dim",
             (long long)dims->hidden, (long long)o->head_dim);
    const double hidden = (double)dims->hidden, heads_of_64 = (double)o->head_dim / 64;
    if (!o->decay_low_rank_dim) o->decay_low_rank_dim = rank_of(hidden, 2.5 * heads_of_64);
    if (!o->a_low_rank_dim) o->a_low_rank_dim = rank_of(hidden, 2.5 * heads_of_64);
    if (!o->v_low_rank_dim) o->v_low_rank_dim = rank_of(hidden, 1.7 * heads_of_64);
    if (!o->gate_low_rank_dim) o->gate_low_rank_dim = rank_of(hidden, 5);
    return PN_OK;
}

static const char *crosses_layers(const void *o_) {
    const options *o = o_;
    return o->use_v_first ? "use_v_first" : NULL;
}

typedef struct row {
    pn_param_spec spec;
    pn_tensor **out;
} row;

static pn_status declare(pn_block *b, pn_params *params, const row *rows, size_t n) {
    for (size_t i = 0; i < n; i++) PN_TRY(pn_block_weight(b, params, &rows[i].spec, rows[i].out));
    return PN_OK;
}

static pn_status build_shifts(pn_block *b, pn_params *params) {
    rwkv7 *a = b->data;
    static const struct {
        const char *name;
        double exponent;
    } shift[INPUTS] = {
        { "x_r", 0.2 }, { "x_w", 0.9 }, { "x_k", 0.7 }, { "x_v", 0.7 }, { "x_a", 0.9 }, { "x_g", 0.2 }
    };
    const double left = b->dims.place.n_layers ? 1 - (double)b->dims.place.layer / b->dims.place.n_layers : 1;
    for (int i = 0; i < INPUTS; i++) {
        const pn_init init = { PN_INIT_TOKEN_SHIFT, shift[i].exponent * left, 0 };
        const row one = { { shift[i].name, 3, { 1, 1, b->dims.hidden }, init, false, true }, &a->shift[i] };
        PN_TRY(declare(b, params, &one, 1));
    }
    return PN_OK;
}

/* bias: its first values, NULL: it has none. */
static pn_status build_lora(pn_block *b, pn_params *params, const char *name, int64_t rank, const pn_init *bias,
                            lora *w) {
    const int64_t D = b->dims.hidden;
    const double gain = rank > D ? 0.1 * sqrt((double)rank / (double)D) : 0.1;
    const pn_init zeros = { PN_INIT_ZEROS, 0, 0 }, orthogonal = { PN_INIT_ORTHOGONAL, gain, 0 };
    char down[40], up[40], bias_name[40];
    snprintf(down, sizeof down, "%s.lora.0.weight", name);
    snprintf(up, sizeof up, "%s.lora.2.weight", name);
    snprintf(bias_name, sizeof bias_name, "%s.lora.2.bias", name);
    const row rows[] = {
        { { down, 2, { rank, D }, zeros, true, false }, &w->down },
        { { up, 2, { D, rank }, orthogonal, true, false }, &w->up },
        { { bias_name, 1, { D }, bias ? *bias : zeros, false, true }, &w->bias },
    };
    PN_TRY(declare(b, params, rows, bias ? 3 : 2));
    return PN_OK;
}

static pn_status build_loras(pn_block *b, pn_params *params) {
    rwkv7 *a = b->data;
    const options *o = (const options *)b->spec.options;
    const double depth = b->dims.place.n_layers > 1 ? (double)b->dims.place.layer / (b->dims.place.n_layers - 1) : 0;
    const double N = (double)o->head_dim;
    const pn_init decay = { PN_INIT_RWKV_DECAY, 1 + pow(depth, 0.3), N }, rate = { PN_INIT_RWKV_RATE, 0, N };
    const pn_init value = { PN_INIT_LINE, 0.73 + 0.2, 0.73 - 0.2 };
    PN_TRY(build_lora(b, params, "w_lora", o->decay_low_rank_dim, &decay, &a->decay));
    PN_TRY(build_lora(b, params, "a_lora", o->a_low_rank_dim, &rate, &a->rate));
    if (o->use_v_first && b->dims.place.carried)
        PN_TRY(build_lora(b, params, "v_lora", o->v_low_rank_dim, &value, &a->value));
    PN_TRY(build_lora(b, params, "g_lora", o->gate_low_rank_dim, NULL, &a->gate));
    return PN_OK;
}

static pn_status build(pn_block *b, pn_params *params) {
    rwkv7 *a = b->data;
    const options *o = (const options *)b->spec.options;
    const int64_t D = b->dims.hidden, N = o->head_dim;
    const double so_far = b->dims.place.n_layers ? (double)(b->dims.place.layer + 1) / b->dims.place.n_layers : 1;
    const pn_init k_k = { PN_INIT_LINE, 0.71 + 0.05, 0.71 - 0.05 }, k_a = { PN_INIT_CONSTANT, 1.02, 0 };
    const pn_init r_k = { PN_INIT_CONSTANT, -0.04, 0 }, norm = { PN_INIT_CONSTANT, pow(so_far, 0.7), 0 };
    const pn_init whole = { PN_INIT_ORTHOGONAL, 1, 0 }, tenth = { PN_INIT_ORTHOGONAL, 0.1, 0 };
    const pn_init zeros = { PN_INIT_ZEROS, 0, 0 };
    const row rows[] = {
        { { "k_k", 1, { D }, k_k, false, true }, &a->k_k },
        { { "k_a", 1, { D }, k_a, false, true }, &a->k_a },
        { { "r_k", 2, { D / N, N }, r_k, false, true }, &a->r_k },
        { { "r_proj.weight", 2, { D, D }, whole, true, false }, &a->w_r },
        { { "k_proj.weight", 2, { D, D }, tenth, true, false }, &a->w_k },
        { { "v_proj.weight", 2, { D, D }, whole, true, false }, &a->w_v },
        { { "o_proj.weight", 2, { D, D }, zeros, true, false }, &a->w_o },
        { { "g_norm.weight", 1, { D }, norm, false, true }, &a->norm_scale },
        { { "g_norm.bias", 1, { D }, zeros, false, true }, &a->norm_bias },
    };
    PN_TRY(build_shifts(b, params));
    PN_TRY(declare(b, params, rows, sizeof rows / sizeof *rows));
    PN_TRY(build_loras(b, params));
    return PN_OK;
}

typedef enum inner { NOTHING, TANH, SIGMOID } inner;

static pn_status apply(const lora *w, inner f, pn_tape *t, pn_tensor *x, pn_tensor **y) {
    PN_TRY(pn_linear(t, x, w->down, NULL, &x));
    if (f == TANH) PN_TRY(pn_tanh(t, x, &x));
    if (f == SIGMOID) PN_TRY(pn_sigmoid(t, x, 1, &x));
    PN_TRY(pn_linear(t, x, w->up, w->bias, y));
    return PN_OK;
}

static pn_status shifted_inputs(const rwkv7 *a, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state,
                                pn_tensor **in) {
    pn_tensor *last;
    for (int i = 0; i < INPUTS; i++)
        PN_TRY(pn_token_shift(t, x, a->shift[i], state ? state->tensor[STATE_X] : NULL, docs, &in[i], &last));
    if (state) PN_TRY(pn_state_replace(state, STATE_X, last));
    return PN_OK;
}

/* The value residual: *v becomes the first layer's, or is mixed with it (x: the shifted input of v). */
static pn_status residual(const rwkv7 *a, pn_tape *t, pn_tensor *x, pn_carry *carry, pn_tensor **v) {
    pn_tensor *weight;
    if (!carry->v_first) {
        carry->v_first = *v;
        return PN_OK;
    }
    PN_ASSERT(a->value.up); /* dims.place said so */
    PN_TRY(apply(&a->value, NOTHING, t, x, &weight));
    PN_TRY(pn_sigmoid(t, weight, 1, &weight));
    PN_TRY(pn_lerp(t, *v, carry->v_first, weight, v));
    return PN_OK;
}

static pn_status forward(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                         pn_tensor **y) {
    const rwkv7 *a = b->data;
    const options *o = (const options *)b->spec.options;
    const int64_t N = o->head_dim, H = b->dims.hidden / N;
    pn_tensor *in[INPUTS], *r, *k, *v, *decay, *rate, *gate, *mixed, *final_state;
    pn_rwkv_keys_out keys;
    PN_TRY(shifted_inputs(a, t, x, docs, state, in));
    PN_TRY(pn_tape_branch(t));
    PN_TRY(pn_linear(t, in[R], a->w_r, NULL, &r));
    PN_TRY(pn_tape_branch(t));
    PN_TRY(pn_linear(t, in[K], a->w_k, NULL, &k));
    PN_TRY(pn_tape_branch(t));
    PN_TRY(pn_linear(t, in[V], a->w_v, NULL, &v));
    PN_TRY(pn_tape_branch(t));
    PN_TRY(apply(&a->decay, TANH, t, in[W], &decay));
    PN_TRY(pn_sigmoid_gate(t, decay, -exp(-0.5), &decay));
    PN_TRY(pn_tape_join(t));
    PN_TRY(pn_tape_branch(t));
    if (o->use_v_first) PN_TRY(residual(a, t, in[V], carry, &v));
    PN_TRY(pn_tape_branch(t));
    PN_TRY(apply(&a->rate, NOTHING, t, in[A], &rate));
    PN_TRY(pn_sigmoid(t, rate, 1, &rate));
    PN_TRY(pn_tape_branch(t));
    PN_TRY(apply(&a->gate, SIGMOID, t, in[G], &gate));
    PN_TRY(pn_tape_join(t));
    const pn_rwkv_keys_attr unit = { .head_dim = N, .eps = o->fuse_norm ? 1e-6 : 0, .floor = o->fuse_norm ? 0 : 1e-12 };
    PN_TRY(pn_rwkv_keys(t, &unit, k, rate, a->k_k, a->k_a, &keys));
    const pn_dplr_attr core = {
        .docs = pn_docs_without_past(docs), .heads = (int)H, .dk = (int)N, .dv = (int)N, .scale = 1
    };
    PN_TRY(pn_dplr(t, &core, r, keys.key, v, keys.remove, keys.add, decay, state ? state->tensor[STATE_S] : NULL,
                   &mixed, &final_state));
    if (state) PN_TRY(pn_state_replace(state, STATE_S, final_state));
    PN_TRY(pn_group_norm(t, mixed, a->norm_scale, a->norm_bias, H, (double)N * o->norm_eps, &mixed));
    const pn_rwkv_output_in output = { .o = mixed, .r = r, .k = keys.key, .v = v, .gate = gate, .r_k = a->r_k };
    PN_TRY(pn_rwkv_output(t, &output, &mixed));
    PN_TRY(pn_linear(t, mixed, a->w_o, NULL, y));
    return PN_OK;
}

/* r is q. No token shift in what is copied, as in RADLADS (blocks.md 11.1); the gate, constant before it learns, would
 * negate half of the channels. */
static void attention_map(const pn_block *b, pn_attention_map *map) {
    const rwkv7 *a = b->data;
    const int64_t N = ((const options *)b->spec.options)->head_dim, H = b->dims.hidden / N;
    pn_tensor *const w[] = { a->w_r, a->w_k, a->w_v }, *const shift[] = { a->shift[R], a->shift[K], a->shift[V] };
    for (int i = 0; i < PN_MAP_PARTS; i++) {
        map->part[i] = (pn_head_rows){ .w = w[i], .heads = H, .width = N };
        pn_attention_map_value(map, shift[i], 0);
    }
    map->out = a->w_o;
    map->out_heads = H;
    map->gate_rows = a->gate.up;
}

static pn_status state_create(const pn_block *b, pn_state *s) {
    const options *o = (const options *)b->spec.options;
    const int64_t D = b->dims.hidden, N = o->head_dim;
    PN_TRY(pn_state_add(s, "x", 2, (int64_t[]){ s->n, D }));
    PN_TRY(pn_state_add_wide(s, "S", 4, (int64_t[]){ s->n, D / N, N, N }));
    return PN_OK;
}

static double cache_bytes(const pn_block *b, int64_t context, size_t activation_bytes) {
    (void)context;
    const options *o = (const options *)b->spec.options;
    const double D = (double)b->dims.hidden;
    return 4 * D * (double)o->head_dim + D * (double)activation_bytes;
}

const pn_block_type pn_block_rwkv7 = {
    .name = "rwkv7",
    .hf_name = "rwkv7",
    .summary = "RWKV-7 time mixing: a decay for every channel and a generalised delta rule, after a token shift",
    .role = PN_MIXER,
    .attention_map = attention_map,
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(rwkv7),
    .crosses_layers = crosses_layers,
    .resolve = resolve,
    .build = build,
    .forward = forward,
    .state_create = state_create,
    .cache_bytes = cache_bytes,
};
