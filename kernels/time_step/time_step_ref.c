#include <math.h>

#include "time_step.h"

enum { RAW, A_LOG, BIAS };
enum { DT, GATE };

static double softplus(double u) {
    return fmax(u, 0) + log1p(exp(-fabs(u)));
}

static pn_status forward(const pn_op_call *c) {
    const pn_time_step_attr *attr = c->attr;
    int64_t N = c->in[RAW]->shape[0], H = c->in[RAW]->shape[1];
    for (int64_t i = 0; i < N * H; i++) {
        double dt = fmin(fmax(softplus(pn_f64(c->in[RAW])[i] + pn_f64(c->in[BIAS])[i % H]), attr->min), attr->max);
        pn_f64(c->out[DT])[i] = dt;
        pn_f64(c->out[GATE])[i] = -exp(pn_f64(c->in[A_LOG])[i % H]) * dt;
    }
    return PN_OK;
}

/* dA_log = sum g dg; d_dt += -exp(A_log) dg; du = sig(u) d_dt, 0 where clamped; da = du, d_dt_bias = sum du */
static pn_status backward(const pn_op_call *c) {
    const pn_time_step_attr *attr = c->attr;
    int64_t N = c->in[RAW]->shape[0], H = c->in[RAW]->shape[1];
    for (int64_t i = 0; i < N * H; i++) {
        double d_dt = c->dout[DT] ? pn_f64(c->dout[DT])[i] : 0, dg = c->dout[GATE] ? pn_f64(c->dout[GATE])[i] : 0;
        if (c->din[A_LOG]) pn_f64(c->din[A_LOG])[i % H] += pn_f64(c->out[GATE])[i] * dg;
        if (!c->din[RAW] && !c->din[BIAS]) continue;
        double u = pn_f64(c->in[RAW])[i] + pn_f64(c->in[BIAS])[i % H], dt = softplus(u);
        double du = (d_dt - exp(pn_f64(c->in[A_LOG])[i % H]) * dg) / (1 + exp(-u));
        if (dt < attr->min || dt > attr->max) du = 0;
        if (c->din[RAW]) pn_f64(c->din[RAW])[i] += du;
        if (c->din[BIAS]) pn_f64(c->din[BIAS])[i % H] += du;
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "time_step/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const time_step_ref[];
const pn_op_impl *const time_step_ref[] = { &impl, NULL };
