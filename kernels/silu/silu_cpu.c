#include "cpu/activation.h"
#include "silu.h"

static pn_status forward(const pn_op_call *c) {
    const float *x = pn_f32(c->in[0]);
    float *y = pn_f32(c->out[0]);
    int64_t n = pn_tensor_elems(c->out[0]);
#pragma omp parallel for simd schedule(static) if (n > 16384)
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * pn_act_sigmoid(x[i]);
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    const float *x = pn_f32(c->in[0]), *dy = pn_f32(c->dout[0]);
    float *dx = pn_f32(c->din[0]);
    int64_t n = pn_tensor_elems(c->dout[0]);
#pragma omp parallel for simd schedule(static) if (n > 16384)
    for (int64_t i = 0; i < n; i++) {
        float s = pn_act_sigmoid(x[i]);
        dx[i] += dy[i] * s * (1 + x[i] * (1 - s));
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "silu/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const silu_cpu[];
const pn_op_impl *const silu_cpu[] = { &impl, NULL };
