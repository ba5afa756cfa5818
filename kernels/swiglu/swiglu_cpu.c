#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/span.h"
#include "swiglu.h"

PN_CLONES static void swiglu(float *y, const float *gate, const float *up, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = pn_siluf(gate[i]) * up[i];
}

/* Both gradients from one exponential. */
PN_CLONES static void add_both(float *dgate, float *dup, const float *gate, const float *up, const float *dy,
                               int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float s = pn_sigmoidf(gate[i]);
        dup[i] += dy[i] * gate[i] * s;
        dgate[i] += dy[i] * up[i] * s * pn_fmaf(gate[i], 1 - s, 1);
    }
}

PN_CLONES static void add_dgate(float *dgate, const float *gate, const float *up, const float *dy, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dgate[i] += dy[i] * up[i] * pn_silu_gradf(gate[i]);
}

PN_CLONES static void add_dup(float *dup, const float *gate, const float *dy, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dup[i] += dy[i] * pn_siluf(gate[i]);
}

static pn_status forward(const pn_op_call *c) {
    const float *gate = pn_f32(c->in[0]), *up = pn_f32(c->in[1]);
    float *y = pn_f32(c->out[0]);
    int64_t n = pn_tensor_elems(c->out[0]);
    PN_FOR_SPANS(i, len, n) swiglu(y + i, gate + i, up + i, len);
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const float *gate = pn_f32(c->in[0]), *dy = pn_f32(c->dout[0]), *up = c->din[0] ? pn_f32(c->in[1]) : NULL;
    float *dgate = pn_f32_or_null(c->din[0]), *dup = pn_f32_or_null(c->din[1]);
    int64_t n = pn_tensor_elems(c->dout[0]);
    if (dgate && dup)
        PN_FOR_SPANS(i, len, n) add_both(dgate + i, dup + i, gate + i, up + i, dy + i, len);
    else if (dgate)
        PN_FOR_SPANS(i, len, n) add_dgate(dgate + i, gate + i, up + i, dy + i, len);
    else if (dup)
        PN_FOR_SPANS(i, len, n) add_dup(dup + i, gate + i, dy + i, len);
    return PN_OK;
}

static const pn_op_impl impl = { .name = "swiglu/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const swiglu_cpu[];
const pn_op_impl *const swiglu_cpu[] = { &impl, NULL };
