/* What bounds it: products of sgemm, as in linear_cross_entropy; what a listed word costs is nothing beside a row's. */
#include <math.h>
#include <string.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/logits.h"
#include "infer.h"
#include "linear_kl_topk.h"

typedef struct work {    /* R = PN_LOGIT_ROWS at most */
    int parts;           /* P, of the vocabulary */
    int64_t rows, cols;  /* R and the width of a tile */
    float *tile;         /* [P, R, cols] logits, which become their gradient */
    pn_online_sum *tail; /* [P, R] over the words that are not listed; forward */
    int32_t *row;        /* [N] rows with a gradient; backward */
    float *h, *dh;       /* [R, D] those rows, [P, R, D]; backward */
} work;

static size_t carve(const pn_op_call *c, bool backward, work *w) {
    int64_t N = c->in[0]->shape[0], V = c->in[1]->shape[0];
    size_t D = (size_t)c->in[0]->shape[1];
    w->parts = pn_vocab_parts(V);
    w->rows = N < PN_LOGIT_ROWS ? N : PN_LOGIT_ROWS;
    w->cols = V < PN_LOGIT_COLS ? V : PN_LOGIT_COLS;
    size_t rows = (size_t)w->rows, all = (size_t)w->parts * rows;
    pn_carve s = { .base = c->scratch };
    w->tile = pn_carve_take(&s, all * (size_t)w->cols * sizeof *w->tile);
    if (backward) {
        w->row = pn_carve_take(&s, (size_t)N * sizeof *w->row);
        w->h = pn_carve_take(&s, rows * D * sizeof *w->h);
        w->dh = pn_carve_take(&s, all * D * sizeof *w->dh);
    } else {
        w->tail = pn_carve_take(&s, all * sizeof *w->tail);
    }
    return s.n_bytes;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    pn_op_call counting = *c;
    counting.scratch = NULL;
    return carve(&counting, backward, &(work){ 0 });
}

static double tau_of(const pn_op_call *c) {
    return ((const pn_linear_kl_topk_attr *)c->attr)->temperature;
}

/* The first of the k ids, which ascend, that is not below v. */
static int64_t first_from(const int32_t *ids, int64_t k, int64_t v) {
    int64_t low = 0, high = k;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (ids[middle] < v)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Logits z of words v0 .. v0 + cols - 1 of row n: the listed ones are kept, the others are summed. */
static void add_tile_row(const pn_op_call *c, pn_online_sum *tail, float *z, int64_t n, int64_t v0, int64_t cols) {
    int64_t k = c->in[2]->shape[1];
    const int32_t *ids = pn_i32(c->in[2]) + n * k;
    float *listed = pn_f32(c->out[2]) + n * k;
    for (int64_t j = first_from(ids, k, v0); j < k && ids[j] < v0 + cols; j++) {
        listed[j] = z[ids[j] - v0];
        z[ids[j] - v0] = -INFINITY;
    }
    float max = pn_row_max(z, cols);
    if (max > -INFINITY) pn_online_add(tail, z, cols, (float)(1 / tau_of(c)), max);
}

/* One part of the vocabulary for rows n0 .. n0 + n - 1. */
static void forward_part(const pn_op_call *c, const work *w, int part, int64_t n0, int64_t n) {
    int64_t V = c->in[1]->shape[0], end = pn_vocab_begin(V, w->parts, part + 1), D = c->in[0]->shape[1];
    float *tile = w->tile + part * w->rows * w->cols;
    pn_online_sum *tail = w->tail + part * w->rows;
    for (int64_t r = 0; r < n; r++) tail[r] = (pn_online_sum){ .max = -INFINITY };
    for (int64_t v0 = pn_vocab_begin(V, w->parts, part); v0 < end; v0 += PN_LOGIT_COLS) {
        int64_t cols = end - v0 < PN_LOGIT_COLS ? end - v0 : PN_LOGIT_COLS;
        pn_logits_tile(tile, pn_f32(c->in[0]) + n0 * D, n, pn_f32(c->in[1]), v0, cols, D);
        for (int64_t r = 0; r < n; r++) add_tile_row(c, &tail[r], tile + r * cols, n0 + r, v0, cols);
    }
}

/* kl of a row whose tail, if it has one, is summed and whose listed logits stand in their output. */
static double finish_row(const pn_op_call *c, const pn_online_sum *tail, int64_t n) {
    int64_t k = c->in[2]->shape[1];
    const bool tailed = k < c->in[1]->shape[0];
    const float *log_p = pn_f32(c->in[3]) + n * k, *listed = pn_f32(c->out[2]) + n * k;
    float *sums = pn_f32(c->out[3]) + n * PN_TOPK_SUMS;
    double scale = 1 / tau_of(c), most = tailed ? (double)tail->max : -INFINITY;
    for (int64_t j = 0; j < k; j++) most = fmax(most, scale * listed[j]);
    double all = tailed ? tail->sum * exp(tail->max - most) : 0, p = 0, kl = 0;
    for (int64_t j = 0; j < k; j++) {
        double p_j = exp((double)log_p[j]);
        all += exp(scale * listed[j] - most);
        p += p_j;
        kl += p_j * (log_p[j] - scale * listed[j]);
    }
    double lse = most + log(all), lse_tail = tailed ? pn_online_lse(tail) : lse;
    double p_tail = tailed ? fmax(0, 1 - p) : 0;
    sums[PN_TOPK_LSE] = (float)lse;
    sums[PN_TOPK_LSE_TAIL] = (float)lse_tail;
    sums[PN_TOPK_P_TAIL] = (float)p_tail;
    sums[PN_TOPK_P_ALL] = (float)(p + p_tail);
    return kl + p * lse + (p_tail > 0 ? p_tail * (log(p_tail) - (lse_tail - lse)) : 0);
}

static pn_status forward(const pn_op_call *c) {
    const float *weight = pn_f32_or_null(c->in[4]);
    int64_t N = c->in[0]->shape[0];
    double tau = tau_of(c), sum = 0, total = pn_loss_weights(weight, N);
    work w;
    carve(c, false, &w);
    PN_TRY(pn_need_ascending("linear_kl_topk", "id", c->in[2], c->in[1]->shape[0]));
    PN_TRY(pn_need_weights("linear_kl_topk", c->in[4]));
    for (int64_t n0 = 0; n0 < N; n0 += PN_LOGIT_ROWS) {
        int64_t rows = N - n0 < PN_LOGIT_ROWS ? N - n0 : PN_LOGIT_ROWS;
#pragma omp parallel for schedule(static, 1) num_threads(w.parts)
        for (int p = 0; p < w.parts; p++) forward_part(c, &w, p, n0, rows);
        for (int64_t r = 0; r < rows; r++) {
            for (int p = 1; p < w.parts; p++)
                if (w.tail[p * w.rows + r].sum > 0) pn_online_merge(&w.tail[r], &w.tail[p * w.rows + r]);
            double kl = finish_row(c, &w.tail[r], n0 + r);
            pn_f32(c->out[1])[n0 + r] = (float)kl;
            sum += pn_loss_weight(weight, n0 + r) * kl;
        }
    }
    pn_f32(c->out[0])[0] = total > 0 ? (float)(tau * tau * sum / total) : 0;
    return PN_OK;
}

/* z becomes factor (P q - p_tail exp(y - lse_tail)), which holds for the words that are not listed; of these alone y is
 * not above lse_tail. */
PN_CLONES static void tail_gradient(float *z, int64_t n, float scale, const float *sums, float factor) {
    const float lse = sums[PN_TOPK_LSE], lse_tail = sums[PN_TOPK_LSE_TAIL];
    const float all = factor * sums[PN_TOPK_P_ALL], tail = factor * sums[PN_TOPK_P_TAIL];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float of_tail = pn_fmaf(scale, z[i], -lse_tail);
        of_tail = of_tail > 0 ? 0 : of_tail;
        z[i] = all * pn_expf(pn_fmaf(scale, z[i], -lse)) - tail * pn_expf(of_tail);
    }
}

/* The gradients of row n for words v0 .. v0 + cols - 1, in place of logits. */
static void gradient_row(const pn_op_call *c, float *z, int64_t n, int64_t v0, int64_t cols, float factor) {
    int64_t k = c->in[2]->shape[1];
    const int32_t *ids = pn_i32(c->in[2]) + n * k;
    const float *log_p = pn_f32(c->in[3]) + n * k, *listed = pn_f32(c->out[2]) + n * k;
    const float *sums = pn_f32(c->out[3]) + n * PN_TOPK_SUMS, scale = (float)(1 / tau_of(c));
    tail_gradient(z, cols, scale, sums, factor);
    for (int64_t j = first_from(ids, k, v0); j < k && ids[j] < v0 + cols; j++)
        z[ids[j] - v0] =
            factor * (sums[PN_TOPK_P_ALL] * pn_expf(pn_fmaf(scale, listed[j], -sums[PN_TOPK_LSE])) - pn_expf(log_p[j]));
}

/* One part: its rows of dW, and what it adds to dh. */
static void backward_part(const pn_op_call *c, const work *w, int part, const int32_t *row, int64_t n, double factor) {
    const float *W = pn_f32(c->in[1]), *weight = pn_f32_or_null(c->in[4]);
    int64_t V = c->in[1]->shape[0], end = pn_vocab_begin(V, w->parts, part + 1), D = c->in[0]->shape[1];
    float *tile = w->tile + part * w->rows * w->cols, *dh = c->din[0] ? w->dh + part * w->rows * D : NULL;
    if (dh) memset(dh, 0, (size_t)(n * D) * sizeof *dh);
    for (int64_t v0 = pn_vocab_begin(V, w->parts, part); v0 < end; v0 += PN_LOGIT_COLS) {
        int64_t cols = end - v0 < PN_LOGIT_COLS ? end - v0 : PN_LOGIT_COLS;
        pn_logits_tile(tile, w->h, n, W, v0, cols, D);
        for (int64_t r = 0; r < n; r++)
            gradient_row(c, tile + r * cols, row[r], v0, cols, (float)(factor * pn_loss_weight(weight, row[r])));
        pn_logits_tile_backward(tile, w->h, n, W, v0, cols, D, dh, pn_f32_or_null(c->din[1]));
    }
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || (!c->din[0] && !c->din[1])) return PN_OK;
    const float *weight = pn_f32_or_null(c->in[4]);
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1], n = 0;
    double total = pn_loss_weights(weight, N);
    work w;
    carve(c, true, &w);
    for (int64_t i = 0; i < N; i++)
        if (pn_loss_weight(weight, i) > 0) w.row[n++] = (int32_t)i;
    for (int64_t n0 = 0; n0 < n; n0 += PN_LOGIT_ROWS) {
        int64_t rows = n - n0 < PN_LOGIT_ROWS ? n - n0 : PN_LOGIT_ROWS;
        pn_gather_rows(w.h, pn_f32(c->in[0]), w.row + n0, rows, D);
        double factor = tau_of(c) * pn_f32(c->dout[0])[0] / total;
#pragma omp parallel for schedule(static, 1) num_threads(w.parts)
        for (int p = 0; p < w.parts; p++) backward_part(c, &w, p, w.row + n0, rows, factor);
        if (c->din[0]) pn_scatter_add_parts(pn_f32(c->din[0]), w.dh, w.parts, w.rows * D, w.row + n0, rows, D);
    }
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = "linear_kl_topk/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const linear_kl_topk_cpu[];
const pn_op_impl *const linear_kl_topk_cpu[] = { &impl, NULL };
