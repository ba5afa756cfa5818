#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/span.h"
#include "tanh.h"

PN_CLONES static void tanh_span(float *y, const float *x, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = pn_tanhf(x[i]);
}

static pn_status forward(const pn_op_call *c) {
    const float *x = pn_f32(c->in[0]);
    float *y = pn_f32(c->out[0]);
    int64_t n = pn_tensor_elems(c->out[0]);
    PN_FOR_SPANS(i, len, n) tanh_span(y + i, x + i, len);
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    const float *y = pn_f32(c->out[0]), *dy = pn_f32(c->dout[0]);
    float *dx = pn_f32(c->din[0]);
    int64_t n = pn_tensor_elems(c->dout[0]);
#pragma omp parallel for simd schedule(static) if (n > 65536)
    for (int64_t i = 0; i < n; i++) dx[i] += dy[i] * (1 - y[i] * y[i]);
    return PN_OK;
}

static const pn_op_impl impl = { .name = "tanh/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const tanh_cpu[];
const pn_op_impl *const tanh_cpu[] = { &impl, NULL };
