#include <math.h>

#include "swiglu.h"

static pn_status forward(const pn_op_call *c) {
    const double *gate = pn_f64(c->in[0]), *up = pn_f64(c->in[1]);
    double *y = pn_f64(c->out[0]);
    for (int64_t i = 0, n = pn_tensor_elems(c->out[0]); i < n; i++) y[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
    return PN_OK;
}

/* silu'(x) = s (1 + x (1 - s)), s = sig(x) */
static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const double *gate = pn_f64(c->in[0]), *dy = pn_f64(c->dout[0]);
    double *dgate = pn_f64_or_null(c->din[0]), *dup = pn_f64_or_null(c->din[1]);
    for (int64_t i = 0, n = pn_tensor_elems(c->dout[0]); i < n; i++) {
        double s = 1 / (1 + exp(-gate[i]));
        if (dgate) dgate[i] += dy[i] * pn_f64(c->in[1])[i] * s * (1 + gate[i] * (1 - s));
        if (dup) dup[i] += dy[i] * gate[i] * s;
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "swiglu/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const swiglu_ref[];
const pn_op_impl *const swiglu_ref[] = { &impl, NULL };
