#include "split.h"

static pn_status forward(const pn_op_call *c) {
    const pn_split_attr *attr = c->attr;
    int64_t N = c->in[0]->shape[0], C = c->in[0]->shape[1], first = 0;
    for (int64_t k = 0; k < attr->n; first += attr->width[k++])
        for (int64_t n = 0; n < N; n++)
            for (int64_t i = 0; i < attr->width[k]; i++)
                pn_f64(c->out[k])[n * attr->width[k] + i] = pn_f64(c->in[0])[n * C + first + i];
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->din[0]) return PN_OK;
    const pn_split_attr *attr = c->attr;
    int64_t N = c->din[0]->shape[0], C = c->din[0]->shape[1], first = 0;
    for (int64_t k = 0; k < attr->n; first += attr->width[k++])
        for (int64_t n = 0; c->dout[k] && n < N; n++)
            for (int64_t i = 0; i < attr->width[k]; i++)
                pn_f64(c->din[0])[n * C + first + i] += pn_f64(c->dout[k])[n * attr->width[k] + i];
    return PN_OK;
}

static const pn_op_impl impl = { .name = "split/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const split_ref[];
const pn_op_impl *const split_ref[] = { &impl, NULL };
