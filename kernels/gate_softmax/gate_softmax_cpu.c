#include <math.h>

#include "gate_softmax.h"

/* A few hundred numbers in all: one thread, in double. With d_l = z_l0 - log sum_{c>0} exp z_lc, the share of candidate
 * 0 is the logistic function of d_l + s, and the others share the rest: the search for s needs only the d_l. */

static double logistic(double x) {
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

/* log sum_{c>0} exp(a_c / T), -infinity when there is none. */
static double log_rest(const float *a, int64_t C, double T) {
    double most = -INFINITY, sum = 0;
    for (int64_t c = 1; c < C; c++) most = fmax(most, a[c] / T);
    if (isinf(most)) return most;
    for (int64_t c = 1; c < C; c++) sum += exp(a[c] / T - most);
    return most + log(sum);
}

/* s by bisection, until two neighbouring doubles are left. */
static double find_shift(const double *d, int64_t L, double budget) {
    double lo = 0, hi = 0;
    for (int64_t l = 0; l < L; l++) {
        if (isinf(d[l])) continue;
        lo = fmin(lo, -d[l]);
        hi = fmax(hi, -d[l]);
    }
    lo -= 800;
    hi += 800;
    for (;;) {
        double middle = (lo + hi) / 2, spent = 0;
        if (middle <= lo || middle >= hi) return middle;
        for (int64_t l = 0; l < L; l++) spent += logistic(d[l] + middle);
        if (spent <= budget)
            lo = middle;
        else
            hi = middle;
    }
}

static pn_status forward(const pn_op_call *c) {
    const pn_gate_softmax_attr *attr = c->attr;
    const float *a = pn_f32(c->in[0]), *w = c->in[1] ? pn_f32(c->in[1]) : NULL;
    float *p = pn_f32(c->out[0]);
    int64_t L = c->in[0]->shape[0], C = c->in[0]->shape[1];
    double *d = c->scratch, *rest = d + L, T = attr->temperature, cost = 0;
    for (int64_t l = 0; l < L; l++) {
        rest[l] = log_rest(a + l * C, C, T);
        d[l] = a[l * C] / T - rest[l];
    }
    double shift = attr->budget < 0 ? 0 : find_shift(d, L, attr->budget);
    for (int64_t l = 0; l < L; l++) {
        double first = logistic(d[l] + shift), others = logistic(-d[l] - shift);
        p[l * C] = (float)first;
        for (int64_t k = 1; k < C; k++)
            p[l * C + k] = isinf(rest[l]) ? 0 : (float)(others * exp(a[l * C + k] / T - rest[l]));
    }
    for (int64_t i = 0; w && i < L * C; i++) cost += (double)p[i] * w[i];
    pn_f32(c->out[1])[0] = (float)cost;
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->din[0]) return PN_OK;
    const pn_gate_softmax_attr *attr = c->attr;
    const float *p = pn_f32(c->out[0]), *dp = pn_f32_or_null(c->dout[0]), *w = c->in[1] ? pn_f32(c->in[1]) : NULL;
    float *da = pn_f32(c->din[0]);
    int64_t L = c->in[0]->shape[0], C = c->in[0]->shape[1];
    double *dz = c->scratch, dcost = c->dout[1] ? (double)pn_f32(c->dout[1])[0] : 0, B = 0, dshift = 0;
    for (int64_t l = 0; l < L; l++) {
        double mean = 0;
        for (int64_t i = l * C; i < (l + 1) * C; i++) {
            dz[i] = (dp ? (double)dp[i] : 0) + (w ? dcost * w[i] : 0);
            mean += p[i] * dz[i];
        }
        for (int64_t i = l * C; i < (l + 1) * C; i++) dz[i] = p[i] * (dz[i] - mean);
        dshift += dz[l * C];
        B += p[l * C] * (1 - (double)p[l * C]);
    }
    double k = attr->budget < 0 || B == 0 ? 0 : dshift / B;
    for (int64_t l = 0; l < L; l++)
        for (int64_t i = l * C; i < (l + 1) * C; i++)
            da[i] += (float)((dz[i] - k * p[l * C] * ((i == l * C) - (double)p[i])) / attr->temperature);
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    int64_t L = c->in[0]->shape[0], C = c->in[0]->shape[1];
    return (size_t)(backward_pass ? L * C : 2 * L) * sizeof(double);
}

static const pn_op_impl impl = {
    .name = "gate_softmax/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const gate_softmax_cpu[];
const pn_op_impl *const gate_softmax_cpu[] = { &impl, NULL };
