#include <math.h>
#include <string.h>

#include "cpu/clones.h"
#include "cpu/reduce.h"
#include "group_norm.h"

enum { X, SCALE, SHIFT };
enum { Y, MEAN, RSTD };

/* One group. The mean goes first: a variance as mean(x^2) - mean^2 cancels. */
PN_CLONES static void norm_row(float *y, float *mean, float *rstd, const float *x, const float *w, const float *b,
                               float eps, int64_t d) {
    float sum = 0, square = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < d; i++) sum += x[i];
    float m = sum / (float)d;
#pragma omp simd reduction(+ : square)
    for (int64_t i = 0; i < d; i++) square += (x[i] - m) * (x[i] - m);
    float r = 1 / sqrtf(square / (float)d + eps);
#pragma omp simd
    for (int64_t i = 0; i < d; i++) y[i] = w[i] * ((x[i] - m) * r) + b[i];
    *mean = m;
    *rstd = r;
}

PN_CLONES static void add_dx(float *dx, const float *x, const float *w, const float *dy, float mean, float r,
                             int64_t d) {
    float sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
    for (int64_t i = 0; i < d; i++) {
        float c = w[i] * dy[i];
        sum += c;
        dot += c * ((x[i] - mean) * r);
    }
    sum /= (float)d, dot /= (float)d;
#pragma omp simd
    for (int64_t i = 0; i < d; i++) dx[i] += r * (w[i] * dy[i] - sum - (x[i] - mean) * r * dot);
}

PN_CLONES static void add_dw(float *dw, const float *x, const float *dy, float mean, float r, int64_t d) {
#pragma omp simd
    for (int64_t i = 0; i < d; i++) dw[i] += dy[i] * ((x[i] - mean) * r);
}

PN_CLONES static void add_db(float *db, const float *dy, int64_t d) {
#pragma omp simd
    for (int64_t i = 0; i < d; i++) db[i] += dy[i];
}

static pn_status forward(const pn_op_call *c) {
    const pn_group_norm_attr *attr = c->attr;
    const float *x = pn_f32(c->in[X]), *w = pn_f32(c->in[SCALE]), *b = pn_f32(c->in[SHIFT]);
    float *y = pn_f32(c->out[Y]), *mean = pn_f32(c->out[MEAN]), *rstd = pn_f32(c->out[RSTD]);
    int64_t G = attr->groups, d = c->in[X]->shape[1] / G, rows = c->in[X]->shape[0] * G; /* a row: one group */
#pragma omp parallel for schedule(static) if (rows * d > 65536)
    for (int64_t n = 0; n < rows; n++)
        norm_row(y + n * d, mean + n, rstd + n, x + n * d, w + n % G * d, b + n % G * d, (float)attr->eps, d);
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[Y]) return PN_OK;
    const pn_group_norm_attr *attr = c->attr;
    const int64_t N = c->dout[Y]->shape[0], C = c->dout[Y]->shape[1], n_blocks = pn_reduce_blocks(N);
    const int64_t G = attr->groups, d = C / G;
    const float *dy = pn_f32(c->dout[Y]), *mean = pn_f32(c->out[MEAN]), *rstd = pn_f32(c->out[RSTD]);
    float *dx = pn_f32_or_null(c->din[X]), *dw = pn_f32_or_null(c->din[SCALE]), *db = pn_f32_or_null(c->din[SHIFT]);
    const float *x = dx || dw ? pn_f32(c->in[X]) : NULL, *w = dx ? pn_f32(c->in[SCALE]) : NULL;
    float *partial_w = c->scratch, *partial_b = partial_w + n_blocks * C; /* [blocks, C] each */
#pragma omp parallel for schedule(static) if (N * C > 65536)
    for (int64_t block = 0; block < n_blocks; block++) {
        int64_t end = (block + 1) * PN_REDUCE_ROWS < N ? (block + 1) * PN_REDUCE_ROWS : N;
        memset(partial_w + block * C, 0, (size_t)C * sizeof *partial_w);
        memset(partial_b + block * C, 0, (size_t)C * sizeof *partial_b);
        for (int64_t n = block * PN_REDUCE_ROWS * G; n < end * G; n++) {
            int64_t first = n % G * d, at = block * C + first;
            if (dx) add_dx(dx + n * d, x + n * d, w + first, dy + n * d, mean[n], rstd[n], d);
            if (dw) add_dw(partial_w + at, x + n * d, dy + n * d, mean[n], rstd[n], d);
            if (db) add_db(partial_b + at, dy + n * d, d);
        }
    }
    if (dw) pn_add_row_sum(dw, partial_w, n_blocks, C);
    if (db) pn_add_row_sum(db, partial_b, n_blocks, C);
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (!backward_pass) return 0;
    return (size_t)(2 * pn_reduce_blocks(c->in[X]->shape[0]) * c->in[X]->shape[1]) * sizeof(float);
}

static const pn_op_impl impl = {
    .name = "group_norm/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const group_norm_cpu[];
const pn_op_impl *const group_norm_cpu[] = { &impl, NULL };
