#include <math.h>
#include <string.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/logits.h"
#include "infer.h"
#include "linear_kl.h"

/* What a row needs of its teacher beside the log-sum-exp: cross = sum_v exp(z_t - max) (z_t - z_s), so that
 * kl = cross / sum - lse_t + lse_s. */
typedef struct kl_sums {
    pn_online_sum student, teacher;
    double cross;
} kl_sums;

typedef struct work {
    int32_t *row;             /* [N] rows with a gradient; backward */
    float *h_s, *h_t, *dh;    /* [PN_LOGIT_ROWS, D or D_t] those rows; backward */
    float *student, *teacher; /* [PN_LOGIT_ROWS, PN_LOGIT_COLS] logits; the student's becomes its gradient */
    kl_sums *sums;            /* [PN_LOGIT_ROWS] forward */
} work;

static size_t carve(const pn_op_call *c, bool backward, work *w) {
    size_t N = (size_t)c->in[0]->shape[0], V = (size_t)c->in[1]->shape[0];
    size_t D = (size_t)c->in[0]->shape[1], D_t = (size_t)c->in[2]->shape[1];
    size_t rows = N < PN_LOGIT_ROWS ? N : PN_LOGIT_ROWS, cols = V < PN_LOGIT_COLS ? V : PN_LOGIT_COLS;
    pn_carve s = { .base = c->scratch };
    w->student = pn_carve_take(&s, rows * cols * sizeof *w->student);
    w->teacher = pn_carve_take(&s, rows * cols * sizeof *w->teacher);
    if (backward) {
        w->row = pn_carve_take(&s, N * sizeof *w->row);
        w->h_s = pn_carve_take(&s, rows * D * sizeof *w->h_s);
        w->h_t = pn_carve_take(&s, rows * D_t * sizeof *w->h_t);
        w->dh = pn_carve_take(&s, rows * D * sizeof *w->dh);
    } else {
        w->sums = pn_carve_take(&s, rows * sizeof *w->sums);
    }
    return s.n_bytes;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    pn_op_call counting = *c;
    counting.scratch = NULL;
    return carve(&counting, backward, &(work){ 0 });
}

static double row_weight(const pn_op_call *c, int64_t n) {
    return c->in[4] ? (double)pn_f32(c->in[4])[n] : 1;
}

static double total_weight(const pn_op_call *c) {
    double total = 0;
    for (int64_t n = 0, N = c->in[0]->shape[0]; n < N; n++) total += row_weight(c, n);
    return total;
}

/* Both logits of `rows` rows and `cols` words. */
static void both_tiles(const pn_op_call *c, const work *w, const float *h_s, const float *h_t, int64_t rows, int64_t v0,
                       int64_t cols) {
    pn_logits_tile(w->student, h_s, rows, pn_f32(c->in[1]), v0, cols, c->in[0]->shape[1]);
    pn_logits_tile(w->teacher, h_t, rows, pn_f32(c->in[3]), v0, cols, c->in[2]->shape[1]);
}

/* Adds sum exp(scale z_t - max) and sum exp(scale z_t - max) scale (z_t - z_s). */
PN_CLONES static void teacher_sums(const float *z_t, const float *z_s, int64_t n, float scale, float max, double *sum,
                                   double *cross) {
    float s = 0, x = 0;
#pragma omp simd reduction(+ : s, x)
    for (int64_t i = 0; i < n; i++) {
        float e = pn_exp_nonposf(pn_fmaf(scale, z_t[i], -max));
        s += e;
        x = pn_fmaf(e, z_t[i] - z_s[i], x);
    }
    *sum += s;
    *cross += (double)scale * x;
}

static void add_tile_row(kl_sums *k, const float *z_s, const float *z_t, int64_t n, float scale) {
    pn_online_add(&k->student, z_s, n, scale);
    float max = scale * pn_row_max(z_t, n);
    if (max > k->teacher.max) {
        double shrink = exp((double)k->teacher.max - max);
        k->teacher.sum *= shrink;
        k->cross *= shrink;
        k->teacher.max = max;
    }
    teacher_sums(z_t, z_s, n, scale, k->teacher.max, &k->teacher.sum, &k->cross);
}

static void forward_rows(const pn_op_call *c, const work *w, int64_t n0, int64_t rows, float scale) {
    int64_t V = c->in[1]->shape[0];
    const float *h_s = pn_f32(c->in[0]) + n0 * c->in[0]->shape[1], *h_t = pn_f32(c->in[2]) + n0 * c->in[2]->shape[1];
    for (int64_t r = 0; r < rows; r++) w->sums[r] = (kl_sums){ .student.max = -INFINITY, .teacher.max = -INFINITY };
    for (int64_t v0 = 0; v0 < V; v0 += PN_LOGIT_COLS) {
        int64_t cols = V - v0 < PN_LOGIT_COLS ? V - v0 : PN_LOGIT_COLS;
        both_tiles(c, w, h_s, h_t, rows, v0, cols);
#pragma omp parallel for schedule(static) if (rows * cols > 16384)
        for (int64_t r = 0; r < rows; r++)
            add_tile_row(&w->sums[r], w->student + r * cols, w->teacher + r * cols, cols, scale);
    }
}

static pn_status forward(const pn_op_call *c) {
    double tau = ((const pn_linear_kl_attr *)c->attr)->temperature, sum = 0, total = total_weight(c);
    int64_t N = c->in[0]->shape[0];
    float *kl = pn_f32(c->out[1]), *lse = pn_f32(c->out[2]);
    work w;
    carve(c, false, &w);
    PN_TRY(pn_need_weights("linear_kl", c->in[4]));
    for (int64_t n0 = 0; n0 < N; n0 += PN_LOGIT_ROWS) {
        int64_t rows = N - n0 < PN_LOGIT_ROWS ? N - n0 : PN_LOGIT_ROWS;
        forward_rows(c, &w, n0, rows, (float)(1 / tau));
        for (int64_t r = 0; r < rows; r++) {
            const kl_sums *k = &w.sums[r];
            double lse_s = pn_online_lse(&k->student), lse_t = pn_online_lse(&k->teacher);
            double row_kl = k->cross / k->teacher.sum - lse_t + lse_s;
            lse[2 * (n0 + r)] = (float)lse_s;
            lse[2 * (n0 + r) + 1] = (float)lse_t;
            kl[n0 + r] = (float)row_kl;
            sum += row_weight(c, n0 + r) * row_kl;
        }
    }
    pn_f32(c->out[0])[0] = total > 0 ? (float)(tau * tau * sum / total) : 0;
    return PN_OK;
}

/* z_s becomes k (softmax(scale z_s) - softmax(scale z_t)). */
PN_CLONES static void softmax_difference(float *z_s, const float *z_t, int64_t n, float scale, float lse_s, float lse_t,
                                         float k) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float q = pn_expf(pn_fmaf(scale, z_s[i], -lse_s)), p = pn_expf(pn_fmaf(scale, z_t[i], -lse_t));
        z_s[i] = k * (q - p);
    }
}

static void backward_rows(const pn_op_call *c, const work *w, const int32_t *row, int64_t rows, double k) {
    const float *lse = pn_f32(c->out[2]), *W = pn_f32(c->in[1]);
    float scale = (float)(1 / ((const pn_linear_kl_attr *)c->attr)->temperature);
    int64_t D = c->in[0]->shape[1], V = c->in[1]->shape[0];
    for (int64_t v0 = 0; v0 < V; v0 += PN_LOGIT_COLS) {
        int64_t cols = V - v0 < PN_LOGIT_COLS ? V - v0 : PN_LOGIT_COLS;
        both_tiles(c, w, w->h_s, w->h_t, rows, v0, cols);
#pragma omp parallel for schedule(static) if (rows * cols > 16384)
        for (int64_t r = 0; r < rows; r++)
            softmax_difference(w->student + r * cols, w->teacher + r * cols, cols, scale, lse[2 * row[r]],
                               lse[2 * row[r] + 1], (float)(k * row_weight(c, row[r])));
        pn_logits_tile_backward(w->student, w->h_s, rows, W, v0, cols, D, c->din[0] ? w->dh : NULL,
                                pn_f32_or_null(c->din[1]));
    }
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || (!c->din[0] && !c->din[1])) return PN_OK;
    double tau = ((const pn_linear_kl_attr *)c->attr)->temperature, total = total_weight(c);
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1], n = 0;
    work w;
    carve(c, true, &w);
    for (int64_t i = 0; i < N; i++)
        if (row_weight(c, i) > 0) w.row[n++] = (int32_t)i;
    for (int64_t n0 = 0; n0 < n; n0 += PN_LOGIT_ROWS) {
        int64_t rows = n - n0 < PN_LOGIT_ROWS ? n - n0 : PN_LOGIT_ROWS;
        pn_gather_rows(w.h_s, pn_f32(c->in[0]), w.row + n0, rows, D);
        pn_gather_rows(w.h_t, pn_f32(c->in[2]), w.row + n0, rows, c->in[2]->shape[1]);
        if (c->din[0]) memset(w.dh, 0, (size_t)(rows * D) * sizeof *w.dh);
        backward_rows(c, &w, w.row + n0, rows, tau * pn_f32(c->dout[0])[0] / total);
        if (c->din[0]) pn_scatter_add_rows(pn_f32(c->din[0]), w.dh, w.row + n0, rows, D);
    }
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = "linear_kl/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const linear_kl_cpu[];
const pn_op_impl *const linear_kl_cpu[] = { &impl, NULL };
