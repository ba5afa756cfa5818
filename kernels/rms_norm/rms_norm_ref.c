#include <math.h>

#include "rms_norm.h"

static pn_status forward(const pn_op_call *c) {
    const pn_rms_norm_attr *attr = c->attr;
    const double *w = pn_f64(c->in[1]);
    int64_t M = attr->groups, d = c->in[0]->shape[1] / M, rows = c->in[0]->shape[0] * M; /* a row: one group */
    for (int64_t n = 0; n < rows; n++) {
        const double *x = pn_f64(c->in[0]) + n * d, *wn = w + n % M * d;
        double *y = pn_f64(c->out[0]) + n * d, sum = 0;
        for (int64_t i = 0; i < d; i++) sum += x[i] * x[i];
        double r = 1 / sqrt(sum / (double)d + attr->eps);
        for (int64_t i = 0; i < d; i++) y[i] = wn[i] * x[i] * r;
        pn_f64(c->out[1])[n] = r;
    }
    return PN_OK;
}

/* With c_i = w_i dy_i: dx = r (c - x r^2 mean(c * x)), dw = sum_n dy * x r. */
static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const pn_rms_norm_attr *attr = c->attr;
    int64_t M = attr->groups, d = c->in[0]->shape[1] / M, rows = c->in[0]->shape[0] * M;
    for (int64_t n = 0; n < rows; n++) {
        const double *x = pn_f64(c->in[0]) + n * d, *dy = pn_f64(c->dout[0]) + n * d;
        double r = pn_f64(c->out[1])[n], mean = 0;
        if (c->din[0]) {
            const double *w = pn_f64(c->in[1]) + n % M * d;
            double *dx = pn_f64(c->din[0]) + n * d;
            for (int64_t i = 0; i < d; i++) mean += w[i] * dy[i] * x[i] / (double)d;
            for (int64_t i = 0; i < d; i++) dx[i] += r * (w[i] * dy[i] - x[i] * r * r * mean);
        }
        if (c->din[1])
            for (int64_t i = 0; i < d; i++) pn_f64(c->din[1])[n % M * d + i] += dy[i] * x[i] * r;
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "rms_norm/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const rms_norm_ref[];
const pn_op_impl *const rms_norm_ref[] = { &impl, NULL };
