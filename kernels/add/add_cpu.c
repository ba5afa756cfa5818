#include "add.h"

static pn_status forward(const pn_op_call *c) {
    const float *a = pn_f32(c->in[0]), *b = pn_f32(c->in[1]);
    float *y = pn_f32(c->out[0]);
    int64_t n = pn_tensor_elems(c->out[0]);
#pragma omp parallel for simd schedule(static) if (n > 65536)
    for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const float *dy = pn_f32(c->dout[0]);
    int64_t n = pn_tensor_elems(c->dout[0]);
    for (int k = 0; k < 2; k++) {
        if (!c->din[k]) continue;
        float *dx = pn_f32(c->din[k]);
#pragma omp parallel for simd schedule(static) if (n > 65536)
        for (int64_t i = 0; i < n; i++) dx[i] += dy[i];
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "add/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const add_cpu[];
const pn_op_impl *const add_cpu[] = { &impl, NULL };
