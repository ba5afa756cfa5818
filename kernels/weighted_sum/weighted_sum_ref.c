#include "weighted_sum.h"

static pn_status forward(const pn_op_call *c) {
    const pn_weighted_sum_attr *attr = c->attr;
    double sum = 0;
    for (int i = 0; i < c->n_in; i++) sum += attr->weight[i] * pn_f64(c->in[i])[0];
    pn_f64(c->out[0])[0] = sum;
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    const pn_weighted_sum_attr *attr = c->attr;
    for (int i = 0; c->dout[0] && i < c->n_in; i++)
        if (c->din[i]) pn_f64(c->din[i])[0] += attr->weight[i] * pn_f64(c->dout[0])[0];
    return PN_OK;
}

static const pn_op_impl impl = { .name = "weighted_sum/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const weighted_sum_ref[];
const pn_op_impl *const weighted_sum_ref[] = { &impl, NULL };
