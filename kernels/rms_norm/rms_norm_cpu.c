#include <string.h>

#include "cpu/reduce.h"
#include "rms_norm.h"
#include "rms_norm_cpu.h"

static pn_status forward(const pn_op_call *c) {
    const pn_rms_norm_attr *attr = c->attr;
    const float *x = pn_f32(c->in[0]), *w = pn_f32(c->in[1]);
    float *y = pn_f32(c->out[0]), *rstd = pn_f32(c->out[1]), eps = (float)attr->eps;
    int64_t M = attr->groups, d = c->in[0]->shape[1] / M, rows = c->in[0]->shape[0] * M; /* a row: one group */
#pragma omp parallel for schedule(static) if (rows * d > 65536)
    for (int64_t n = 0; n < rows; n++) rstd[n] = pn_rms_norm_row(y + n * d, x + n * d, w + n % M * d, eps, d);
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const pn_rms_norm_attr *attr = c->attr;
    const float *x = pn_f32(c->in[0]), *dy = pn_f32(c->dout[0]), *rstd = pn_f32(c->out[1]);
    const float *w = c->din[0] ? pn_f32(c->in[1]) : NULL;
    float *dx = pn_f32_or_null(c->din[0]), *dw = pn_f32_or_null(c->din[1]);
    float *partial = c->scratch; /* [blocks, D] of dw */
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1], n_blocks = pn_reduce_blocks(N);
    int64_t M = attr->groups, d = D / M;
#pragma omp parallel for schedule(static) if (N * D > 65536)
    for (int64_t b = 0; b < n_blocks; b++) {
        int64_t end = (b + 1) * PN_REDUCE_ROWS < N ? (b + 1) * PN_REDUCE_ROWS : N;
        if (dw) memset(partial + b * D, 0, (size_t)D * sizeof *partial);
        for (int64_t n = b * PN_REDUCE_ROWS * M; n < end * M; n++) {
            const float *xn = x + n * d, *dyn = dy + n * d;
            if (dx) pn_rms_norm_add_dx(dx + n * d, xn, w + n % M * d, dyn, rstd[n], d);
            if (dw) pn_rms_norm_add_dw(partial + b * D + n % M * d, xn, dyn, rstd[n], d);
        }
    }
    if (dw) pn_add_row_sum(dw, partial, n_blocks, D);
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (!backward_pass || !c->wants[1]) return 0;
    return (size_t)(pn_reduce_blocks(c->in[0]->shape[0]) * c->in[0]->shape[1]) * sizeof(float);
}

static const pn_op_impl impl = {
    .name = "rms_norm/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const rms_norm_cpu[];
const pn_op_impl *const rms_norm_cpu[] = { &impl, NULL };
