#include <math.h>

#include "tanh.h"

static pn_status forward(const pn_op_call *c) {
    const double *x = pn_f64(c->in[0]);
    double *y = pn_f64(c->out[0]);
    for (int64_t i = 0, n = pn_tensor_elems(c->out[0]); i < n; i++) y[i] = tanh(x[i]);
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    const double *y = pn_f64(c->out[0]), *dy = pn_f64(c->dout[0]);
    double *dx = pn_f64(c->din[0]);
    for (int64_t i = 0, n = pn_tensor_elems(c->dout[0]); i < n; i++) dx[i] += dy[i] * (1 - y[i] * y[i]);
    return PN_OK;
}

static const pn_op_impl impl = { .name = "tanh/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const tanh_ref[];
const pn_op_impl *const tanh_ref[] = { &impl, NULL };
