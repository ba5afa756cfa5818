#include <string.h>

#include "cpu/gemm.h"
#include "linear_cpu.h"
#include "linear.h"
#include "cpu/reduce.h"

static pn_status forward(const pn_op_call *c) {
    const float *b = pn_f32_or_null(c->in[2]);
    float *y = pn_f32(c->out[0]);
    int64_t N = c->in[0]->shape[0], K = c->in[1]->shape[1], M = c->in[1]->shape[0];
    if (b) { /* the product is added to it */
#pragma omp parallel for schedule(static) if (N * M > 65536)
        for (int64_t n = 0; n < N; n++) memcpy(y + n * M, b, (size_t)M * sizeof *y);
    }
    pn_sgemm(false, true, N, M, K, pn_f32(c->in[0]), K, pn_f32(c->in[1]), K, b ? 1 : 0, y, M);
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const float *dy = pn_f32(c->dout[0]);
    int64_t N = c->in[0]->shape[0], K = c->in[1]->shape[1], M = c->in[1]->shape[0];
    if (c->din[0]) pn_sgemm(false, false, N, K, M, dy, M, pn_f32(c->in[1]), K, 1, pn_f32(c->din[0]), K);
    if (c->din[1]) pn_sgemm(true, false, M, K, N, dy, M, pn_f32(c->in[0]), K, 1, pn_f32(c->din[1]), K);
    if (c->din[2]) pn_add_row_sum(pn_f32(c->din[2]), dy, N, M);
    return PN_OK;
}

static const pn_op_impl impl = { .name = "linear/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const linear_cpu[];
const pn_op_impl *const linear_cpu[] = { &pn_linear_cpu_narrow, &impl, NULL };
