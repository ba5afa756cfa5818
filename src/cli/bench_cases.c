#include "bench_cases.h"

#include <math.h>
#include <string.h>

#include "add_rms_norm/add_rms_norm.h"
#include "attention/attention.h"
#include "causal_conv/causal_conv.h"
#include "decay_gate/decay_gate.h"
#include "dplr/dplr.h"
#include "dynamic_conv/dynamic_conv.h"
#include "gated_delta/gated_delta.h"
#include "gated_linear/gated_linear.h"
#include "gated_rms_norm/gated_rms_norm.h"
#include "block_arg.h"
#include "infer.h"
#include "l2_norm/l2_norm.h"
#include "linear_kl/linear_kl.h"
#include "linear_kl_topk/linear_kl_topk.h"
#include "linear_topk/linear_topk.h"
#include "options.h"
#include "rms_norm/rms_norm.h"
#include "rope/rope.h"
#include "sigmoid/sigmoid.h"
#include "weighted_sum/weighted_sum.h"

static const pn_bench_shape shapes[] = {
    { "smollm2-135m", { 576, 9, 3, 64, 1536, 1e5, 1e-5, false, { 0 } }, 49152, 30, false },
    { "qwen2.5-0.5b", { 896, 14, 2, 64, 4864, 1e6, 1e-6, true, { 0 } }, 151936, 24, false },
    { "qwen2.5-1.5b", { 1536, 12, 2, 128, 8960, 1e6, 1e-6, true, { 0 } }, 151936, 28, false },
    { "jet-nemotron-2b", { 1536, 12, 2, 128, 8960, 1e6, 1e-6, true, { 0 } }, 151936, 28, true },
    { "quickstart", { 64, 2, 1, 32, 128, 1e4, 1e-6, true, { 0 } }, 259, 8, false },
};
enum {
    N_SHAPES = sizeof shapes / sizeof *shapes,
    DECODE_KEYS = 2048,
    CONV_WIDTH = 4,
    JET_REDUCTION = 8,
    TEACHER_WORDS = 64
};

pn_status pn_bench_shape_find(const char *name, const pn_bench_shape **out) {
    const char *names[N_SHAPES];
    for (int i = 0; i < N_SHAPES; i++) {
        *out = &shapes[i];
        names[i] = shapes[i].name;
        if (!strcmp(name, names[i])) return PN_OK;
    }
    char all[128];
    const char *near = pn_nearest(name, names, N_SHAPES);
    PN_FAIL(PN_USAGE, "postnas bench: there is no shape %s; %s%s%sthere are %s", name, near ? "did you mean " : "",
            near ? near : "", near ? "? " : "", pn_bench_shape_names(all, sizeof all));
}

const char *pn_bench_shape_names(char *buffer, size_t n) {
    size_t len = 0;
    for (int i = 0; i < N_SHAPES && len < n; i++)
        len += (size_t)snprintf(buffer + len, n - len, "%s%s", i ? ", " : "", shapes[i].name);
    return buffer;
}

pn_status pn_bench_shape_model(const pn_bench_shape *shape, int64_t layers, const pn_block_spec *block, int n_blocks,
                               pn_model **out) {
    pn_model_config c = { .dims = shape->dims,
                          .vocab = shape->vocab,
                          .n_layers = layers && layers < shape->n_layers ? (int)layers : shape->n_layers,
                          .tied = true,
                          .bos = -1,
                          .eos = -1,
                          .initializer_range = 0.02,
                          .file_dtype = PN_BF16 };
    for (int l = 0; l < c.n_layers; l++) c.layer[l] = block[l % n_blocks];
    PN_TRY(pn_model_create(&c, PN_F32, NULL, out));
    pn_params_init((*out)->params, 1);
    return PN_OK;
}

pn_status pn_bench_teacher(const pn_model *student, pn_model **out) {
    pn_model_config c = student->config;
    for (int l = 0; l < c.n_layers; l++) PN_TRY(pn_block_spec_default(&pn_block_attention, &c.layer[l]));
    PN_TRY(pn_model_create(&c, PN_F32, student->params, out));
    const pn_params *p = (*out)->params;
    for (int i = 0; i < p->n; i++)
        if (!pn_params_find(student->params, p->item[i]->name)) PN_TRY(pn_param_init(p->item[i], 2));
    return PN_OK;
}

pn_status pn_bench_shape_blocks(const pn_bench_shape *shape, pn_block_spec *block, int *n) {
    *n = 1;
    if (!shape->hybrid) return pn_block_arg_default(&pn_block_attention, &shape->dims, block);
    static const char *const jet = "{ type: jet, head_dim: 96, expand_v: 2.6666666667 }",
                             *const swa = "{ type: swa, window_size: 1152 }";
    *n = shape->n_layers;
    for (int l = 0; l < *n; l++)
        PN_TRY(pn_block_arg("the shape",
                            l == 14 || l == 19   ? "attention"
                            : l == 20 || l == 21 ? swa
                                                 : jet,
                            &shape->dims, &block[l]));
    return PN_OK;
}

/* What a builder is asked for. */
typedef struct ask {
    const pn_dims *m;
    int64_t vocab, tokens, sequences; /* tokens 0: decoding */
    int i;
} ask;

static int64_t rows_of(const ask *a) {
    return a->tokens ? a->tokens : a->sequences;
}

static pn_docs docs_of(const ask *a, pn_bench_case *out) {
    int64_t n = a->sequences, tokens = rows_of(a);
    for (int64_t d = 0; d <= n; d++) out->offset[d] = tokens * d / n;
    return (pn_docs){ .n = n, .offset = out->offset };
}

#define ATTR(value)                                                                                                    \
    do {                                                                                                               \
        _Static_assert(sizeof(value) <= PN_OP_ATTR_BYTES, "attr");                                                     \
        memcpy(out->op_case.attr, &(value), sizeof(value));                                                            \
    } while (0)

/* n_in matrices of rows x width. */
static bool matrices(const ask *a, int n_in, int64_t width, pn_bench_case *out) {
    if (a->i > 0) return false;
    out->op_case.n_in = n_in;
    for (int k = 0; k < n_in; k++) out->op_case.in[k] = pn_case_matrix(rows_of(a), width);
    snprintf(out->op_case.name, sizeof out->op_case.name, "%lldx%lld", (long long)rows_of(a), (long long)width);
    return true;
}

static pn_case_input scaled_weight(int64_t rows, int64_t cols, double deviation) {
    pn_case_input in = pn_case_weight(rows, cols);
    in.hi = deviation;
    return in;
}
static pn_case_input uniform_gate(int64_t rows, int64_t cols, double lo, double hi) {
    pn_case_input in = pn_case_matrix(rows, cols);
    in.fill = PN_FILL_UNIFORM;
    in.lo = lo;
    in.hi = hi;
    in.wide = true;
    return in;
}
static pn_case_input ones_vector(int64_t n) {
    pn_case_input in = pn_case_vector(n);
    in.fill = PN_FILL_ONES;
    in.hi = 0.1;
    return in;
}

/* While decoding nothing wants a gradient. */
static bool decoding(const ask *a, pn_bench_case *out) {
    for (int k = 0; !a->tokens && k < out->op_case.n_in; k++) out->op_case.in[k].no_grad = true;
    return true;
}

static bool add(const ask *a, pn_bench_case *out) {
    return a->tokens && matrices(a, 2, a->m->hidden, out);
}
static bool swiglu(const ask *a, pn_bench_case *out) {
    return a->tokens && matrices(a, 2, a->m->intermediate, out);
}
static bool swiglu_linear(const ask *a, pn_bench_case *out) {
    if (!matrices(a, 2, a->m->intermediate, out)) return false;
    out->op_case.n_in = 3;
    out->op_case.in[2] = scaled_weight(a->m->hidden, a->m->intermediate, 0.02);
    snprintf(out->op_case.name, sizeof out->op_case.name, "%lldx%lld->%lld", (long long)rows_of(a),
             (long long)a->m->intermediate, (long long)a->m->hidden);
    return decoding(a, out);
}
static bool silu(const ask *a, pn_bench_case *out) {
    return a->tokens && matrices(a, 1, a->m->hidden, out);
}
static bool feature_loss(const ask *a, pn_bench_case *out) {
    if (!a->tokens || !matrices(a, 2, a->m->hidden, out)) return false;
    out->op_case.in[1].no_grad = true;
    return true;
}

static bool sigmoid(const ask *a, pn_bench_case *out) {
    if (!a->tokens || !matrices(a, 1, a->m->heads, out)) return false;
    ATTR(((pn_sigmoid_attr){ .scale = 1, .wide = true }));
    return true;
}

static bool decay_gate(const ask *a, pn_bench_case *out) {
    if (!a->tokens || !matrices(a, 1, a->m->heads, out)) return false;
    out->op_case.n_in = 3;
    out->op_case.in[1] = ones_vector(a->m->heads);
    out->op_case.in[2] = ones_vector(a->m->heads);
    return true;
}

static bool linear(const ask *a, pn_bench_case *out) {
    const pn_dims *m = a->m;
    const int64_t size[][2] = { { m->hidden, m->heads * m->head_dim },
                                { m->hidden, m->kv_heads * m->head_dim },
                                { m->hidden, m->intermediate },
                                { m->intermediate, m->hidden },
                                { m->hidden, m->heads } };
    if (a->i >= (int)(sizeof size / sizeof *size)) return false;
    int64_t in = size[a->i][0], to = size[a->i][1];
    out->op_case.n_in = 3;
    out->op_case.in[0] = pn_case_matrix(rows_of(a), in);
    out->op_case.in[1] = scaled_weight(to, in, 0.02);
    snprintf(out->op_case.name, sizeof out->op_case.name, "%lldx%lld->%lld", (long long)rows_of(a), (long long)in,
             (long long)to);
    return decoding(a, out);
}

static bool linear_pair(const ask *a, pn_bench_case *out) {
    if (!matrices(a, 1, a->m->hidden, out)) return false;
    out->op_case.n_in = 3;
    for (int k = 1; k < 3; k++) out->op_case.in[k] = scaled_weight(a->m->heads, a->m->hidden, 0.02);
    snprintf(out->op_case.name, sizeof out->op_case.name, "%lldx%lld->%lld, %lld", (long long)rows_of(a),
             (long long)a->m->hidden, (long long)a->m->heads, (long long)a->m->heads);
    return decoding(a, out);
}

static bool embedding(const ask *a, pn_bench_case *out) {
    if (a->i > 0 || !a->tokens) return false;
    out->op_case.n_in = 2;
    out->op_case.in[0] = pn_case_ids(a->tokens, 0, a->vocab);
    out->op_case.in[1] = scaled_weight(a->vocab, a->m->hidden, 0.02);
    snprintf(out->op_case.name, sizeof out->op_case.name, "%lldx%lld of %lld", (long long)a->tokens,
             (long long)a->m->hidden, (long long)a->vocab);
    return true;
}

static bool rms_norm(const ask *a, pn_bench_case *out) {
    if (!a->tokens || !matrices(a, 1, a->m->hidden, out)) return false;
    out->op_case.n_in = 2;
    out->op_case.in[1] = ones_vector(a->m->hidden);
    ATTR(((pn_rms_norm_attr){ .eps = a->m->rms_norm_eps, .groups = 1 }));
    return true;
}

static bool add_rms_norm(const ask *a, pn_bench_case *out) {
    if (!a->tokens || !matrices(a, 2, a->m->hidden, out)) return false;
    out->op_case.n_in = 3;
    out->op_case.in[2] = ones_vector(a->m->hidden);
    ATTR(((pn_add_rms_norm_attr){ .eps = a->m->rms_norm_eps }));
    return true;
}

static bool gated_rms_norm(const ask *a, pn_bench_case *out) {
    if (!a->tokens || !matrices(a, 2, a->m->heads * a->m->head_dim, out)) return false;
    out->op_case.n_in = 3;
    out->op_case.in[2] = ones_vector(a->m->head_dim);
    ATTR(((pn_gated_rms_norm_attr){ .head_dim = a->m->head_dim, .eps = 1e-5 }));
    return true;
}

static bool l2_norm(const ask *a, pn_bench_case *out) {
    if (!a->tokens || !matrices(a, 1, a->m->heads * a->m->head_dim, out)) return false;
    ATTR(((pn_l2_norm_attr){ .head_dim = a->m->head_dim, .eps = 1e-6, .silu = false }));
    return true;
}

static bool rope(const ask *a, pn_bench_case *out) {
    if (!a->tokens || !matrices(a, 1, a->m->heads * a->m->head_dim, out)) return false;
    ATTR(((pn_rope_attr){ docs_of(a, out), (int)a->m->heads, (int)a->m->head_dim, a->m->rope_theta }));
    return true;
}

static bool attention(const ask *a, pn_bench_case *out) {
    if (a->i > 0) return false;
    const pn_dims *m = a->m;
    pn_attention_attr attr = { .docs = docs_of(a, out),
                               .heads = (int)m->heads,
                               .kv_heads = (int)m->kv_heads,
                               .head_dim = (int)m->head_dim,
                               .scale = 1 / sqrt((double)m->head_dim) };
    int64_t keys = a->tokens;
    if (!a->tokens) {
        for (int64_t d = 0; d < a->sequences; d++) {
            out->key_start[d] = d * DECODE_KEYS;
            out->key_len[d] = DECODE_KEYS;
        }
        attr.key_start = out->key_start;
        attr.key_len = out->key_len;
        keys = a->sequences * DECODE_KEYS;
    }
    ATTR(attr);
    out->op_case.n_in = 3;
    for (int k = 0; k < 3; k++)
        out->op_case.in[k] = pn_case_matrix(k ? keys : rows_of(a), (k ? m->kv_heads : m->heads) * m->head_dim);
    snprintf(out->op_case.name, sizeof out->op_case.name, "%s%lld, %lld/%lld heads of %lld", a->tokens ? "" : "1 of ",
             (long long)(a->tokens ? a->tokens : DECODE_KEYS), (long long)m->heads, (long long)m->kv_heads,
             (long long)m->head_dim);
    return decoding(a, out);
}

static void head(const ask *a, int n_in, pn_bench_case *out) {
    out->op_case.n_in = n_in;
    out->op_case.in[0] = pn_case_matrix(rows_of(a), a->m->hidden);
    out->op_case.in[1] = scaled_weight(a->vocab, a->m->hidden, 0.02);
    snprintf(out->op_case.name, sizeof out->op_case.name, "%lldx%lld->%lld", (long long)rows_of(a),
             (long long)a->m->hidden, (long long)a->vocab);
}

static bool linear_cross_entropy(const ask *a, pn_bench_case *out) {
    if (a->i > 0 || !a->tokens) return false;
    head(a, 4, out);
    out->op_case.in[2] = pn_case_ids(a->tokens, 0, a->vocab);
    return true;
}

static bool linear_kl(const ask *a, pn_bench_case *out) {
    if (a->i > 0 || !a->tokens) return false;
    head(a, 5, out);
    out->op_case.in[2] = pn_case_matrix(a->tokens, a->m->hidden);
    out->op_case.in[3] = out->op_case.in[1];
    for (int k = 2; k < 4; k++) out->op_case.in[k].no_grad = true;
    ATTR(((pn_linear_kl_attr){ .temperature = 1 }));
    return true;
}

static bool linear_kl_topk(const ask *a, pn_bench_case *out) {
    if (a->i > 0 || !a->tokens) return false;
    head(a, 5, out);
    out->op_case.in[2] = pn_case_ascending(a->tokens, TEACHER_WORDS, a->vocab);
    out->op_case.in[3] = pn_case_matrix(a->tokens, TEACHER_WORDS);
    out->op_case.in[3].wide = out->op_case.in[3].no_grad = true;
    out->op_case.in[3].fill = PN_FILL_UNIFORM;
    out->op_case.in[3].lo = -8, out->op_case.in[3].hi = -4.5;
    ATTR(((pn_linear_kl_topk_attr){ .temperature = 1 }));
    return true;
}

static bool linear_topk(const ask *a, pn_bench_case *out) {
    if (a->i > 0 || !a->tokens) return false;
    head(a, 2, out);
    for (int k = 0; k < 2; k++) out->op_case.in[k].no_grad = true;
    ATTR(((pn_linear_topk_attr){ .k = TEACHER_WORDS, .temperature = 1 }));
    return true;
}

static bool linear_argmax(const ask *a, pn_bench_case *out) {
    if (a->i > 0) return false;
    head(a, 2, out);
    for (int k = 0; k < 2; k++) out->op_case.in[k].no_grad = true;
    return true;
}

static bool causal_conv(const ask *a, pn_bench_case *out) {
    if (!a->tokens || !matrices(a, 1, a->m->heads * a->m->head_dim, out)) return false;
    out->op_case.n_in = 2;
    out->op_case.in[1] = (pn_case_input){
        .present = true, .weight = true, .rank = 3, .shape = { a->m->heads * a->m->head_dim, 1, CONV_WIDTH }
    };
    ATTR(((pn_causal_conv_attr){ .docs = docs_of(a, out), .width = CONV_WIDTH, .silu = true }));
    return true;
}

static bool dynamic_conv(const ask *a, pn_bench_case *out) {
    if (!a->tokens || !matrices(a, 1, a->m->heads * a->m->head_dim, out)) return false;
    int64_t channels = a->m->heads * a->m->head_dim, rank = channels / JET_REDUCTION;
    out->op_case.n_in = 4;
    out->op_case.in[1] = pn_case_matrix(rows_of(a), rank);
    out->op_case.in[2] = scaled_weight(channels * CONV_WIDTH, rank, 0.3);
    out->op_case.in[3] = pn_case_vector(channels * CONV_WIDTH);
    ATTR(((pn_dynamic_conv_attr){ .docs = docs_of(a, out), .width = CONV_WIDTH }));
    return true;
}

/* The model's own heads, then those of JetBlock in Jet-Nemotron-2B and shapes of Gated DeltaNet models. */
static bool gated_delta(const ask *a, pn_bench_case *out) {
    const int64_t head[][3] = { { a->m->heads, a->m->head_dim, a->m->head_dim },
                                { 12, 96, 256 },
                                { 8, 128, 128 },
                                { 8, 128, 256 },
                                { 8, 192, 384 } };
    if (a->i >= (int)(sizeof head / sizeof *head)) return false;
    int64_t heads = head[a->i][0], dk = head[a->i][1], dv = head[a->i][2], rows = rows_of(a);
    pn_gated_delta_attr attr = { .docs = docs_of(a, out),
                                 .heads = (int)heads,
                                 .v_heads = (int)heads,
                                 .dk = (int)dk,
                                 .dv = (int)dv,
                                 .scale = 1 / sqrt((double)dk) };
    ATTR(attr);
    out->op_case.n_in = 6;
    for (int k = 0; k < 2; k++) {
        out->op_case.in[k] = pn_case_matrix(rows, heads * dk);
        out->op_case.in[k].fill = PN_FILL_L2ROWS;
        out->op_case.in[k].group = dk;
    }
    out->op_case.in[2] = pn_case_matrix(rows, heads * dv);
    out->op_case.in[3] = uniform_gate(rows, heads, -0.1, 0);
    out->op_case.in[4] = uniform_gate(rows, heads, 0, 1);
    if (!a->tokens)
        out->op_case.in[5] = (pn_case_input){
            .present = true, .wide = true, .rank = 4, .shape = { a->sequences, heads, dk, dv }, .hi = 0.3
        };
    snprintf(out->op_case.name, sizeof out->op_case.name, "%lld, %lld heads %lldx%lld", (long long)rows,
             (long long)heads, (long long)dk, (long long)dv);
    return decoding(a, out);
}

/* Heads of 64 as many as fill the model's width, with a decay per channel (GLA) and per head (RetNet, Mamba-2); wide
 * ones. */
static bool gated_linear(const ask *a, pn_bench_case *out) {
    const struct {
        int heads, dk, dv;
        bool vector;
    } each[] = { { (int)a->m->hidden / 64, 64, 64, true },
                 { (int)a->m->hidden / 64, 64, 64, false },
                 { 8, 128, 128, true },
                 { 8, 128, 128, false } };
    if (a->i >= (int)(sizeof each / sizeof *each)) return false;
    int64_t heads = each[a->i].heads, dk = each[a->i].dk, dv = each[a->i].dv, rows = rows_of(a);
    int shared = (int)heads;
    pn_gated_linear_attr attr = {
        docs_of(a, out),     shared, shared, shared, shared, shared, (int)dk, (int)dv, each[a->i].vector,
        1 / sqrt((double)dk)
    };
    ATTR(attr);
    out->op_case.n_in = 5;
    for (int k = 0; k < 3; k++) out->op_case.in[k] = pn_case_matrix(rows, heads * (k == 2 ? dv : dk));
    out->op_case.in[3] = uniform_gate(rows, heads * (attr.vector_gate ? dk : 1), -0.1, 0);
    if (!a->tokens)
        out->op_case.in[4] = (pn_case_input){
            .present = true, .wide = true, .rank = 4, .shape = { a->sequences, heads, dk, dv }, .hi = 0.3
        };
    snprintf(out->op_case.name, sizeof out->op_case.name, "%lld, %lld %s %lldx%lld", (long long)rows, (long long)heads,
             attr.vector_gate ? "vector" : "scalar", (long long)dk, (long long)dv);
    return decoding(a, out);
}

/* RWKV-7 heads, as many as fill the model's width, then wider ones. */
static bool dplr(const ask *a, pn_bench_case *out) {
    const int64_t head[][3] = { { a->m->hidden / 64, 64, 64 }, { 8, 64, 128 }, { 8, 128, 128 } };
    if (a->i >= (int)(sizeof head / sizeof *head)) return false;
    int64_t heads = head[a->i][0], dk = head[a->i][1], dv = head[a->i][2], rows = rows_of(a);
    ATTR(((pn_dplr_attr){ .docs = docs_of(a, out), .heads = (int)heads, .dk = (int)dk, .dv = (int)dv, .scale = 1 }));
    out->op_case.n_in = 7;
    for (int k = 0; k < 6; k++) out->op_case.in[k] = pn_case_matrix(rows, heads * (k == 2 ? dv : dk));
    out->op_case.in[3].fill = PN_FILL_L2ROWS;
    out->op_case.in[3].group = dk;
    out->op_case.in[4].hi = 0.5 / sqrt((double)dk);
    out->op_case.in[5] = uniform_gate(rows, heads * dk, -exp(-0.5), 0);
    if (!a->tokens)
        out->op_case.in[6] = (pn_case_input){
            .present = true, .wide = true, .rank = 4, .shape = { a->sequences, heads, dk, dv }, .hi = 0.3
        };
    snprintf(out->op_case.name, sizeof out->op_case.name, "%lld, %lld heads %lldx%lld", (long long)rows,
             (long long)heads, (long long)dk, (long long)dv);
    return decoding(a, out);
}

static bool weighted_sum(const ask *a, pn_bench_case *out) {
    if (a->i > 0 || !a->tokens) return false;
    out->op_case.n_in = 3;
    for (int k = 0; k < 3; k++) out->op_case.in[k] = pn_case_vector(1);
    ATTR(((pn_weighted_sum_attr){ .weight = { 1, 0.5, 0.25 } }));
    snprintf(out->op_case.name, sizeof out->op_case.name, "3 numbers");
    return true;
}

static const struct {
    const char *op;
    bool (*fill)(const ask *a, pn_bench_case *out);
} builders[] = {
#define ROW(op)                                                                                                        \
    { #op, op }
    ROW(add),          ROW(linear),         ROW(linear_pair),    ROW(embedding),
    ROW(rms_norm),     ROW(add_rms_norm),   ROW(gated_rms_norm), ROW(l2_norm),
    ROW(swiglu),       ROW(swiglu_linear),  ROW(silu),           ROW(sigmoid),
    ROW(decay_gate),   ROW(rope),           ROW(attention),      ROW(linear_cross_entropy),
    ROW(linear_kl),    ROW(linear_kl_topk), ROW(linear_topk),    ROW(linear_argmax),
    ROW(feature_loss), ROW(weighted_sum),   ROW(causal_conv),    ROW(dynamic_conv),
    ROW(gated_delta),  ROW(gated_linear),   ROW(dplr),
#undef ROW
};

static double input_elems(const pn_op_case *c) {
    double total = 0;
    for (int i = 0; i < c->n_in; i++) {
        double n = c->in[i].present;
        for (int k = 0; k < c->in[i].rank; k++) n *= (double)c->in[i].shape[k];
        total += n;
    }
    return total;
}

static bool largest_own(const pn_op *op, pn_op_case *out) {
    double most = -1;
    for (int i = 0;; i++) {
        pn_op_case c = { 0 };
        if (!op->contract->case_at(i, &c)) return most >= 0;
        if (input_elems(&c) <= most) continue;
        most = input_elems(&c);
        *out = c;
    }
}

bool pn_bench_case_at(const pn_op *op, const pn_bench_shape *shape, int64_t tokens, int64_t sequences, int i,
                      pn_bench_case *out) {
    PN_ASSERT(sequences >= 0 && sequences <= PN_BENCH_MOST_SEQUENCES);
    memset(out, 0, sizeof *out);
    ask a = { .m = &shape->dims, .vocab = shape->vocab, .tokens = tokens, .i = i };
    a.sequences = sequences ? sequences : tokens ? 1 : PN_BENCH_DECODING;
    for (size_t k = 0; k < sizeof builders / sizeof *builders; k++)
        if (!strcmp(builders[k].op, op->name)) return builders[k].fill(&a, out);
    return i == 0 && tokens && largest_own(op, &out->op_case);
}
