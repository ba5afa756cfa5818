#include <math.h>

#include "gate_softmax.h"

/* p = softmax of every row of a / T with `shift` added to column 0; returns the sum of that column. */
static double gates(const double *a, int64_t L, int64_t C, double T, double shift, double *p) {
    double spent = 0;
    for (int64_t l = 0; l < L; l++, a += C, p += C) {
        double most = a[0] / T + shift, sum = 0;
        for (int64_t c = 1; c < C; c++) most = fmax(most, a[c] / T);
        for (int64_t c = 0; c < C; c++) sum += p[c] = exp(a[c] / T + (c ? 0 : shift) - most);
        for (int64_t c = 0; c < C; c++) p[c] /= sum;
        spent += p[0];
    }
    return spent;
}

/* The shift is found by bisection: what it spends grows with it. At either end exp() has reached 0. */
static pn_status forward(const pn_op_call *c) {
    const pn_gate_softmax_attr *attr = c->attr;
    const double *a = pn_f64(c->in[0]);
    double *p = pn_f64(c->out[0]), T = attr->temperature, cost = 0;
    int64_t L = c->in[0]->shape[0], C = c->in[0]->shape[1];
    double least = 0, most = 0;
    for (int64_t i = 0; i < L * C; i++) {
        if (isinf(a[i])) continue;
        least = fmin(least, a[i] / T);
        most = fmax(most, a[i] / T);
    }
    double hi = most - least + 800, lo = -hi;
    for (int i = 0; attr->budget >= 0 && i < 200; i++) {
        double middle = (lo + hi) / 2;
        if (gates(a, L, C, T, middle, p) <= attr->budget)
            lo = middle;
        else
            hi = middle;
    }
    gates(a, L, C, T, attr->budget < 0 ? 0 : (lo + hi) / 2, p);
    for (int64_t i = 0; c->in[1] && i < L * C; i++) cost += p[i] * pn_f64(c->in[1])[i];
    pn_f64(c->out[1])[0] = cost;
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->din[0]) return PN_OK;
    const pn_gate_softmax_attr *attr = c->attr;
    const double *p = pn_f64(c->out[0]), *dp = pn_f64_or_null(c->dout[0]), *w = c->in[1] ? pn_f64(c->in[1]) : NULL;
    double *da = pn_f64(c->din[0]), dcost = c->dout[1] ? pn_f64(c->dout[1])[0] : 0, T = attr->temperature;
    int64_t L = c->in[0]->shape[0], C = c->in[0]->shape[1];
    double B = 0, dshift = 0;
    for (int64_t l = 0; l < L; l++) {
        double mean = 0;
        for (int64_t i = l * C; i < (l + 1) * C; i++) mean += p[i] * ((dp ? dp[i] : 0) + (w ? dcost * w[i] : 0));
        for (int64_t i = l * C; i < (l + 1) * C; i++) {
            double dz = p[i] * ((dp ? dp[i] : 0) + (w ? dcost * w[i] : 0) - mean);
            da[i] += dz / T;
            if (i == l * C) dshift += dz;
        }
        B += p[l * C] * (1 - p[l * C]);
    }
    if (attr->budget < 0 || B == 0) return PN_OK;
    for (int64_t l = 0; l < L; l++)
        for (int64_t k = 0; k < C; k++) da[l * C + k] -= p[l * C] * ((k == 0) - p[l * C + k]) / B * dshift / T;
    return PN_OK;
}

static const pn_op_impl impl = { .name = "gate_softmax/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const gate_softmax_ref[];
const pn_op_impl *const gate_softmax_ref[] = { &impl, NULL };
