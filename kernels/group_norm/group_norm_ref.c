#include <math.h>

#include "group_norm.h"

enum { X, SCALE, SHIFT };
enum { Y, MEAN, RSTD };

static pn_status forward(const pn_op_call *c) {
    const pn_group_norm_attr *attr = c->attr;
    int64_t G = attr->groups, d = c->in[X]->shape[1] / G, rows = c->in[X]->shape[0] * G; /* a row: one group */
    for (int64_t n = 0; n < rows; n++) {
        const double *x = pn_f64(c->in[X]) + n * d, *w = pn_f64(c->in[SCALE]) + n % G * d;
        const double *b = pn_f64(c->in[SHIFT]) + n % G * d;
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < d; i++) mean += x[i] / (double)d;
        for (int64_t i = 0; i < d; i++) variance += (x[i] - mean) * (x[i] - mean) / (double)d;
        double r = 1 / sqrt(variance + attr->eps);
        for (int64_t i = 0; i < d; i++) pn_f64(c->out[Y])[n * d + i] = w[i] * (x[i] - mean) * r + b[i];
        pn_f64(c->out[MEAN])[n] = mean;
        pn_f64(c->out[RSTD])[n] = r;
    }
    return PN_OK;
}

/* With z = (x - mean) r and c = w * dy: dx = r (c - mean(c) - z mean(c * z)), dw = sum dy * z, db = sum dy. */
static pn_status backward(const pn_op_call *c) {
    if (!c->dout[Y]) return PN_OK;
    const pn_group_norm_attr *attr = c->attr;
    int64_t G = attr->groups, d = c->in[X]->shape[1] / G, rows = c->in[X]->shape[0] * G;
    for (int64_t n = 0; n < rows; n++) {
        const double *dy = pn_f64(c->dout[Y]) + n * d;
        int64_t first = n % G * d;
        for (int64_t i = 0; c->din[SHIFT] && i < d; i++) pn_f64(c->din[SHIFT])[first + i] += dy[i];
        if (!c->din[X] && !c->din[SCALE]) continue;
        const double *x = pn_f64(c->in[X]) + n * d, mean = pn_f64(c->out[MEAN])[n], r = pn_f64(c->out[RSTD])[n];
        for (int64_t i = 0; c->din[SCALE] && i < d; i++) pn_f64(c->din[SCALE])[first + i] += dy[i] * (x[i] - mean) * r;
        if (!c->din[X]) continue;
        const double *w = pn_f64(c->in[SCALE]) + first;
        double mean_c = 0, mean_cz = 0;
        for (int64_t i = 0; i < d; i++) {
            mean_c += w[i] * dy[i] / (double)d;
            mean_cz += w[i] * dy[i] * (x[i] - mean) * r / (double)d;
        }
        for (int64_t i = 0; i < d; i++)
            pn_f64(c->din[X])[n * d + i] += r * (w[i] * dy[i] - mean_c - (x[i] - mean) * r * mean_cz);
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "group_norm/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const group_norm_ref[];
const pn_op_impl *const group_norm_ref[] = { &impl, NULL };
