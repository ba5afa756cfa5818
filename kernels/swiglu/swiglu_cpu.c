#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/span.h"
#include "swiglu.h"
#include "swiglu_cpu.h"

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

void pn_swiglu_of(float *y, const float *gate, const float *up, int64_t n) {
    PN_FOR_SPANS(i, len, n) swiglu(y + i, gate + i, up + i, len);
}

static void gradients(float *dgate, float *dup, float *h, const float *gate, const float *up, const float *dy,
                      int64_t n) {
    if (dgate && dup)
        add_both(dgate, dup, gate, up, dy, n);
    else if (dgate)
        add_dgate(dgate, gate, up, dy, n);
    else if (dup)
        add_dup(dup, gate, dy, n);
    if (h) swiglu(h, gate, up, n);
}

static float *at(float *x, int64_t i) {
    return x ? x + i : NULL;
}

void pn_swiglu_gradients(float *dgate, float *dup, float *h, const float *gate, const float *up, const float *dy,
                         int64_t n) {
    PN_FOR_SPANS(i, len, n)
    gradients(at(dgate, i), at(dup, i), at(h, i), gate + i, up ? up + i : NULL, dy + i, len);
}

static pn_status forward(const pn_op_call *c) {
    pn_swiglu_of(pn_f32(c->out[0]), pn_f32(c->in[0]), pn_f32(c->in[1]), pn_tensor_elems(c->out[0]));
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !pn_op_has_din(c)) return PN_OK;
    pn_swiglu_gradients(pn_f32_or_null(c->din[0]), pn_f32_or_null(c->din[1]), NULL, pn_f32(c->in[0]),
                        c->din[0] ? pn_f32(c->in[1]) : NULL, pn_f32(c->dout[0]), pn_tensor_elems(c->dout[0]));
    return PN_OK;
}

static const pn_op_impl impl = { .name = "swiglu/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const swiglu_cpu[];
const pn_op_impl *const swiglu_cpu[] = { &impl, NULL };
