#include <string.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/reduce.h"
#include "time_step.h"

enum { RAW, A_LOG, BIAS };
enum { DT, GATE };

PN_CLONES static void row(float *dt, float *g, const float *a, const float *A, const float *bias, float min, float max,
                          int64_t H) {
#pragma omp simd
    for (int64_t h = 0; h < H; h++) {
        float x = pn_softplusf(a[h] + bias[h]);
        x = x < min ? min : x;
        x = x > max ? max : x;
        dt[h] = x;
        g[h] = -A[h] * x;
    }
}

static pn_status forward(const pn_op_call *c) {
    const pn_time_step_attr *attr = c->attr;
    const float *a = pn_f32(c->in[RAW]), *bias = pn_f32(c->in[BIAS]), min = (float)attr->min, max = (float)attr->max;
    float *dt = pn_f32(c->out[DT]), *g = pn_f32(c->out[GATE]), *A = c->scratch; /* [H] */
    int64_t N = c->in[RAW]->shape[0], H = c->in[RAW]->shape[1];
    for (int64_t h = 0; h < H; h++) A[h] = pn_expf(pn_f32(c->in[A_LOG])[h]);
#pragma omp parallel for schedule(static) if (N * H > 16384)
    for (int64_t n = 0; n < N; n++) row(dt + n * H, g + n * H, a + n * H, A, bias, min, max, H);
    return PN_OK;
}

/* du of one token; d_dt and dg may be NULL. */
PN_CLONES static void raw_gradient(float *du, const float *a, const float *A, const float *bias, const float *d_dt,
                                   const float *dg, float min, float max, int64_t H) {
    for (int64_t h = 0; h < H; h++) {
        float u = a[h] + bias[h], dt = pn_softplusf(u);
        float d = (d_dt ? d_dt[h] : 0) - (dg ? A[h] * dg[h] : 0);
        du[h] = dt < min || dt > max ? 0 : d * pn_sigmoidf(u);
    }
}

static pn_status backward(const pn_op_call *c) {
    const pn_time_step_attr *attr = c->attr;
    const float *d_dt = pn_f32_or_null(c->dout[DT]), *dg = pn_f32_or_null(c->dout[GATE]);
    const float min = (float)attr->min, max = (float)attr->max;
    const int64_t N = c->in[RAW]->shape[0], H = c->in[RAW]->shape[1], n_blocks = pn_reduce_blocks(N);
    const bool to_raw = c->din[RAW] || c->din[BIAS];
    float *A = c->scratch, *du = A + H;                            /* [H], [blocks, H] the current token's */
    float *bias = du + n_blocks * H, *A_log = bias + n_blocks * H; /* [blocks, H] sums for the gradients of both */
    if (to_raw)
        for (int64_t h = 0; h < H; h++) A[h] = pn_expf(pn_f32(c->in[A_LOG])[h]);
    memset(bias, 0, (size_t)(2 * n_blocks * H) * sizeof *bias);
#pragma omp parallel for schedule(static) if (N * H > 16384)
    for (int64_t b = 0; b < n_blocks; b++) {
        int64_t end = (b + 1) * PN_REDUCE_ROWS < N ? (b + 1) * PN_REDUCE_ROWS : N;
        float *d = du + b * H;
        for (int64_t n = b * PN_REDUCE_ROWS; n < end; n++) {
            if (to_raw)
                raw_gradient(d, pn_f32(c->in[RAW]) + n * H, A, pn_f32(c->in[BIAS]), d_dt ? d_dt + n * H : NULL,
                             dg ? dg + n * H : NULL, min, max, H);
            for (int64_t h = 0; c->din[RAW] && h < H; h++) pn_f32(c->din[RAW])[n * H + h] += d[h];
            for (int64_t h = 0; c->din[BIAS] && h < H; h++) bias[b * H + h] += d[h];
            for (int64_t h = 0; c->din[A_LOG] && dg && h < H; h++)
                A_log[b * H + h] += pn_f32(c->out[GATE])[n * H + h] * dg[n * H + h];
        }
    }
    if (c->din[BIAS]) pn_add_row_sum(pn_f32(c->din[BIAS]), bias, n_blocks, H);
    if (c->din[A_LOG]) pn_add_row_sum(pn_f32(c->din[A_LOG]), A_log, n_blocks, H);
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    int64_t H = c->in[RAW]->shape[1], n_blocks = backward_pass ? pn_reduce_blocks(c->in[RAW]->shape[0]) : 0;
    return (size_t)(H + 3 * n_blocks * H) * sizeof(float);
}

static const pn_op_impl impl = {
    .name = "time_step/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const time_step_cpu[];
const pn_op_impl *const time_step_cpu[] = { &impl, NULL };
