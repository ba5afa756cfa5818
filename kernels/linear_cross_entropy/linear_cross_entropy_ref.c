#include <math.h>

#include "infer.h"
#include "linear_cross_entropy.h"

static double weight(const pn_op_call *c, int64_t n) {
    if (pn_i32(c->in[2])[n] == PN_IGNORE) return 0;
    return c->in[3] ? pn_f64(c->in[3])[n] : 1;
}

static double total_weight(const pn_op_call *c) {
    double total = 0;
    for (int64_t n = 0; n < c->in[0]->shape[0]; n++) total += weight(c, n);
    return total;
}

static double logit(const pn_op_call *c, int64_t n, int64_t v) {
    int64_t D = c->in[0]->shape[1];
    const double *h = pn_f64(c->in[0]) + n * D, *w = pn_f64(c->in[1]) + v * D;
    double sum = 0;
    for (int64_t i = 0; i < D; i++) sum += h[i] * w[i];
    return sum;
}

static pn_status forward(const pn_op_call *c) {
    int64_t N = c->in[0]->shape[0], V = c->in[1]->shape[0];
    double *nll = pn_f64(c->out[1]), *lse = pn_f64(c->out[2]), *z = c->scratch, sum = 0, total = total_weight(c);
    PN_TRY(pn_need_ids("linear_cross_entropy", "target", c->in[2], PN_IGNORE, V));
    PN_TRY(pn_need_weights("linear_cross_entropy", c->in[3]));
    for (int64_t n = 0; n < N; n++) {
        int32_t target = pn_i32(c->in[2])[n];
        nll[n] = lse[n] = 0;
        if (target == PN_IGNORE) continue;
        double max = -INFINITY, exps = 0;
        for (int64_t v = 0; v < V; v++) max = fmax(max, z[v] = logit(c, n, v));
        for (int64_t v = 0; v < V; v++) exps += exp(z[v] - max);
        lse[n] = max + log(exps);
        nll[n] = lse[n] - z[target];
        sum += weight(c, n) * nll[n];
    }
    pn_f64(c->out[0])[0] = total > 0 ? sum / total : 0;
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1], V = c->in[1]->shape[0];
    const double *h = pn_f64(c->in[0]), *W = pn_f64(c->in[1]);
    double *dh = pn_f64_or_null(c->din[0]), *dW = pn_f64_or_null(c->din[1]);
    double total = total_weight(c), dloss = pn_f64(c->dout[0])[0];
    for (int64_t n = 0; n < N; n++) {
        if (weight(c, n) == 0) continue;
        for (int64_t v = 0; v < V; v++) {
            double p = exp(logit(c, n, v) - pn_f64(c->out[2])[n]);
            double dz = (p - (v == pn_i32(c->in[2])[n])) * weight(c, n) / total * dloss;
            for (int64_t i = 0; dh && i < D; i++) dh[n * D + i] += dz * W[v * D + i];
            for (int64_t i = 0; dW && i < D; i++) dW[v * D + i] += dz * h[n * D + i];
        }
    }
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    return backward_pass ? 0 : (size_t)c->in[1]->shape[0] * sizeof(double);
}

static const pn_op_impl impl = {
    .name = "linear_cross_entropy/ref", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const linear_cross_entropy_ref[];
const pn_op_impl *const linear_cross_entropy_ref[] = { &impl, NULL };
