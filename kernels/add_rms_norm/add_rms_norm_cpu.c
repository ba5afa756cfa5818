#include <string.h>

#include "add_rms_norm.h"
#include "cpu/reduce.h"
#include "rms_norm/rms_norm_cpu.h"

static pn_status forward(const pn_op_call *c) {
    const float *x = pn_f32(c->in[0]), *r = pn_f32(c->in[1]), *w = pn_f32(c->in[2]);
    float *s = pn_f32(c->out[0]), *y = pn_f32(c->out[1]), *q = pn_f32(c->out[2]);
    const float eps = (float)((const pn_add_rms_norm_attr *)c->attr)->eps;
    int64_t N = c->in[0]->shape[0], d = c->in[0]->shape[1];
#pragma omp parallel for schedule(static) if (N * d > 65536)
    for (int64_t n = 0; n < N; n++) {
        const float *xn = x + n * d, *rn = r + n * d;
        float *sn = s + n * d;
#pragma omp simd
        for (int64_t i = 0; i < d; i++) sn[i] = xn[i] + rn[i];
        q[n] = pn_rms_norm_row(y + n * d, sn, w, eps, d);
    }
    return PN_OK;
}

static void add(float *to, const float *x, int64_t d) {
#pragma omp simd
    for (int64_t i = 0; i < d; i++) to[i] += x[i];
}

/* What the gradients of a row are made of; what is not there, or not wanted, is NULL. */
typedef struct operands {
    const float *s, *q, *w, *ds, *dy;
    float *dx[2];
} operands;

static void add_dx(const operands *o, int64_t n, int64_t d, float *sum) {
    if (o->ds)
        memcpy(sum, o->ds + n * d, (size_t)d * sizeof *sum);
    else
        memset(sum, 0, (size_t)d * sizeof *sum);
    if (o->dy) pn_rms_norm_add_dx(sum, o->s + n * d, o->w, o->dy + n * d, o->q[n], d);
    for (int k = 0; k < 2; k++)
        if (o->dx[k]) add(o->dx[k] + n * d, sum, d);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] && !c->dout[1]) return PN_OK;
    const bool streams = c->din[0] || c->din[1];
    const operands o = { .s = pn_f32(c->out[0]),
                         .q = pn_f32(c->out[2]),
                         .w = streams ? pn_f32(c->in[2]) : NULL,
                         .ds = pn_f32_or_null(c->dout[0]),
                         .dy = pn_f32_or_null(c->dout[1]),
                         .dx = { pn_f32_or_null(c->din[0]), pn_f32_or_null(c->din[1]) } };
    float *dw = o.dy ? pn_f32_or_null(c->din[2]) : NULL;
    int64_t N = c->in[0]->shape[0], d = c->in[0]->shape[1], n_blocks = pn_reduce_blocks(N);
    float *partial = c->scratch, *sums = partial + n_blocks * d; /* [blocks, d] each: of dw, and a row of ds + .. */
#pragma omp parallel for schedule(static) if (N * d > 65536)
    for (int64_t b = 0; b < n_blocks; b++) {
        int64_t end = (b + 1) * PN_REDUCE_ROWS < N ? (b + 1) * PN_REDUCE_ROWS : N;
        if (dw) memset(partial + b * d, 0, (size_t)d * sizeof *partial);
        for (int64_t n = b * PN_REDUCE_ROWS; n < end; n++) {
            if (streams) add_dx(&o, n, d, sums + b * d);
            if (dw) pn_rms_norm_add_dw(partial + b * d, o.s + n * d, o.dy + n * d, o.q[n], d);
        }
    }
    if (dw) pn_add_row_sum(dw, partial, n_blocks, d);
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (!backward_pass) return 0;
    return (size_t)(2 * pn_reduce_blocks(c->in[0]->shape[0]) * c->in[0]->shape[1]) * sizeof(float);
}

static const pn_op_impl impl = {
    .name = "add_rms_norm/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const add_rms_norm_cpu[];
const pn_op_impl *const add_rms_norm_cpu[] = { &impl, NULL };
