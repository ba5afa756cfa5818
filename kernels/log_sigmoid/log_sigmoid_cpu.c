#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/span.h"
#include "log_sigmoid.h"

PN_CLONES static void log_sigmoid(float *g, const float *x, float scale, float min, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float y = -scale * pn_softplusf(-x[i]);
        g[i] = y < min ? min : y;
    }
}

static pn_status forward(const pn_op_call *c) {
    const pn_log_sigmoid_attr *attr = c->attr;
    const float *x = pn_f32(c->in[0]);
    float *g = pn_f32(c->out[0]), scale = (float)attr->scale, min = (float)attr->min;
    int64_t n = pn_tensor_elems(c->out[0]);
    PN_FOR_SPANS(i, len, n) log_sigmoid(g + i, x + i, scale, min, len);
    return PN_OK;
}

PN_CLONES static void add_gradient(float *dx, const float *x, const float *dg, float scale, float min, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float d = scale * pn_sigmoidf(-x[i]) * dg[i];
        dx[i] += -scale * pn_softplusf(-x[i]) < min ? 0.0f : d;
    }
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    const pn_log_sigmoid_attr *attr = c->attr;
    const float *x = pn_f32(c->in[0]), *dg = pn_f32(c->dout[0]);
    float *dx = pn_f32(c->din[0]), scale = (float)attr->scale, min = (float)attr->min;
    int64_t n = pn_tensor_elems(c->dout[0]);
    PN_FOR_SPANS(i, len, n) add_gradient(dx + i, x + i, dg + i, scale, min, len);
    return PN_OK;
}

static const pn_op_impl impl = { .name = "log_sigmoid/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const log_sigmoid_cpu[];
const pn_op_impl *const log_sigmoid_cpu[] = { &impl, NULL };
