#include "mix.h"

static pn_status forward(const pn_op_call *c) {
    const pn_mix_attr *attr = c->attr;
    const double *p = pn_f64(c->in[0]) + attr->row * c->in[0]->shape[1];
    double *y = pn_f64(c->out[0]);
    for (int64_t i = 0, n = pn_tensor_elems(c->out[0]); i < n; i++) {
        y[i] = 0;
        for (int k = 1; k < c->n_in; k++)
            if (c->in[k]) y[i] += p[k - 1] * pn_f64(c->in[k])[i];
    }
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const pn_mix_attr *attr = c->attr;
    int64_t at = attr->row * c->in[0]->shape[1], n = pn_tensor_elems(c->dout[0]);
    const double *dy = pn_f64(c->dout[0]);
    for (int k = 1; k < c->n_in; k++) {
        for (int64_t i = 0; c->in[k] && c->din[k] && i < n; i++)
            pn_f64(c->din[k])[i] += pn_f64(c->in[0])[at + k - 1] * dy[i];
        for (int64_t i = 0; c->in[k] && c->din[0] && i < n; i++)
            pn_f64(c->din[0])[at + k - 1] += dy[i] * pn_f64(c->in[k])[i];
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "mix/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const mix_ref[];
const pn_op_impl *const mix_ref[] = { &impl, NULL };
