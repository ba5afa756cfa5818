/* Linear blocks that start from attention (blocks.md 11.2): rows where shapes agree, products where they do not, the
 * RMS of every head, and a search whose candidates start so, stopped and resumed. */
#include "supernet_fixture.h"

#include <math.h>

#include "attention_map.h"
#include "files.h"
#include "from_attention.h"
#include "head_basis.h"
#include "rng.h"
#include "signals.h"

enum { D = 32, HQ = 4, HKV = 2, HEAD = 8, TOKENS = 96 };

/* ---- an attention, a block beside it, and a batch ---- */

typedef struct rig {
    pn_params *params; /* "attention." and "block." */
    pn_block *attention, *block;
    pn_tape *t;
    pn_tensor *x;
    pn_docs docs;
    pn_start_report report;
} rig;

static const int64_t offsets[] = { 0, 40, 41, TOKENS };

typedef struct setting {
    const char *option, *value;
} setting;
enum { SETTINGS = 6 };

static pn_tensor *weight(const rig *r, const char *name) {
    const pn_param *p = pn_params_find(r->params, name);
    ck_assert_msg(p != NULL, "no weight %s", name);
    return p->value;
}

static void scatter(pn_tensor *w, double sigma, const char *stream) {
    pn_rng rng;
    pn_rng_stream(6, stream, 0, &rng);
    for (int64_t i = 0; i < pn_tensor_elems(w); i++) pn_f32(w)[i] = (float)(sigma * pn_rng_normal(&rng));
}

static void open_rig(rig *r, const pn_block_type *type, const setting *set) {
    static const pn_dims dims = { .hidden = D,
                                  .heads = HQ,
                                  .kv_heads = HKV,
                                  .head_dim = HEAD,
                                  .intermediate = 8,
                                  .rope_theta = 1e4,
                                  .rms_norm_eps = 1e-6,
                                  .qkv_bias = true };
    static const char *const names[] = { "q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight",
                                         "q_proj.bias",   "k_proj.bias",   "v_proj.bias" };
    pn_block_spec spec;
    *r = (rig){ .docs = { .n = 3, .offset = offsets } };
    ck_ok(pn_params_create(PN_F32, &r->params));
    ck_ok(pn_block_spec_default(&pn_block_attention, &spec));
    ck_ok(pn_block_create(&spec, &dims, r->params, "attention.", &r->attention));
    ck_ok(pn_block_spec_default(type, &spec));
    for (int i = 0; i < SETTINGS && set[i].option; i++) {
        const pn_option *row = pn_option_find(type->options, set[i].option);
        ck_assert_msg(row != NULL, "%s has no option %s", type->name, set[i].option);
        ck_ok(pn_option_parse(row, type->name, set[i].value, 0, spec.options));
    }
    ck_ok(pn_block_create(&spec, &dims, r->params, "block.", &r->block));
    pn_params_init(r->params, 3);
    for (int i = 0; i < 7; i++) {
        char name[64];
        snprintf(name, sizeof name, "attention.%s", names[i]);
        scatter(weight(r, name), 0.3, names[i]);
    }
    ck_ok(pn_tape_create(PN_CPU, &r->t));
    pn_tape_record(r->t, false);
    ck_ok(pn_tape_new(r->t, PN_F32, 2, (int64_t[]){ TOKENS, D }, &r->x));
    scatter(r->x, 1, "x");
}

static void start(rig *r) {
    pn_attention_batch batch;
    ck_ok(pn_attention_batch_run(r->attention, r->t, r->x, &r->docs, &batch));
    ck_ok(pn_start_from_attention(r->block, &batch, r->t, &r->report));
}

static void close_rig(rig *r) {
    pn_block_destroy(&r->attention);
    pn_block_destroy(&r->block);
    pn_tape_destroy(&r->t);
    pn_params_destroy(&r->params);
}

/* ---- shapes that agree ---- */

static void expect_row(const rig *r, const char *name, int64_t row, const char *base, int64_t base_row) {
    const float *a = pn_f32(weight(r, name)) + row * D, *b = pn_f32(weight(r, base)) + base_row * D;
    ck_assert_msg(!memcmp(a, b, D * sizeof *a), "%s: row %lld of %s is not row %lld of the base's",
                  r->block->spec.type->name, (long long)row, name, (long long)base_row);
}

static void expect_identity(const rig *r, const char *name) {
    const pn_param *p = pn_params_find(r->params, name);
    for (int64_t i = 0; p && i < pn_tensor_elems(p->value); i++)
        ck_assert_double_eq(pn_f32(p->value)[i], i % p->value->shape[2] == p->value->shape[2] - 1);
}

/* What a head's columns of W_o are times those of the base; fails unless they are all that. */
static double column_scale(const rig *r, const char *out, int64_t head, int64_t base_head) {
    const pn_tensor *w = weight(r, out);
    const float *base = pn_f32(weight(r, "attention.o_proj.weight"));
    double scale = pn_f32(w)[head * HEAD] / base[base_head * HEAD];
    for (int64_t i = 0; i < D; i++)
        for (int64_t c = 0; c < HEAD; c++)
            ck_assert_double_eq_tol(pn_f32(w)[i * w->shape[1] + head * HEAD + c],
                                    scale * base[i * HQ * HEAD + base_head * HEAD + c], 1e-5 * (1 + fabs(scale)));
    ck_assert_double_gt(scale, 0);
    return scale;
}

/* The first D channels of what a block's output projection takes: it runs with the identity in its place. */
static void heads_of(rig *r, pn_block *b, const char *out, float *to) {
    pn_tensor *w = weight(r, out), *y;
    float keep[2 * D * D];
    pn_carry carry = { 0 };
    ck_assert_int_le(pn_tensor_bytes(w), sizeof keep);
    memcpy(keep, pn_f32(w), pn_tensor_bytes(w));
    pn_tensor_fill_zero(w);
    for (int i = 0; i < D; i++) pn_f32(w)[i * w->shape[1] + i] = 1;
    ck_ok(pn_block_forward(b, r->t, r->x, &r->docs, &carry, &y));
    memcpy(to, pn_f32(y), pn_tensor_bytes(y));
    memcpy(pn_f32(w), keep, pn_tensor_bytes(w));
}

static double rms(const float *heads, int64_t head) {
    double sum = 0;
    for (int64_t i = 0; i < TOKENS; i++)
        for (int64_t c = 0; c < HEAD; c++) sum += pow(heads[i * D + head * HEAD + c], 2);
    return sqrt(sum / (TOKENS * HEAD));
}

static const struct exact {
    const pn_block_type *type;
    setting set[SETTINGS];
    const char *q, *k, *v, *out; /* the matrices, and where each part's rows begin in them */
    int64_t q_first, k_first, v_first;
    int kv_heads;
    const char *zero; /* a weight that is 0: for slow decays; a bias; a token shift */
} exact[] = {
    { .type = &pn_block_retnet, .set = { { "num_kv_heads", "2" }, { "expand_v", "1" } }, .kv_heads = HKV },
    { .type = &pn_block_retnet, .set = { { "expand_v", "1" }, { "use_short_conv", "true" } }, .kv_heads = HQ },
    { .type = &pn_block_gla, .set = { { "num_kv_heads", "2" }, { "expand_k", "1" } }, .kv_heads = HKV },
    { .type = &pn_block_mamba2,
      .set = { { "expand", "1" }, { "head_dim", "8" }, { "state_size", "8" }, { "n_groups", "4" } },
      .q = "block.in_proj.weight",
      .k = "block.in_proj.weight",
      .v = "block.in_proj.weight",
      .out = "block.out_proj.weight",
      .q_first = 3 * D,
      .k_first = 2 * D,
      .v_first = D,
      .kv_heads = HQ,
      .zero = "block.conv1d.bias" },
    { .type = &pn_block_deltanet, .set = { { NULL } }, .kv_heads = HQ },
    { .type = &pn_block_gated_deltanet, .set = { { "expand_v", "1" } }, .kv_heads = HQ, .zero = "block.A_log" },
    { .type = &pn_block_jet, .set = { { "expand_v", "1" } }, .kv_heads = HQ, .zero = "block.A_log" },
    { .type = &pn_block_rwkv7,
      .set = { { "head_dim", "8" } },
      .q = "block.r_proj.weight",
      .kv_heads = HQ,
      .zero = "block.x_k" },
};

/* Every row of q, k and v is the base's, k and v repeated where the block has more heads of them; the columns of W_o
 * are the base's times the ratio of RMS that makes every head as loud as the base's. */
START_TEST(shapes_that_agree_are_copied) {
    const struct exact *e = &exact[_i];
    rig r;
    open_rig(&r, e->type, e->set);
    start(&r);
    const char *out = e->out ? e->out : "block.o_proj.weight";
    for (int64_t i = 0; i < HQ * HEAD; i++)
        expect_row(&r, e->q ? e->q : "block.q_proj.weight", e->q_first + i, "attention.q_proj.weight", i);
    for (int64_t h = 0; h < e->kv_heads; h++)
        for (int64_t c = 0; c < HEAD; c++) {
            const int64_t base = h * HKV / e->kv_heads * HEAD + c, row = h * HEAD + c;
            expect_row(&r, e->k ? e->k : "block.k_proj.weight", e->k_first + row, "attention.k_proj.weight", base);
            expect_row(&r, e->v ? e->v : "block.v_proj.weight", e->v_first + row, "attention.v_proj.weight", base);
        }
    static const char *const conv[] = { "block.q_conv1d.weight", "block.k_conv1d.weight", "block.v_conv1d.weight",
                                        "block.conv1d.weight" };
    for (int i = 0; i < 4; i++) expect_identity(&r, conv[i]);
    if (e->zero)
        for (int64_t i = 0; i < pn_tensor_elems(weight(&r, e->zero)); i++)
            ck_assert_double_eq(pn_f32(weight(&r, e->zero))[i], 0);

    static float own[TOKENS * D], base[TOKENS * D];
    heads_of(&r, r.attention, "attention.o_proj.weight", base);
    heads_of(&r, r.block, out, own);
    double least = INFINITY, most = 0;
    for (int64_t h = 0; h < HQ; h++) {
        double scale = column_scale(&r, out, h, h);
        ck_assert_double_eq_tol(scale * rms(own, h) / rms(base, h), 1, 1e-4);
        least = fmin(least, scale);
        most = fmax(most, scale);
    }
    ck_assert_double_eq_tol(r.report.least_scale, least, 1e-3 * least);
    ck_assert_double_eq_tol(r.report.most_scale, most, 1e-3 * most);
    ck_assert_double_eq(r.report.kept_qk, 1);
    ck_assert_double_eq(r.report.kept_v, 1);
    close_rig(&r);
}
END_TEST

/* ---- fewer channels ---- */

/* |a p^T (b r^T)^T - a b^T|^2 over |a b^T|^2. */
static double lost(const double *a, int64_t m, const double *b, int64_t n, int64_t d, int64_t rank, const double *p,
                   const double *r) {
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double whole = 0, part = 0;
            for (int64_t c = 0; c < d; c++) whole += a[i * d + c] * b[j * d + c];
            for (int64_t k = 0; k < rank; k++) {
                double x = 0, y = 0;
                for (int64_t c = 0; c < d; c++) x += p[k * d + c] * a[i * d + c], y += r[k * d + c] * b[j * d + c];
                part += x * y;
            }
            diff += (whole - part) * (whole - part);
            norm += whole * whole;
        }
    return diff / norm;
}

/* All channels: the product itself. Fewer: what is kept is what the report says, more than the strongest of the old
 * channels keep, and more with every channel. Factors of low rank: no more than they have. */
START_TEST(the_best_channels_of_a_product) {
    enum { M = 40, N = 25, C = 6 };
    double a[M * C], b[N * C], p[C * C], r[C * C], kept, before = 0;
    pn_rng rng;
    for (int low = 0; low < 2; low++) {
        for (int rank = 1; rank <= C; rank++) {
            double x[M * C], y[N * C], first[C * C] = { 0 };
            pn_rng_stream(1, "product", 0, &rng);
            for (int i = 0; i < M * C; i++) a[i] = pn_rng_normal(&rng) * (1 + i % C);
            for (int i = 0; i < N * C; i++) b[i] = pn_rng_normal(&rng);
            for (int i = 0; i < M && low; i++) a[i * C] = a[i * C + 1] = a[i * C + 2] = 0;
            memcpy(x, a, sizeof a);
            memcpy(y, b, sizeof b);
            ck_ok(pn_head_basis(x, M, y, N, C, rank, p, r, &kept));
            ck_assert_double_eq_tol(lost(a, M, b, N, C, rank, p, r), 1 - kept, 1e-9);
            for (int k = 0; k < rank; k++) first[k * C + C - 1 - k] = 1; /* the last channels are the strongest */
            if (rank < C && !low) {
                ck_assert_double_lt(1 - kept, 0.999 * lost(a, M, b, N, C, rank, first, first));
                ck_assert_double_gt(kept, before);
            }
            before = rank == C ? 0 : kept;
            if (rank < (low ? 3 : C)) continue;
            ck_assert_double_eq_tol(kept, 1, 1e-12);
            for (int i = (low ? 3 : C) * C; i < rank * C; i++) ck_assert(p[i] == 0 && r[i] == 0);
        }
    }
    /* fewer rows than channels */
    double x[2 * C], y[3 * C];
    memcpy(x, a, sizeof x);
    memcpy(y, b, sizeof y);
    ck_ok(pn_head_basis(x, 2, y, 3, C, 4, p, r, &kept));
    ck_assert_double_eq_tol(lost(a, 2, b, 3, C, 4, p, r), 0, 1e-12);
}
END_TEST

/* W_q,h^T W_k,h of a head, or W_o,h W_v,h: [D, D]. left, right: rows of head h; columns: W_o [D, V] for `left`. */
static void product(const float *left, bool columns, int64_t V, int64_t left_first, const float *right,
                    int64_t right_first, int64_t width, double *out) {
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = 0; j < D; j++) {
            double sum = 0;
            for (int64_t c = 0; c < width; c++)
                sum += (double)(columns ? left[i * V + left_first + c] : left[(left_first + c) * D + i]) *
                       right[(right_first + c) * D + j];
            out[i * D + j] = sum;
        }
}

/* The least |a - s b|^2 / |a|^2 over s. */
static double apart(const double *a, const double *b) {
    double aa = 0, ab = 0, bb = 0;
    for (int i = 0; i < D * D; i++) aa += a[i] * a[i], ab += a[i] * b[i], bb += b[i] * b[i];
    return 1 - ab * ab / (aa * bb);
}

static void expect_products(const rig *r, int64_t heads, int64_t dk, int64_t dv) {
    static double own[D * D], base[D * D];
    const float *q = pn_f32(weight(r, "block.q_proj.weight")), *bq = pn_f32(weight(r, "attention.q_proj.weight"));
    const float *k = pn_f32(weight(r, "block.k_proj.weight")), *bk = pn_f32(weight(r, "attention.k_proj.weight"));
    const float *v = pn_f32(weight(r, "block.v_proj.weight")), *bv = pn_f32(weight(r, "attention.v_proj.weight"));
    const float *o = pn_f32(weight(r, "block.o_proj.weight")), *bo = pn_f32(weight(r, "attention.o_proj.weight"));
    for (int64_t h = 0; h < heads; h++) {
        const int64_t from = h * HQ / heads, kv = from * HKV / HQ;
        product(q, false, 0, h * dk, k, h * dk, dk, own);
        product(bq, false, 0, from * HEAD, bk, kv * HEAD, HEAD, base);
        ck_assert_double_lt(apart(own, base), 1e-9);
        product(o, true, heads * dv, h * dv, v, h * dv, dv, own);
        product(bo, true, HQ * HEAD, from * HEAD, bv, kv * HEAD, HEAD, base);
        ck_assert_double_lt(apart(own, base), 1e-9);
    }
}

/* Keys and values that use 5 of their 8 channels' directions fit into 5 channels: the products are the base's. */
START_TEST(narrow_heads_keep_products_of_low_rank) {
    rig r;
    open_rig(&r, &pn_block_gated_deltanet, (setting[SETTINGS]){ { "head_dim", "5" }, { "expand_v", "1" } });
    static const char *const names[] = { "attention.k_proj.weight", "attention.v_proj.weight" };
    for (int i = 0; i < 2; i++)
        for (int64_t h = 0; h < HKV; h++)
            for (int64_t c = 5; c < HEAD; c++) /* rows of a head are sums of its first five */
                for (int64_t j = 0; j < D; j++) {
                    float *head = pn_f32(weight(&r, names[i])) + h * HEAD * D;
                    head[c * D + j] = head[(c - 5) * D + j] - head[(c - 4) * D + j];
                }
    start(&r);
    ck_assert_double_eq_tol(r.report.kept_qk, 1, 1e-6);
    ck_assert_double_eq_tol(r.report.kept_v, 1, 1e-6);
    expect_products(&r, HQ, 5, 5);
    close_rig(&r);
    open_rig(&r, &pn_block_gated_deltanet, (setting[SETTINGS]){ { "head_dim", "5" }, { "expand_v", "1" } });
    start(&r); /* without that, something is lost, and said */
    ck_assert(r.report.kept_qk > 0.5 && r.report.kept_qk < 0.999);
    ck_assert(r.report.kept_v > 0.5 && r.report.kept_v < 0.999);
    close_rig(&r);
}
END_TEST

/* ---- more channels, other heads ---- */

/* Wider heads hold the base's products; the columns of W_o for the further values are 0 and their rows of W_v are not,
 * and further keys are 0 and queries are not: no effect at the start, but gradient. */
START_TEST(wide_heads_are_the_same_products) {
    rig r;
    open_rig(&r, &pn_block_gated_deltanet, (setting[SETTINGS]){ { "head_dim", "12" }, { "expand_v", "1.5" } });
    start(&r);
    expect_products(&r, HQ, 12, 18);
    const pn_tensor *o = weight(&r, "block.o_proj.weight");
    const float *q = pn_f32(weight(&r, "block.q_proj.weight")), *k = pn_f32(weight(&r, "block.k_proj.weight"));
    for (int64_t h = 0; h < HQ; h++) {
        for (int64_t c = HEAD; c < 18; c++) {
            ck_assert_double_gt(fabs(pn_f32(weight(&r, "block.v_proj.weight"))[(h * 18 + c) * D]), 0);
            for (int64_t i = 0; i < D; i++) ck_assert_double_eq(pn_f32(o)[i * o->shape[1] + h * 18 + c], 0);
        }
        for (int64_t c = HEAD; c < 12; c++) {
            ck_assert_double_gt(fabs(q[(h * 12 + c) * D]), 0);
            for (int64_t i = 0; i < D; i++) ck_assert_double_eq(k[(h * 12 + c) * D + i], 0);
        }
    }
    close_rig(&r);
}
END_TEST

/* Twice the heads: each of attention's twice, at half the loudness. Half of them: every second one. */
START_TEST(other_numbers_of_heads) {
    static float own[TOKENS * D], base[TOKENS * D];
    rig r;
    open_rig(&r, &pn_block_gated_deltanet, (setting[SETTINGS]){ { "num_heads", "8" }, { "expand_v", "1" } });
    start(&r);
    expect_products(&r, 8, HEAD, HEAD);
    heads_of(&r, r.attention, "attention.o_proj.weight", base);
    heads_of(&r, r.block, "block.o_proj.weight", own);
    for (int64_t h = 0; h < D / HEAD; h++)
        ck_assert_double_eq_tol(column_scale(&r, "block.o_proj.weight", h, h / 2) * rms(own, h) / rms(base, h / 2), 0.5,
                                1e-4);
    close_rig(&r);

    open_rig(&r, &pn_block_gated_deltanet,
             (setting[SETTINGS]){ { "num_heads", "2" }, { "num_v_heads", "4" }, { "expand_v", "1" } });
    start(&r);
    for (int64_t c = 0; c < HEAD; c++) {
        expect_row(&r, "block.q_proj.weight", HEAD + c, "attention.q_proj.weight", 2 * HEAD + c);
        expect_row(&r, "block.v_proj.weight", 3 * HEAD + c, "attention.v_proj.weight", HEAD + c);
    }
    heads_of(&r, r.attention, "attention.o_proj.weight", base);
    heads_of(&r, r.block, "block.o_proj.weight", own);
    for (int64_t h = 0; h < HQ; h++)
        ck_assert_double_eq_tol(column_scale(&r, "block.o_proj.weight", h, h) * rms(own, h) / rms(base, h), 1, 1e-4);
    close_rig(&r);
}
END_TEST

START_TEST(biases_are_kept_where_there_is_a_place) {
    rig r;
    open_rig(&r, &pn_block_gated_deltanet, (setting[SETTINGS]){ { "qkv_bias", "true" }, { "expand_v", "2" } });
    start(&r);
    for (int64_t h = 0; h < HQ; h++)
        for (int64_t c = 0; c < 2 * HEAD; c++) {
            float v = pn_f32(weight(&r, "block.v_proj.bias"))[h * 2 * HEAD + c];
            ck_assert_double_eq(v, c < HEAD ? pn_f32(weight(&r, "attention.v_proj.bias"))[h / 2 * HEAD + c] : 0);
            if (c >= HEAD) continue;
            ck_assert_double_eq(pn_f32(weight(&r, "block.k_proj.bias"))[h * HEAD + c],
                                pn_f32(weight(&r, "attention.k_proj.bias"))[h / 2 * HEAD + c]);
        }
    close_rig(&r);
    open_rig(&r, &pn_block_mamba2,
             (setting[SETTINGS]){ { "expand", "1" }, { "head_dim", "8" }, { "use_bias", "true" } });
    start(&r); /* one group: keys and queries of attention's first head, 128 channels wide */
    const float *bias = pn_f32(weight(&r, "block.in_proj.bias"));
    for (int64_t c = 0; c < HEAD; c++) {
        ck_assert_double_eq(bias[2 * D + c], pn_f32(weight(&r, "attention.k_proj.bias"))[c]);
        ck_assert_double_eq(bias[2 * D + 128 + c], pn_f32(weight(&r, "attention.q_proj.bias"))[c]);
    }
    close_rig(&r);
}
END_TEST

/* ---- a super-network ---- */

static const int64_t from_attention[] = { PN_START_ATTENTION }, at_random[] = { PN_START_RANDOM };

static pn_status train_from(pn_model *m, const pn_supernet_config *c, const int64_t *how, const char *dir,
                            pn_supernet_result *out) {
    const pn_supernet_job job = {
        .config = c, .mixture = mixture, .seed = 1, .start = how, .n_starts = 1, .full_attention = 1, .state_dir = dir
    };
    return pn_supernet_train(m, &job, out);
}

/* Stopped again and again, a run that starts from attention ends as an undisturbed one; the same state is not one of a
 * random start; nothing but candidates changes. */
START_TEST(resumed_starts_are_the_same) {
    setup();
    char dir[] = "/tmp/pn_start_XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(dir));
    pn_supernet_config c = one_phase(PN_SUPERNET_LOCAL, 256 * 6);
    for (int order = 0; order < 2; order++) {
        c.phase[0].order = order;
        pn_model *whole = tiny_supernet(), *random = tiny_supernet(), *fresh = tiny_supernet();
        pn_supernet_result first = { 0 }, again = { 0 }, drawn = { 0 };
        ck_ok(train_from(whole, &c, from_attention, NULL, &first));
        ck_ok(train_from(random, &c, at_random, NULL, &drawn));
        ck_assert(!same_weights(whole, random));
        ck_assert_int_gt(changed_candidates(whole, fresh), 0);
        for (int i = 0; i < first.n_errors; i++) {
            ck_assert_double_gt(first.error[i].start, 0);
            ck_assert_double_ne(first.error[i].start, drawn.error[i].start);
            ck_assert_double_eq(first.error[i].first, first.error[i].start); /* a tenth of 6 steps is one */
        }
        pn_status s = PN_INTERRUPTED;
        int stops = 0;
        for (; s == PN_INTERRUPTED; stops++) {
            pn_model *m = tiny_supernet();
            pn_interrupt_after(5 + (order == PN_ORDER_LAYER ? 6 + stops * 5 : 0));
            s = train_from(m, &c, from_attention, dir, &again);
            if (!s) {
                ck_assert(same_weights(whole, m));
                ck_assert_mem_eq(first.error, again.error, (size_t)first.n_errors * sizeof *first.error);
            }
            pn_supernet_result_free(&again);
            pn_model_destroy(&m);
        }
        pn_interrupt_after(0);
        ck_assert_int_eq(s, PN_OK);
        ck_assert_int_gt(stops, 2);
        ck_assert_int_eq(train_from(fresh, &c, at_random, dir, &again), PN_USAGE); /* another job's state */
        pn_supernet_result_free(&again);
        pn_supernet_result_free(&first);
        pn_supernet_result_free(&drawn);
        pn_model_destroy(&whole);
        pn_model_destroy(&random);
        pn_model_destroy(&fresh);
        ck_ok(pn_remove_tree(dir));
    }
    teardown();
}
END_TEST

/* What an earlier stage has trained, and frozen, stays: only the candidates of this one start. */
START_TEST(frozen_candidates_stay) {
    setup();
    const pn_supernet_config c = one_phase(PN_SUPERNET_SAMPLED, 256);
    pn_model *m = tiny_supernet(), *fresh = tiny_supernet();
    pn_supernet_result r = { 0 };
    pn_params_train(m->params, "model.layers.1.*", false);
    ck_ok(train_from(m, &c, from_attention, NULL, &r));
    for (int l = 0; l < 2; l++) {
        char name[80];
        snprintf(name, sizeof name, "model.layers.%d.candidates.gated_deltanet.q_proj.weight", l);
        const pn_tensor *a = pn_params_find(m->params, name)->value, *b = pn_params_find(fresh->params, name)->value;
        ck_assert_int_eq(memcmp(pn_data(a), pn_data(b), pn_tensor_bytes(a)) == 0, l == 1);
    }
    pn_supernet_result_free(&r);
    pn_model_destroy(&m);
    pn_model_destroy(&fresh);
    teardown();
}
END_TEST

/* The other modes start so as well, and a second phase does not start again. */
START_TEST(every_mode_starts_from_attention) {
    setup();
    static const pn_supernet_mode modes[] = { PN_SUPERNET_SAMPLED, PN_SUPERNET_GATED };
    for (int k = 0; k < 2; k++) {
        pn_supernet_config c = one_phase(modes[k], 256 * 2);
        pn_model *m[] = { tiny_supernet(), tiny_supernet(), tiny_supernet() };
        pn_supernet_result r = { 0 };
        for (int i = 0; i < 2; i++) {
            ck_ok(train_from(m[i], &c, i ? at_random : from_attention, NULL, &r));
            pn_supernet_result_free(&r);
        }
        const char *name = "model.layers.1.candidates.gated_deltanet.A_log";
        const float *a = pn_f32(pn_params_find(m[0]->params, name)->value);
        ck_assert_double_lt(fabs(a[0]), 0.02); /* slow, and two small updates */
        ck_assert(!same_weights(m[0], m[1]));

        pn_supernet_config two = one_phase(PN_SUPERNET_LOCAL, 256 * 2);
        two.phase[1] = c.phase[0];
        two.phase[1].train.schedule.learning_rate = 1e-12;
        two.n_phases = 2;
        pn_supernet_config one = one_phase(PN_SUPERNET_LOCAL, 256 * 2);
        pn_model *then = tiny_supernet();
        ck_ok(train_from(then, &two, from_attention, NULL, &r));
        pn_supernet_result_free(&r);
        ck_ok(train_from(m[2], &one, from_attention, NULL, &r));
        pn_supernet_result_free(&r);
        const char *moved = "model.layers.1.candidates.gated_deltanet.q_proj.weight";
        const float *x = pn_f32(pn_params_find(then->params, moved)->value);
        const float *y = pn_f32(pn_params_find(m[2]->params, moved)->value);
        for (int i = 0; i < 32 * 32; i++) ck_assert_double_eq_tol(x[i], y[i], 1e-6);
        pn_model_destroy(&then);
        for (int i = 0; i < 3; i++) pn_model_destroy(&m[i]);
    }
    teardown();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("from attention");
    TCase *c = tcase_create("from attention");
    tcase_set_timeout(c, 240);
    tcase_add_loop_test(c, shapes_that_agree_are_copied, 0, sizeof exact / sizeof *exact);
    tcase_add_test(c, the_best_channels_of_a_product);
    tcase_add_test(c, narrow_heads_keep_products_of_low_rank);
    tcase_add_test(c, wide_heads_are_the_same_products);
    tcase_add_test(c, other_numbers_of_heads);
    tcase_add_test(c, biases_are_kept_where_there_is_a_place);
    tcase_add_test(c, resumed_starts_are_the_same);
    tcase_add_test(c, frozen_candidates_stay);
    tcase_add_test(c, every_mode_starts_from_attention);
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK_GETENV);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
