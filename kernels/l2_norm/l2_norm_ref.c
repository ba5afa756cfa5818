#include <math.h>

#include "l2_norm.h"

static double activate(bool silu, double x) {
    return silu ? x / (1 + exp(-x)) : x;
}
static double slope(bool silu, double x) {
    double s = 1 / (1 + exp(-x));
    return silu ? s * (1 + x * (1 - s)) : 1;
}

static pn_status forward(const pn_op_call *c) {
    const pn_l2_norm_attr *attr = c->attr;
    int64_t d = attr->head_dim, rows = pn_tensor_elems(c->in[0]) / d;
    for (int64_t n = 0; n < rows; n++) {
        const double *x = pn_f64(c->in[0]) + n * d;
        double *y = pn_f64(c->out[0]) + n * d, sum = attr->eps;
        for (int64_t i = 0; i < d; i++) {
            y[i] = activate(attr->silu, x[i]);
            sum += y[i] * y[i];
        }
        for (int64_t i = 0; i < d; i++) y[i] /= sqrt(sum);
    }
    return PN_OK;
}

/* ds = r (dy - y <dy, y>), r = (sum(s^2) + eps)^-1/2, y = s r; dx = ds silu'(x) */
static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    const pn_l2_norm_attr *attr = c->attr;
    int64_t d = attr->head_dim, rows = pn_tensor_elems(c->in[0]) / d;
    for (int64_t n = 0; n < rows; n++) {
        const double *x = pn_f64(c->in[0]) + n * d, *dy = pn_f64(c->dout[0]) + n * d;
        double *dx = pn_f64(c->din[0]) + n * d, sum = attr->eps, dot = 0;
        for (int64_t i = 0; i < d; i++) {
            double s = activate(attr->silu, x[i]);
            sum += s * s;
            dot += dy[i] * s;
        }
        for (int64_t i = 0; i < d; i++) {
            double s = activate(attr->silu, x[i]);
            dx[i] += (dy[i] - s * dot / sum) / sqrt(sum) * slope(attr->silu, x[i]);
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "l2_norm/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const l2_norm_ref[];
const pn_op_impl *const l2_norm_ref[] = { &impl, NULL };
