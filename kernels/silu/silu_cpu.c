#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/span.h"
#include "silu.h"

PN_CLONES static void silu(float *y, const float *x, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = pn_siluf(x[i]);
}

PN_CLONES static void add_silu_grad(float *dx, const float *x, const float *dy, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dx[i] += dy[i] * pn_silu_gradf(x[i]);
}

static pn_status forward(const pn_op_call *c) {
    const float *x = pn_f32(c->in[0]);
    float *y = pn_f32(c->out[0]);
    int64_t n = pn_tensor_elems(c->out[0]);
    PN_FOR_SPANS(i, len, n) silu(y + i, x + i, len);
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    const float *x = pn_f32(c->in[0]), *dy = pn_f32(c->dout[0]);
    float *dx = pn_f32(c->din[0]);
    int64_t n = pn_tensor_elems(c->dout[0]);
    PN_FOR_SPANS(i, len, n) add_silu_grad(dx + i, x + i, dy + i, len);
    return PN_OK;
}

static const pn_op_impl impl = { .name = "silu/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const silu_cpu[];
const pn_op_impl *const silu_cpu[] = { &impl, NULL };
