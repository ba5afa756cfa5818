#include <math.h>

#include "add_rms_norm.h"

static pn_status forward(const pn_op_call *c) {
    const double *w = pn_f64(c->in[2]), eps = ((const pn_add_rms_norm_attr *)c->attr)->eps;
    int64_t N = c->in[0]->shape[0], d = c->in[0]->shape[1];
    for (int64_t n = 0; n < N; n++) {
        const double *x = pn_f64(c->in[0]) + n * d, *r = pn_f64(c->in[1]) + n * d;
        double *s = pn_f64(c->out[0]) + n * d, *y = pn_f64(c->out[1]) + n * d, sum = 0;
        for (int64_t i = 0; i < d; i++) s[i] = x[i] + r[i];
        for (int64_t i = 0; i < d; i++) sum += s[i] * s[i];
        double q = 1 / sqrt(sum / (double)d + eps);
        for (int64_t i = 0; i < d; i++) y[i] = w[i] * s[i] * q;
        pn_f64(c->out[2])[n] = q;
    }
    return PN_OK;
}

/* With c_i = w_i dy_i: dx = dr = ds + q (c - s q^2 mean(c * s)), dw = sum_n dy * s q. */
static pn_status backward(const pn_op_call *c) {
    const double *ds = pn_f64_or_null(c->dout[0]), *dy = pn_f64_or_null(c->dout[1]);
    int64_t N = c->in[0]->shape[0], d = c->in[0]->shape[1];
    for (int64_t n = 0; n < N; n++) {
        const double *s = pn_f64(c->out[0]) + n * d;
        double q = pn_f64(c->out[2])[n], mean = 0;
        bool joins = dy && (c->din[0] || c->din[1]); /* the gradient of y that of s */
        const double *w = joins ? pn_f64(c->in[2]) : NULL;
        for (int64_t i = 0; joins && i < d; i++) mean += w[i] * dy[n * d + i] * s[i] / (double)d;
        for (int64_t i = 0; i < d; i++) {
            double sum = ds ? ds[n * d + i] : 0;
            if (joins) sum += q * (w[i] * dy[n * d + i] - s[i] * q * q * mean);
            for (int k = 0; k < 2; k++)
                if (c->din[k]) pn_f64(c->din[k])[n * d + i] += sum;
            if (dy && c->din[2]) pn_f64(c->din[2])[i] += dy[n * d + i] * s[i] * q;
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "add_rms_norm/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const add_rms_norm_ref[];
const pn_op_impl *const add_rms_norm_ref[] = { &impl, NULL };
