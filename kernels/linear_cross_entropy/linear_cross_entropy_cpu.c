#include <math.h>
#include <string.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/logits.h"
#include "infer.h"
#include "linear_cross_entropy.h"

/* Rows that count are gathered, so an ignored token (a prompt, padding) costs nothing. */
typedef struct work {
    int32_t *row;        /* [N] which rows count */
    float *h, *dh;       /* [PN_LOGIT_ROWS, D] the rows of one tile; dh in backward */
    float *tile;         /* [PN_LOGIT_ROWS, PN_LOGIT_COLS] logits, then their gradient */
    pn_online_sum *sum;  /* [PN_LOGIT_ROWS] forward */
    float *target_logit; /* [PN_LOGIT_ROWS] forward */
} work;

static size_t carve(const pn_op_call *c, bool backward, work *w) {
    size_t N = (size_t)c->in[0]->shape[0], D = (size_t)c->in[0]->shape[1], V = (size_t)c->in[1]->shape[0];
    size_t rows = N < PN_LOGIT_ROWS ? N : PN_LOGIT_ROWS, cols = V < PN_LOGIT_COLS ? V : PN_LOGIT_COLS;
    pn_carve s = { .base = c->scratch };
    w->row = pn_carve_take(&s, N * sizeof *w->row);
    w->h = pn_carve_take(&s, rows * D * sizeof *w->h);
    w->tile = pn_carve_take(&s, rows * cols * sizeof *w->tile);
    if (backward) {
        w->dh = pn_carve_take(&s, rows * D * sizeof *w->dh);
    } else {
        w->sum = pn_carve_take(&s, rows * sizeof *w->sum);
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
        *total += weight ? (double)weight[i] : 1;
        if (skip_zero_weight && weight && weight[i] == 0) continue;
        row[n++] = (int32_t)i;
    }
    return n;
}

/* Log-sum-exp and target logit of `rows` gathered rows. */
static void forward_rows(const pn_op_call *c, const work *w, const int32_t *row, int64_t rows) {
    const int32_t *target = pn_i32(c->in[2]);
    int64_t D = c->in[0]->shape[1], V = c->in[1]->shape[0];
    for (int64_t r = 0; r < rows; r++) w->sum[r] = (pn_online_sum){ .max = -INFINITY };
    for (int64_t v0 = 0; v0 < V; v0 += PN_LOGIT_COLS) {
        int64_t cols = V - v0 < PN_LOGIT_COLS ? V - v0 : PN_LOGIT_COLS;
        pn_logits_tile(w->tile, w->h, rows, pn_f32(c->in[1]), v0, cols, D);
#pragma omp parallel for schedule(static) if (rows * cols > 16384)
        for (int64_t r = 0; r < rows; r++) {
            const float *z = w->tile + r * cols;
            int64_t v = target[row[r]] - v0;
            if (v >= 0 && v < cols) w->target_logit[r] = z[v];
            pn_online_add(&w->sum[r], z, cols, 1);
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
        forward_rows(c, &w, w.row + n0, rows);
        for (int64_t r = 0; r < rows; r++) {
            int32_t at = w.row[n0 + r];
            double row_lse = pn_online_lse(&w.sum[r]), row_nll = row_lse - w.target_logit[r];
            lse[at] = (float)row_lse;
            nll[at] = (float)row_nll;
            sum += (weight ? (double)weight[at] : 1) * row_nll;
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

static void backward_rows(const pn_op_call *c, const work *w, const int32_t *row, int64_t rows, double scale) {
    const int32_t *target = pn_i32(c->in[2]);
    const float *weight = pn_f32_or_null(c->in[3]), *lse = pn_f32(c->out[2]);
    int64_t D = c->in[0]->shape[1], V = c->in[1]->shape[0];
    for (int64_t v0 = 0; v0 < V; v0 += PN_LOGIT_COLS) {
        int64_t cols = V - v0 < PN_LOGIT_COLS ? V - v0 : PN_LOGIT_COLS;
        pn_logits_tile(w->tile, w->h, rows, pn_f32(c->in[1]), v0, cols, D);
#pragma omp parallel for schedule(static) if (rows * cols > 16384)
        for (int64_t r = 0; r < rows; r++) {
            float *z = w->tile + r * cols, k = (float)(scale * (weight ? (double)weight[row[r]] : 1));
            int64_t v = target[row[r]] - v0;
            scaled_softmax(z, cols, lse[row[r]], k);
            if (v >= 0 && v < cols) z[v] -= k;
        }
        pn_logits_tile_backward(w->tile, w->h, rows, pn_f32(c->in[1]), v0, cols, D, c->din[0] ? w->dh : NULL,
                                pn_f32_or_null(c->din[1]));
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
        if (c->din[0]) memset(w.dh, 0, (size_t)(rows * D) * sizeof *w.dh);
        backward_rows(c, &w, w.row + n0, rows, pn_f32(c->dout[0])[0] / total);
        if (c->din[0]) pn_scatter_add_rows(pn_f32(c->din[0]), w.dh, w.row + n0, rows, D);
    }
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = "linear_cross_entropy/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const linear_cross_entropy_cpu[];
const pn_op_impl *const linear_cross_entropy_cpu[] = { &impl, NULL };
