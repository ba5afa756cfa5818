#include "cpu/activation.h"
#include "swiglu.h"

static pn_status forward(const pn_op_call *c) {
    const float *gate = pn_f32(c->in[0]), *up = pn_f32(c->in[1]);
    float *y = pn_f32(c->out[0]);
    int64_t n = pn_tensor_elems(c->out[0]);
#pragma omp parallel for simd schedule(static) if (n > 16384)
    for (int64_t i = 0; i < n; i++) y[i] = gate[i] * pn_act_sigmoid(gate[i]) * up[i];
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const float *gate = pn_f32(c->in[0]), *dy = pn_f32(c->dout[0]);
    float *dgate = pn_f32_or_null(c->din[0]), *dup = pn_f32_or_null(c->din[1]);
    int64_t n = pn_tensor_elems(c->dout[0]);
    if (dgate && dup) { /* the usual case: one sigmoid for both */
        const float *up = pn_f32(c->in[1]);
#pragma omp parallel for simd schedule(static) if (n > 16384)
        for (int64_t i = 0; i < n; i++) {
            float s = pn_act_sigmoid(gate[i]);
            dgate[i] += dy[i] * up[i] * s * (1 + gate[i] * (1 - s));
            dup[i] += dy[i] * gate[i] * s;
        }
    } else if (dgate) {
        const float *up = pn_f32(c->in[1]);
#pragma omp parallel for simd schedule(static) if (n > 16384)
        for (int64_t i = 0; i < n; i++) {
            float s = pn_act_sigmoid(gate[i]);
            dgate[i] += dy[i] * up[i] * s * (1 + gate[i] * (1 - s));
        }
    } else if (dup) {
#pragma omp parallel for simd schedule(static) if (n > 16384)
        for (int64_t i = 0; i < n; i++) dup[i] += dy[i] * gate[i] * pn_act_sigmoid(gate[i]);
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "swiglu/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const swiglu_cpu[];
const pn_op_impl *const swiglu_cpu[] = { &impl, NULL };
