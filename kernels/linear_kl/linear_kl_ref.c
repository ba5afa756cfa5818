#include <math.h>

#include "infer.h"
#include "linear_kl.h"

static double weight(const pn_op_call *c, int64_t n) {
    return c->in[4] ? pn_f64(c->in[4])[n] : 1;
}

static double total_weight(const pn_op_call *c) {
    double total = 0;
    for (int64_t n = 0; n < c->in[0]->shape[0]; n++) total += weight(c, n);
    return total;
}

/* z_v = <h_n, W_v> / tau */
static void logits(const pn_tensor *h, const pn_tensor *W, int64_t n, double tau, double *z) {
    int64_t D = h->shape[1], V = W->shape[0];
    for (int64_t v = 0; v < V; v++) {
        z[v] = 0;
        for (int64_t i = 0; i < D; i++) z[v] += pn_f64(h)[n * D + i] * pn_f64(W)[v * D + i] / tau;
    }
}

static double log_sum_exp(const double *z, int64_t V) {
    double max = -INFINITY, sum = 0;
    for (int64_t v = 0; v < V; v++) max = fmax(max, z[v]);
    for (int64_t v = 0; v < V; v++) sum += exp(z[v] - max);
    return max + log(sum);
}

static int32_t first_of_largest(const double *z, int64_t V) {
    int64_t best = 0;
    for (int64_t v = 1; v < V; v++)
        if (z[v] > z[best]) best = v;
    return (int32_t)best;
}

static pn_status forward(const pn_op_call *c) {
    double tau = ((const pn_linear_kl_attr *)c->attr)->temperature, sum = 0, total = total_weight(c);
    int64_t N = c->in[0]->shape[0], V = c->in[1]->shape[0];
    double *kl = pn_f64(c->out[1]), *lse = pn_f64(c->out[2]), *z_s = c->scratch, *z_t = z_s + V;
    PN_TRY(pn_need_weights("linear_kl", c->in[4]));
    for (int64_t n = 0; n < N; n++) {
        logits(c->in[0], c->in[1], n, tau, z_s);
        logits(c->in[2], c->in[3], n, tau, z_t);
        double lse_s = lse[2 * n] = log_sum_exp(z_s, V), lse_t = lse[2 * n + 1] = log_sum_exp(z_t, V);
        pn_i32(c->out[3])[2 * n] = first_of_largest(z_s, V);
        pn_i32(c->out[3])[2 * n + 1] = first_of_largest(z_t, V);
        kl[n] = 0;
        for (int64_t v = 0; v < V; v++) kl[n] += exp(z_t[v] - lse_t) * ((z_t[v] - lse_t) - (z_s[v] - lse_s));
        sum += weight(c, n) * kl[n];
    }
    pn_f64(c->out[0])[0] = total > 0 ? tau * tau * sum / total : 0;
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    double tau = ((const pn_linear_kl_attr *)c->attr)->temperature, total = total_weight(c);
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1], V = c->in[1]->shape[0];
    const double *h = pn_f64(c->in[0]), *W = pn_f64(c->in[1]), *lse = pn_f64(c->out[2]);
    double *dh = pn_f64_or_null(c->din[0]), *dW = pn_f64_or_null(c->din[1]), *z_s = c->scratch, *z_t = z_s + V;
    for (int64_t n = 0; n < N; n++) {
        if (weight(c, n) == 0) continue;
        logits(c->in[0], c->in[1], n, tau, z_s);
        logits(c->in[2], c->in[3], n, tau, z_t);
        for (int64_t v = 0; v < V; v++) {
            double q = exp(z_s[v] - lse[2 * n]), p = exp(z_t[v] - lse[2 * n + 1]);
            double dz = tau * (q - p) * weight(c, n) / total * pn_f64(c->dout[0])[0];
            for (int64_t i = 0; dh && i < D; i++) dh[n * D + i] += dz * W[v * D + i];
            for (int64_t i = 0; dW && i < D; i++) dW[v * D + i] += dz * h[n * D + i];
        }
    }
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    (void)backward_pass;
    return 2 * (size_t)c->in[1]->shape[0] * sizeof(double);
}

static const pn_op_impl impl = {
    .name = "linear_kl/ref", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const linear_kl_ref[];
const pn_op_impl *const linear_kl_ref[] = { &impl, NULL };
