/* Few outputs (a gate per head): a wide x is read once for a handful of multiply-adds per element, so memory is the
 * limit. sgemm would copy all of x into packed panels first, which takes longer than the product.
 *
 * Threads share out rows. dw gets a sum of its own for every RUN of them, added in order: nothing depends on the number
 * of threads. */
#include "linear_cpu.h"

#include "cpu/reduce.h"
#include "cpu/rows.h"
#include "cpu/tile_mm.h"
#include "linear.h"

enum { MOST_OUT = 16, LEAST_IN = 256, ROWS = 64, RUN = 128, ROWS_AT_ONCE = 8 };

static bool takes(const pn_op_call *c) {
    return c->in[1]->shape[0] <= MOST_OUT && c->in[1]->shape[1] >= LEAST_IN && c->in[0]->shape[0] > 1;
}

static int64_t runs_of(const pn_op_call *c) {
    return (c->in[0]->shape[0] + RUN - 1) / RUN;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    int64_t K = c->in[1]->shape[1], floats = backward ? runs_of(c) * c->in[1]->shape[0] * K : K * MOST_OUT;
    return (size_t)floats * sizeof(float);
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

/* Rows r0 .. r1: dx += dy W, and part [M, K] = dy^T x, a few rows at a time, so that x and dx are read in long runs,
 * the next few while these are worked on. */
static void backward_run(const pn_op_call *c, int64_t r0, int64_t r1, float *part) {
    const float *dy = pn_f32(c->dout[0]), *x = part ? pn_f32(c->in[0]) : NULL;
    float *dx = pn_f32_or_null(c->din[0]);
    int64_t K = c->in[1]->shape[1], M = c->in[1]->shape[0];
    for (int64_t r = r0; r < r1; r += ROWS_AT_ONCE) {
        int64_t n = smaller(ROWS_AT_ONCE, r1 - r), next = r + ROWS_AT_ONCE, rest = smaller(ROWS_AT_ONCE, r1 - next);
        pn_ahead ahead = { 0 };
        if (dx) pn_ahead_add(&ahead, rest, K, dx + next * K, K);
        if (part) pn_ahead_add(&ahead, rest, K, x + next * K, K);
        if (dx) {
            pn_mm p = pn_mm_of(n, K, M, dy + r * M, M, pn_f32(c->in[1]), K, dx + r * K, K);
            pn_mm_keep(&p, 1, p.c, K);
            p.ahead = &ahead;
            pn_tile_mm(&p);
        }
        if (part) {
            pn_mm p = pn_mm_transposed_of(M, K, n, dy + r * M, M, x + r * K, K, part, K);
            if (r > r0) pn_mm_keep(&p, 1, part, K);
            p.ahead = &ahead;
            pn_tile_mm(&p);
        }
    }
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    int64_t N = c->in[0]->shape[0], K = c->in[1]->shape[1], M = c->in[1]->shape[0], runs = runs_of(c);
    float *part = c->din[1] ? c->scratch : NULL;
    if (c->din[0] || part) {
#pragma omp parallel if (N * K > 65536)
        {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < runs; i++)
                backward_run(c, i * RUN, smaller((i + 1) * RUN, N), part ? part + i * M * K : NULL);
#pragma omp for schedule(static)
            for (int64_t m = 0; m < M; m++)
                for (int64_t i = 0; part && i < runs; i++)
                    pn_add_rows(1, K, 1, part + (i * M + m) * K, 0, pn_f32(c->din[1]) + m * K, 0);
        }
    }
    if (c->din[2]) pn_add_row_sum(pn_f32(c->din[2]), pn_f32(c->dout[0]), N, M);
    return PN_OK;
}

const pn_op_impl pn_linear_cpu_narrow = { .name = "linear/cpu-narrow",
                                          .takes = takes,
                                          .scratch_bytes = scratch_bytes,
                                          .forward = forward,
                                          .backward = backward };
