#include <math.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "l2_norm.h"

PN_CLONES static void norm_plain(float *y, const float *x, float eps, int64_t d) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < d; i++) sum += x[i] * x[i];
    float r = 1 / sqrtf(sum + eps);
#pragma omp simd
    for (int64_t i = 0; i < d; i++) y[i] = x[i] * r;
}

PN_CLONES static void norm_silu(float *y, const float *x, float eps, int64_t d) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < d; i++) {
        y[i] = pn_siluf(x[i]);
        sum += y[i] * y[i];
    }
    float r = 1 / sqrtf(sum + eps);
#pragma omp simd
    for (int64_t i = 0; i < d; i++) y[i] *= r;
}

static pn_status forward(const pn_op_call *c) {
    const pn_l2_norm_attr *attr = c->attr;
    const float *x = pn_f32(c->in[0]);
    float *y = pn_f32(c->out[0]), eps = (float)attr->eps;
    bool silu = attr->silu;
    int64_t d = attr->head_dim, rows = pn_tensor_elems(c->in[0]) / d;
#pragma omp parallel for schedule(static) if (rows * d > 16384)
    for (int64_t n = 0; n < rows; n++) {
        if (silu)
            norm_silu(y + n * d, x + n * d, eps, d);
        else
            norm_plain(y + n * d, x + n * d, eps, d);
    }
    return PN_OK;
}

/* dx += r (dy - x r^2 <dy, x>) */
PN_CLONES static void add_plain(float *dx, const float *x, const float *dy, float eps, int64_t d) {
    float sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
    for (int64_t i = 0; i < d; i++) {
        sum += x[i] * x[i];
        dot += dy[i] * x[i];
    }
    float r = 1 / sqrtf(sum + eps), k = r * r * dot;
#pragma omp simd
    for (int64_t i = 0; i < d; i++) dx[i] += r * (dy[i] - x[i] * k);
}

/* The same with s = silu(x) in the place of x, times silu'(x). The sigmoid is cheaper to redo than to keep. */
PN_CLONES static void add_silu(float *dx, const float *x, const float *dy, float eps, int64_t d) {
    float sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
    for (int64_t i = 0; i < d; i++) {
        float s = pn_siluf(x[i]);
        sum += s * s;
        dot += dy[i] * s;
    }
    float r = 1 / sqrtf(sum + eps), k = r * r * dot;
#pragma omp simd
    for (int64_t i = 0; i < d; i++) {
        float g = pn_sigmoidf(x[i]);
        dx[i] += r * (dy[i] - x[i] * g * k) * (g * (1 + x[i] * (1 - g)));
    }
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    const pn_l2_norm_attr *attr = c->attr;
    const float *x = pn_f32(c->in[0]), *dy = pn_f32(c->dout[0]);
    float *dx = pn_f32(c->din[0]), eps = (float)attr->eps;
    bool silu = attr->silu;
    int64_t d = attr->head_dim, rows = pn_tensor_elems(c->in[0]) / d;
#pragma omp parallel for schedule(static) if (rows * d > 16384)
    for (int64_t n = 0; n < rows; n++) {
        if (silu)
            add_silu(dx + n * d, x + n * d, dy + n * d, eps, d);
        else
            add_plain(dx + n * d, x + n * d, dy + n * d, eps, d);
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "l2_norm/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const l2_norm_cpu[];
const pn_op_impl *const l2_norm_cpu[] = { &impl, NULL };
