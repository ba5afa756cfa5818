#include "feature_loss.h"

static pn_status forward(const pn_op_call *c) {
    const double *y = pn_f64(c->in[0]), *t = pn_f64(c->in[1]);
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1];
    double error = 0, variance = 0, energy = 0;
    for (int64_t i = 0; i < D; i++) {
        double mean = 0;
        for (int64_t n = 0; n < N; n++) mean += t[n * D + i] / (double)N;
        for (int64_t n = 0; n < N; n++) {
            double e = y[n * D + i] - t[n * D + i], v = t[n * D + i] - mean;
            error += e * e;
            variance += v * v;
            energy += t[n * D + i] * t[n * D + i];
        }
    }
    double S = variance > PN_FEATURE_LOSS_MIN_VARIANCE * energy ? variance : (double)(N * D);
    pn_f64(c->out[0])[0] = N * D > 0 ? error / S : 0;
    pn_f64(c->out[1])[0] = S;
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    const double *y = pn_f64(c->in[0]), *t = pn_f64(c->in[1]);
    for (int64_t i = 0, n = pn_tensor_elems(c->in[0]); i < n; i++)
        pn_f64(c->din[0])[i] += 2 * (y[i] - t[i]) / pn_f64(c->out[1])[0] * pn_f64(c->dout[0])[0];
    return PN_OK;
}

static const pn_op_impl impl = { .name = "feature_loss/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const feature_loss_ref[];
const pn_op_impl *const feature_loss_ref[] = { &impl, NULL };
