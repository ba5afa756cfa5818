#include "embedding.h"
#include "infer.h"

static pn_status forward(const pn_op_call *c) {
    const double *table = pn_f64(c->in[1]);
    double *y = pn_f64(c->out[0]);
    int64_t N = c->in[0]->shape[0], D = c->in[1]->shape[1];
    PN_TRY(pn_need_ids("embedding", "token id", c->in[0], 0, c->in[1]->shape[0]));
    for (int64_t n = 0; n < N; n++)
        for (int64_t i = 0; i < D; i++) y[n * D + i] = table[pn_i32(c->in[0])[n] * D + i];
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[1]) return PN_OK;
    const double *dy = pn_f64(c->dout[0]);
    double *dtable = pn_f64(c->din[1]);
    int64_t N = c->in[0]->shape[0], D = c->in[1]->shape[1];
    for (int64_t n = 0; n < N; n++)
        for (int64_t i = 0; i < D; i++) dtable[pn_i32(c->in[0])[n] * D + i] += dy[n * D + i];
    return PN_OK;
}

static const pn_op_impl impl = { .name = "embedding/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const embedding_ref[];
const pn_op_impl *const embedding_ref[] = { &impl, NULL };
