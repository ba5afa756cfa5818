#include <math.h>

#include "decay_gate.h"

static pn_status forward(const pn_op_call *c) {
    const double *a = pn_f64(c->in[0]), *A_log = pn_f64(c->in[1]), *dt_bias = pn_f64(c->in[2]);
    double *g = pn_f64(c->out[0]);
    int64_t N = c->in[0]->shape[0], H = c->in[0]->shape[1];
    for (int64_t n = 0; n < N; n++)
        for (int64_t h = 0; h < H; h++) {
            double u = a[n * H + h] + dt_bias[h];
            g[n * H + h] = -exp(A_log[h]) * (fmax(u, 0) + log1p(exp(-fabs(u))));
        }
    return PN_OK;
}

/* du = -exp(A_log) sig(u) dg, da = du, d_dt_bias = sum_n du, dA_log = sum_n g dg */
static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const double *dg = pn_f64(c->dout[0]);
    double *da = pn_f64_or_null(c->din[0]), *dA_log = pn_f64_or_null(c->din[1]), *ddt = pn_f64_or_null(c->din[2]);
    int64_t N = c->in[0]->shape[0], H = c->in[0]->shape[1];
    for (int64_t n = 0; n < N; n++)
        for (int64_t h = 0; h < H; h++) {
            int64_t i = n * H + h;
            if (dA_log) dA_log[h] += pn_f64(c->out[0])[i] * dg[i];
            if (!da && !ddt) continue;
            double u = pn_f64(c->in[0])[i] + pn_f64(c->in[2])[h];
            double du = -exp(pn_f64(c->in[1])[h]) / (1 + exp(-u)) * dg[i];
            if (da) da[i] += du;
            if (ddt) ddt[h] += du;
        }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "decay_gate/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const decay_gate_ref[];
const pn_op_impl *const decay_gate_ref[] = { &impl, NULL };
