/* Few outputs (a gate per head): a wide x is read once for a handful of multiply-adds per element, so memory is the
 * limit. sgemm would copy all of x into packed panels first, which takes longer than the product.
 *
 * Threads share out rows (y, dx) or columns (dw); no sum depends on their number. */
#include "linear_cpu.h"

#include "cpu/reduce.h"
#include "cpu/tile_mm.h"
#include "linear.h"

enum { MOST_OUT = 16, LEAST_IN = 256, ROWS = 64, COLUMNS = 64 };

static bool takes(const pn_op_call *c) {
    return c->in[1]->shape[0] <= MOST_OUT && c->in[1]->shape[1] >= LEAST_IN && c->in[0]->shape[0] > 1;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    return backward ? 0 : (size_t)c->in[1]->shape[1] * MOST_OUT * sizeof(float);
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static pn_status forward(const pn_op_call *c) {
    const float *x = pn_f32(c->in[0]), *b = pn_f32_or_null(c->in[2]);
    float *y = pn_f32(c->out[0]), *turned = c->scratch; /* W^T [K, M], each row within a cache line */
    int64_t N = c->in[0]->shape[0], K = c->in[1]->shape[1], M = c->in[1]->shape[0];
    pn_tile_transpose(turned, MOST_OUT, pn_f32(c->in[1]), K, M, K);
#pragma omp parallel for schedule(static) if (N * K > 65536)
    for (int64_t n = 0; n < N; n += ROWS) {
        pn_mm p = pn_mm_of(smaller(ROWS, N - n), M, K, x + n * K, K, turned, MOST_OUT, y + n * M, M);
        if (b) pn_mm_keep(&p, 1, b, 0); /* the same row for all */
        pn_tile_mm(&p);
    }
    return PN_OK;
}

static void add_dx(const float *dy, const float *w, float *dx, int64_t N, int64_t K, int64_t M) {
#pragma omp parallel for schedule(static) if (N * K > 65536)
    for (int64_t n = 0; n < N; n += ROWS) {
        pn_mm p = pn_mm_of(smaller(ROWS, N - n), K, M, dy + n * M, M, w, K, dx + n * K, K);
        pn_mm_keep(&p, 1, p.c, K);
        pn_tile_mm(&p);
    }
}

static void add_dw(const float *dy, const float *x, float *dw, int64_t N, int64_t K, int64_t M) {
#pragma omp parallel for schedule(static) if (N * K > 65536)
    for (int64_t k = 0; k < K; k += COLUMNS) {
        pn_mm p = pn_mm_transposed_of(M, smaller(COLUMNS, K - k), N, dy, M, x + k, K, dw + k, K);
        pn_mm_keep(&p, 1, p.c, K);
        pn_tile_mm(&p);
    }
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const float *dy = pn_f32(c->dout[0]);
    int64_t N = c->in[0]->shape[0], K = c->in[1]->shape[1], M = c->in[1]->shape[0];
    if (c->din[0]) add_dx(dy, pn_f32(c->in[1]), pn_f32(c->din[0]), N, K, M);
    if (c->din[1]) add_dw(dy, pn_f32(c->in[0]), pn_f32(c->din[1]), N, K, M);
    if (c->din[2]) pn_add_row_sum(pn_f32(c->din[2]), dy, N, M);
    return PN_OK;
}

const pn_op_impl pn_linear_cpu_narrow = { .name = "linear/cpu-narrow",
                                          .takes = takes,
                                          .scratch_bytes = scratch_bytes,
                                          .forward = forward,
                                          .backward = backward };
