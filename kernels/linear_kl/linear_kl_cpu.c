/* What bounds it: products of sgemm, over tiles of logits that stay in cache. Forward all of them are useful; backward
 * makes both tiles of logits again for the two useful products dh and dW, so it can come to half of sgemm, and to a
 * third when W is frozen; at 512 x 576 -> 49152 it comes to 0.43, its four products running at 0.86 of sgemm. Keeping
 * the logits instead would take 8 bytes per token and word; making the gradients in forward would make them twice
 * there, because no gradient is known before the log-sum-exp of the last word. */
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
    pn_first_choice student_first, teacher_first;
} kl_sums;

typedef struct work {         /* R = PN_LOGIT_ROWS at most */
    int parts;                /* P, of the vocabulary */
    int64_t rows, cols;       /* R and the width of a tile */
    float *student, *teacher; /* [P, R, cols] logits; the student's becomes its gradient */
    kl_sums *sums;            /* [P, R] forward */
    int32_t *row;             /* [N] rows with a gradient; backward */
    float *h_s, *h_t, *dh;    /* [R, D], [R, D_t] those rows, [P, R, D]; backward */
} work;

static size_t carve(const pn_op_call *c, bool backward, work *w) {
    int64_t N = c->in[0]->shape[0], V = c->in[1]->shape[0];
    size_t D = (size_t)c->in[0]->shape[1], D_t = (size_t)c->in[2]->shape[1];
    w->parts = pn_vocab_parts(V);
    w->rows = N < PN_LOGIT_ROWS ? N : PN_LOGIT_ROWS;
    w->cols = V < PN_LOGIT_COLS ? V : PN_LOGIT_COLS;
    size_t rows = (size_t)w->rows, all = (size_t)w->parts * rows;
    pn_carve s = { .base = c->scratch };
    w->student = pn_carve_take(&s, all * (size_t)w->cols * sizeof *w->student);
    w->teacher = pn_carve_take(&s, all * (size_t)w->cols * sizeof *w->teacher);
    if (backward) {
        w->row = pn_carve_take(&s, (size_t)N * sizeof *w->row);
        w->h_s = pn_carve_take(&s, rows * D * sizeof *w->h_s);
        w->h_t = pn_carve_take(&s, rows * D_t * sizeof *w->h_t);
        w->dh = pn_carve_take(&s, all * D * sizeof *w->dh);
    } else {
        w->sums = pn_carve_take(&s, all * sizeof *w->sums);
    }
    return s.n_bytes;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    pn_op_call counting = *c;
    counting.scratch = NULL;
    return carve(&counting, backward, &(work){ 0 });
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

/* Logits of words v0 .. v0 + n - 1 of one row. */
static void add_tile_row(kl_sums *k, const float *z_s, const float *z_t, int64_t v0, int64_t n, float scale) {
    float max_s = pn_row_max(z_s, n), max_t = pn_row_max(z_t, n);
    pn_choice_add(&k->student_first, z_s, v0, max_s);
    pn_choice_add(&k->teacher_first, z_t, v0, max_t);
    pn_online_add(&k->student, z_s, n, scale, max_s);
    k->cross *= pn_online_raise(&k->teacher, scale * max_t);
    teacher_sums(z_t, z_s, n, scale, k->teacher.max, &k->teacher.sum, &k->cross);
}

static void merge(kl_sums *k, const kl_sums *other) {
    pn_online_merge(&k->student, &other->student);
    k->cross *= pn_online_raise(&k->teacher, other->teacher.max);
    double shrink = exp((double)other->teacher.max - k->teacher.max);
    k->teacher.sum += shrink * other->teacher.sum;
    k->cross += shrink * other->cross;
    pn_choice_merge(&k->student_first, &other->student_first);
    pn_choice_merge(&k->teacher_first, &other->teacher_first);
}

/* One part of the vocabulary for rows n0 .. n0 + n - 1. */
static void forward_part(const pn_op_call *c, const work *w, int part, int64_t n0, int64_t n, float scale) {
    int64_t V = c->in[1]->shape[0], end = pn_vocab_begin(V, w->parts, part + 1);
    int64_t D = c->in[0]->shape[1], D_t = c->in[2]->shape[1], at = part * w->rows * w->cols;
    float *student = w->student + at, *teacher = w->teacher + at;
    kl_sums *sums = w->sums + part * w->rows;
    const pn_online_sum empty = { .max = -INFINITY };
    const pn_first_choice none = { .max = -INFINITY };
    for (int64_t r = 0; r < n; r++) sums[r] = (kl_sums){ empty, empty, 0, none, none };
    for (int64_t v0 = pn_vocab_begin(V, w->parts, part); v0 < end; v0 += PN_LOGIT_COLS) {
        int64_t cols = end - v0 < PN_LOGIT_COLS ? end - v0 : PN_LOGIT_COLS;
        pn_logits_tile(student, pn_f32(c->in[0]) + n0 * D, n, pn_f32(c->in[1]), v0, cols, D);
        pn_logits_tile(teacher, pn_f32(c->in[2]) + n0 * D_t, n, pn_f32(c->in[3]), v0, cols, D_t);
        for (int64_t r = 0; r < n; r++) add_tile_row(&sums[r], student + r * cols, teacher + r * cols, v0, cols, scale);
    }
}

static pn_status forward(const pn_op_call *c) {
    const float *weight = pn_f32_or_null(c->in[4]);
    int64_t N = c->in[0]->shape[0];
    double tau = ((const pn_linear_kl_attr *)c->attr)->temperature, sum = 0, total = pn_loss_weights(weight, N);
    float *kl = pn_f32(c->out[1]), *lse = pn_f32(c->out[2]);
    int32_t *first = pn_i32(c->out[3]);
    work w;
    carve(c, false, &w);
    PN_TRY(pn_need_weights("linear_kl", c->in[4]));
    for (int64_t n0 = 0; n0 < N; n0 += PN_LOGIT_ROWS) {
        int64_t rows = N - n0 < PN_LOGIT_ROWS ? N - n0 : PN_LOGIT_ROWS;
#pragma omp parallel for schedule(static, 1) num_threads(w.parts)
        for (int p = 0; p < w.parts; p++) forward_part(c, &w, p, n0, rows, (float)(1 / tau));
        for (int64_t r = 0; r < rows; r++) {
            kl_sums *k = &w.sums[r];
            for (int p = 1; p < w.parts; p++) merge(k, &w.sums[p * w.rows + r]);
            double lse_s = pn_online_lse(&k->student), lse_t = pn_online_lse(&k->teacher);
            double row_kl = k->cross / k->teacher.sum - lse_t + lse_s;
            lse[2 * (n0 + r)] = (float)lse_s;
            lse[2 * (n0 + r) + 1] = (float)lse_t;
            kl[n0 + r] = (float)row_kl;
            first[2 * (n0 + r)] = k->student_first.id;
            first[2 * (n0 + r) + 1] = k->teacher_first.id;
            sum += pn_loss_weight(weight, n0 + r) * row_kl;
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

/* One part: its rows of dW, and what it adds to dh. */
static void backward_part(const pn_op_call *c, const work *w, int part, const int32_t *row, int64_t n, double k) {
    const float *lse = pn_f32(c->out[2]), *W = pn_f32(c->in[1]), *weight = pn_f32_or_null(c->in[4]);
    float scale = (float)(1 / ((const pn_linear_kl_attr *)c->attr)->temperature);
    int64_t V = c->in[1]->shape[0], end = pn_vocab_begin(V, w->parts, part + 1);
    int64_t D = c->in[0]->shape[1], D_t = c->in[2]->shape[1], at = part * w->rows * w->cols;
    float *student = w->student + at, *teacher = w->teacher + at, *dh = c->din[0] ? w->dh + part * w->rows * D : NULL;
    if (dh) memset(dh, 0, (size_t)(n * D) * sizeof *dh);
    for (int64_t v0 = pn_vocab_begin(V, w->parts, part); v0 < end; v0 += PN_LOGIT_COLS) {
        int64_t cols = end - v0 < PN_LOGIT_COLS ? end - v0 : PN_LOGIT_COLS;
        pn_logits_tile(student, w->h_s, n, W, v0, cols, D);
        pn_logits_tile(teacher, w->h_t, n, pn_f32(c->in[3]), v0, cols, D_t);
        for (int64_t r = 0; r < n; r++)
            softmax_difference(student + r * cols, teacher + r * cols, cols, scale, lse[2 * row[r]],
                               lse[2 * row[r] + 1], (float)(k * pn_loss_weight(weight, row[r])));
        pn_logits_tile_backward(student, w->h_s, n, W, v0, cols, D, dh, pn_f32_or_null(c->din[1]));
    }
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || (!c->din[0] && !c->din[1])) return PN_OK;
    const float *weight = pn_f32_or_null(c->in[4]);
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1], n = 0;
    double tau = ((const pn_linear_kl_attr *)c->attr)->temperature, total = pn_loss_weights(weight, N);
    work w;
    carve(c, true, &w);
    for (int64_t i = 0; i < N; i++)
        if (pn_loss_weight(weight, i) > 0) w.row[n++] = (int32_t)i;
    for (int64_t n0 = 0; n0 < n; n0 += PN_LOGIT_ROWS) {
        int64_t rows = n - n0 < PN_LOGIT_ROWS ? n - n0 : PN_LOGIT_ROWS;
        pn_gather_rows(w.h_s, pn_f32(c->in[0]), w.row + n0, rows, D);
        pn_gather_rows(w.h_t, pn_f32(c->in[2]), w.row + n0, rows, c->in[2]->shape[1]);
        double k = tau * pn_f32(c->dout[0])[0] / total;
#pragma omp parallel for schedule(static, 1) num_threads(w.parts)
        for (int p = 0; p < w.parts; p++) backward_part(c, &w, p, w.row + n0, rows, k);
        if (c->din[0]) pn_scatter_add_parts(pn_f32(c->din[0]), w.dh, w.parts, w.rows * D, w.row + n0, rows, D);
    }
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = "linear_kl/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const linear_kl_cpu[];
const pn_op_impl *const linear_kl_cpu[] = { &impl, NULL };
