#include <math.h>

#include "gated_rms_norm.h"

static double rstd(const double *o, int64_t d, double eps) {
    double sum = 0;
    for (int64_t i = 0; i < d; i++) sum += o[i] * o[i];
    return 1 / sqrt(sum / (double)d + eps);
}

static pn_status forward(const pn_op_call *c) {
    const pn_gated_rms_norm_attr *attr = c->attr;
    const double *w = pn_f64(c->in[2]);
    int64_t d = attr->head_dim, rows = pn_tensor_elems(c->in[0]) / d;
    for (int64_t n = 0; n < rows; n++) {
        const double *o = pn_f64(c->in[0]) + n * d, *z = c->in[1] ? pn_f64(c->in[1]) + n * d : NULL;
        double *y = pn_f64(c->out[0]) + n * d, r = rstd(o, d, attr->eps);
        for (int64_t i = 0; i < d; i++) y[i] = w[i] * o[i] * r * (z ? z[i] / (1 + exp(-z[i])) : 1);
    }
    return PN_OK;
}

/* q = dy * silu(z): dz = dy * w * o r * silu'(z); dw = sum q * o r; with c = w * q: do = r (c - o r^2 mean(c * o)) */
static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const pn_gated_rms_norm_attr *attr = c->attr;
    int64_t d = attr->head_dim, rows = pn_tensor_elems(c->in[0]) / d;
    const double *w = c->din[0] || c->din[1] ? pn_f64(c->in[2]) : NULL;
    for (int64_t n = 0; n < rows; n++) {
        const double *o = pn_f64(c->in[0]) + n * d, *z = c->in[1] ? pn_f64(c->in[1]) + n * d : NULL;
        const double *dy = pn_f64(c->dout[0]) + n * d;
        double r = rstd(o, d, attr->eps), mean = 0;
        for (int64_t i = 0; i < d; i++) {
            double s = z ? 1 / (1 + exp(-z[i])) : 1, q = z ? dy[i] * z[i] * s : dy[i];
            if (c->din[1]) pn_f64(c->din[1])[n * d + i] += dy[i] * w[i] * o[i] * r * s * (1 + z[i] * (1 - s));
            if (c->din[2]) pn_f64(c->din[2])[i] += q * o[i] * r;
            if (c->din[0]) mean += w[i] * q * o[i] / (double)d;
        }
        for (int64_t i = 0; c->din[0] && i < d; i++) {
            double q = z ? dy[i] * z[i] / (1 + exp(-z[i])) : dy[i];
            pn_f64(c->din[0])[n * d + i] += r * (w[i] * q - o[i] * r * r * mean);
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "gated_rms_norm/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const gated_rms_norm_ref[];
const pn_op_impl *const gated_rms_norm_ref[] = { &impl, NULL };
