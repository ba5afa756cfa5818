#include "lerp.h"

enum { A, B, W };

static pn_status forward(const pn_op_call *c) {
    const float *a = pn_f32(c->in[A]), *b = pn_f32(c->in[B]), *w = pn_f32(c->in[W]);
    float *y = pn_f32(c->out[0]);
    int64_t n = pn_tensor_elems(c->out[0]);
#pragma omp parallel for simd schedule(static) if (n > 65536)
    for (int64_t i = 0; i < n; i++) y[i] = a[i] + w[i] * (b[i] - a[i]);
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const float *dy = pn_f32(c->dout[0]);
    float *da = pn_f32_or_null(c->din[A]), *db = pn_f32_or_null(c->din[B]), *dw = pn_f32_or_null(c->din[W]);
    int64_t n = pn_tensor_elems(c->dout[0]);
    if (da || db) {
        const float *w = pn_f32(c->in[W]);
        if (da) {
#pragma omp parallel for simd schedule(static) if (n > 65536)
            for (int64_t i = 0; i < n; i++) da[i] += (1 - w[i]) * dy[i];
        }
        if (db) {
#pragma omp parallel for simd schedule(static) if (n > 65536)
            for (int64_t i = 0; i < n; i++) db[i] += w[i] * dy[i];
        }
    }
    if (dw) {
        const float *a = pn_f32(c->in[A]), *b = pn_f32(c->in[B]);
#pragma omp parallel for simd schedule(static) if (n > 65536)
        for (int64_t i = 0; i < n; i++) dw[i] += (b[i] - a[i]) * dy[i];
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "lerp/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const lerp_cpu[];
const pn_op_impl *const lerp_cpu[] = { &impl, NULL };
