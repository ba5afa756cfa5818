#include <math.h>

#include "sigmoid.h"

static pn_status forward(const pn_op_call *c) {
    const pn_sigmoid_attr *attr = c->attr;
    const double *x = pn_f64(c->in[0]);
    double *y = pn_f64(c->out[0]);
    for (int64_t i = 0, n = pn_tensor_elems(c->out[0]); i < n; i++) y[i] = attr->scale / (1 + exp(-x[i]));
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    const pn_sigmoid_attr *attr = c->attr;
    const double *y = pn_f64(c->out[0]), *dy = pn_f64(c->dout[0]);
    double *dx = pn_f64(c->din[0]);
    for (int64_t i = 0, n = pn_tensor_elems(c->dout[0]); i < n; i++) dx[i] += dy[i] * y[i] * (1 - y[i] / attr->scale);
    return PN_OK;
}

static const pn_op_impl impl = { .name = "sigmoid/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const sigmoid_ref[];
const pn_op_impl *const sigmoid_ref[] = { &impl, NULL };
