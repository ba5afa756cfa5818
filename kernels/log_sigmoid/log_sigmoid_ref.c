#include <math.h>

#include "log_sigmoid.h"

static double log_sigmoid(double x) {
    return fmin(x, 0) - log1p(exp(-fabs(x)));
}

static pn_status forward(const pn_op_call *c) {
    const pn_log_sigmoid_attr *attr = c->attr;
    const double *x = pn_f64(c->in[0]);
    double *g = pn_f64(c->out[0]);
    for (int64_t i = 0, n = pn_tensor_elems(c->out[0]); i < n; i++)
        g[i] = fmax(attr->scale * log_sigmoid(x[i]), attr->min);
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    const pn_log_sigmoid_attr *attr = c->attr;
    const double *x = pn_f64(c->in[0]), *dg = pn_f64(c->dout[0]);
    double *dx = pn_f64(c->din[0]);
    for (int64_t i = 0, n = pn_tensor_elems(c->dout[0]); i < n; i++)
        if (attr->scale * log_sigmoid(x[i]) >= attr->min) dx[i] += dg[i] * attr->scale / (1 + exp(x[i]));
    return PN_OK;
}

static const pn_op_impl impl = { .name = "log_sigmoid/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const log_sigmoid_ref[];
const pn_op_impl *const log_sigmoid_ref[] = { &impl, NULL };
