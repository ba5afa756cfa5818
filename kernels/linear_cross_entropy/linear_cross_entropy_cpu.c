/* What bounds it: products of sgemm. Backward makes the logits again for the two useful products dh and dW, so it can
 * come to two thirds of sgemm, and to half when W is frozen; at 512 x 576 -> 49152 it comes to 0.6. */
#include <math.h>
#include <string.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/logits.h"
#include "infer.h"
#include "linear_cross_entropy.h"

/* Rows that count are gathered, so an ignored token (a prompt, padding) costs nothing. R = PN_LOGIT_ROWS at most. */
typedef struct work {
    int parts;           /* P, of the vocabulary */
    int64_t rows, cols;  /* R and the width of a tile */
    int32_t *row;        /* [N] which rows count */
    float *h, *dh;       /* [R, D] gathered rows; [P, R, D] backward */
    float *tile;         /* [P, R, cols] logits, then their gradient */
    pn_online_sum *sum;  /* [P, R] forward */
    float *target_logit; /* [R] forward */
} work;

static size_t carve(const pn_op_call *c, bool backward, work *w) {
    int64_t N = c->in[0]->shape[0], V = c->in[1]->shape[0];
    size_t D = (size_t)c->in[0]->shape[1];
    w->parts = pn_vocab_parts(V);
    w->rows = N < PN_LOGIT_ROWS ? N : PN_LOGIT_ROWS;
    w->cols = V < PN_LOGIT_COLS ? V : PN_LOGIT_COLS;
    size_t rows = (size_t)w->rows, all = (size_t)w->parts * rows;
    pn_carve s = { .base = c->scratch };
    w->row = pn_carve_take(&s, (size_t)N * sizeof *w->row);
    w->h = pn_carve_take(&s, rows * D * sizeof *w->h);
    w->tile = pn_carve_take(&s, all * (size_t)w->cols * sizeof *w->tile);
    if (backward) {
        w->dh = pn_carve_take(&s, all * D * sizeof *w->dh);
    } else {
        w->sum = pn_carve_take(&s, all * sizeof *w->sum);
        w->target_logit = pn_carve_take(&s, rows * sizeof *w->target_logit);
    }
    return s.n_bytes;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    pn_op_call counting = *c;
    counting.scratch = NULL;
    return carve(&counting, backward, &(work){ 0 });
}

/* Lists the rows that are not ignored, in order, and sums their weights. */
static int64_t active_rows(const pn_op_call *c, bool skip_zero_weight, int32_t *row, double *total) {
    const int32_t *target = pn_i32(c->in[2]);
    const float *weight = pn_f32_or_null(c->in[3]);
    int64_t n = 0;
    *total = 0;
    for (int64_t i = 0, N = c->in[0]->shape[0]; i < N; i++) {
        if (target[i] == PN_IGNORE) continue;
        *total += pn_loss_weight(weight, i);
        if (skip_zero_weight && weight && weight[i] == 0) continue;
        row[n++] = (int32_t)i;
    }
    return n;
}

/* One part of the vocabulary for n gathered rows: its running sums, and the target's logit where the part has it. */
static void forward_part(const pn_op_call *c, const work *w, int part, const int32_t *row, int64_t n) {
    const int32_t *target = pn_i32(c->in[2]);
    int64_t D = c->in[0]->shape[1], V = c->in[1]->shape[0], end = pn_vocab_begin(V, w->parts, part + 1);
    float *tile = w->tile + part * w->rows * w->cols;
    pn_online_sum *sum = w->sum + part * w->rows;
    for (int64_t r = 0; r < n; r++) sum[r] = (pn_online_sum){ .max = -INFINITY };
    for (int64_t v0 = pn_vocab_begin(V, w->parts, part); v0 < end; v0 += PN_LOGIT_COLS) {
        int64_t cols = end - v0 < PN_LOGIT_COLS ? end - v0 : PN_LOGIT_COLS;
        pn_logits_tile(tile, w->h, n, pn_f32(c->in[1]), v0, cols, D);
        for (int64_t r = 0; r < n; r++) {
            int64_t v = target[row[r]] - v0;
            if (v >= 0 && v < cols) w->target_logit[r] = tile[r * cols + v];
            pn_online_add(&sum[r], tile + r * cols, cols, 1, pn_row_max(tile + r * cols, cols));
        }
    }
}

static pn_status forward(const pn_op_call *c) {
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1];
    const float *weight = pn_f32_or_null(c->in[3]);
    float *nll = pn_f32(c->out[1]), *lse = pn_f32(c->out[2]);
    double sum = 0, total;
    work w;
    carve(c, false, &w);
    PN_TRY(pn_need_ids("linear_cross_entropy", "target", c->in[2], PN_IGNORE, c->in[1]->shape[0]));
    PN_TRY(pn_need_weights("linear_cross_entropy", c->in[3]));
    int64_t n = active_rows(c, false, w.row, &total);
    memset(nll, 0, (size_t)N * sizeof *nll);
    memset(lse, 0, (size_t)N * sizeof *lse);
    for (int64_t n0 = 0; n0 < n; n0 += PN_LOGIT_ROWS) {
        int64_t rows = n - n0 < PN_LOGIT_ROWS ? n - n0 : PN_LOGIT_ROWS;
        pn_gather_rows(w.h, pn_f32(c->in[0]), w.row + n0, rows, D);
#pragma omp parallel for schedule(static, 1) num_threads(w.parts)
        for (int p = 0; p < w.parts; p++) forward_part(c, &w, p, w.row + n0, rows);
        for (int64_t r = 0; r < rows; r++) {
            for (int p = 1; p < w.parts; p++) pn_online_merge(&w.sum[r], &w.sum[p * w.rows + r]);
            int32_t at = w.row[n0 + r];
            double row_lse = pn_online_lse(&w.sum[r]), row_nll = row_lse - w.target_logit[r];
            lse[at] = (float)row_lse;
            nll[at] = (float)row_nll;
            sum += pn_loss_weight(weight, at) * row_nll;
        }
    }
    pn_f32(c->out[0])[0] = total > 0 ? (float)(sum / total) : 0;
    return PN_OK;
}

/* z becomes k softmax(z). */
PN_CLONES static void scaled_softmax(float *z, int64_t n, float lse, float k) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) z[i] = k * pn_expf(z[i] - lse);
}

/* One part: its rows of dW, and what it adds to dh. */
static void backward_part(const pn_op_call *c, const work *w, int part, const int32_t *row, int64_t n, double scale) {
    const int32_t *target = pn_i32(c->in[2]);
    const float *weight = pn_f32_or_null(c->in[3]), *lse = pn_f32(c->out[2]), *W = pn_f32(c->in[1]);
    int64_t D = c->in[0]->shape[1], V = c->in[1]->shape[0], end = pn_vocab_begin(V, w->parts, part + 1);
    float *tile = w->tile + part * w->rows * w->cols, *dh = c->din[0] ? w->dh + part * w->rows * D : NULL;
    if (dh) memset(dh, 0, (size_t)(n * D) * sizeof *dh);
    for (int64_t v0 = pn_vocab_begin(V, w->parts, part); v0 < end; v0 += PN_LOGIT_COLS) {
        int64_t cols = end - v0 < PN_LOGIT_COLS ? end - v0 : PN_LOGIT_COLS;
        pn_logits_tile(tile, w->h, n, W, v0, cols, D);
        for (int64_t r = 0; r < n; r++) {
            float *z = tile + r * cols, k = (float)(scale * pn_loss_weight(weight, row[r]));
            int64_t v = target[row[r]] - v0;
            scaled_softmax(z, cols, lse[row[r]], k);
            if (v >= 0 && v < cols) z[v] -= k;
        }
        pn_logits_tile_backward(tile, w->h, n, W, v0, cols, D, dh, pn_f32_or_null(c->din[1]));
    }
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || (!c->din[0] && !c->din[1])) return PN_OK;
    int64_t D = c->in[0]->shape[1];
    double total;
    work w;
    carve(c, true, &w);
    int64_t n = active_rows(c, true, w.row, &total);
    for (int64_t n0 = 0; n0 < n; n0 += PN_LOGIT_ROWS) {
        int64_t rows = n - n0 < PN_LOGIT_ROWS ? n - n0 : PN_LOGIT_ROWS;
        pn_gather_rows(w.h, pn_f32(c->in[0]), w.row + n0, rows, D);
        double scale = pn_f32(c->dout[0])[0] / total;
#pragma omp parallel for schedule(static, 1) num_threads(w.parts)
        for (int p = 0; p < w.parts; p++) backward_part(c, &w, p, w.row + n0, rows, scale);
        if (c->din[0]) pn_scatter_add_parts(pn_f32(c->din[0]), w.dh, w.parts, w.rows * D, w.row + n0, rows, D);
    }
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = "linear_cross_entropy/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const linear_cross_entropy_cpu[];
const pn_op_impl *const linear_cross_entropy_cpu[] = { &impl, NULL };
