#include "weighted_sum.h"

static pn_status forward(const pn_op_call *c) {
    const pn_weighted_sum_attr *attr = c->attr;
    double sum = 0;
    for (int i = 0; i < c->n_in; i++) sum += attr->weight[i] * (double)pn_f32(c->in[i])[0];
    pn_f32(c->out[0])[0] = (float)sum;
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    const pn_weighted_sum_attr *attr = c->attr;
    for (int i = 0; c->dout[0] && i < c->n_in; i++)
        if (c->din[i]) pn_f32(c->din[i])[0] += (float)(attr->weight[i] * (double)pn_f32(c->dout[0])[0]);
    return PN_OK;
}

static const pn_op_impl impl = { .name = "weighted_sum/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const weighted_sum_cpu[];
const pn_op_impl *const weighted_sum_cpu[] = { &impl, NULL };
