#include "linear.h"

static pn_status forward(const pn_op_call *c) {
    const double *x = pn_f64(c->in[0]), *w = pn_f64(c->in[1]), *b = pn_f64_or_null(c->in[2]);
    double *y = pn_f64(c->out[0]);
    int64_t N = c->in[0]->shape[0], K = c->in[1]->shape[1], M = c->in[1]->shape[0];
    for (int64_t n = 0; n < N; n++)
        for (int64_t o = 0; o < M; o++) {
            double sum = b ? b[o] : 0;
            for (int64_t i = 0; i < K; i++) sum += w[o * K + i] * x[n * K + i];
            y[n * M + o] = sum;
        }
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const double *dy = pn_f64(c->dout[0]);
    int64_t N = c->in[0]->shape[0], K = c->in[1]->shape[1], M = c->in[1]->shape[0];
    double *dx = pn_f64_or_null(c->din[0]), *dw = pn_f64_or_null(c->din[1]), *db = pn_f64_or_null(c->din[2]);
    for (int64_t n = 0; n < N; n++)
        for (int64_t o = 0; o < M; o++) {
            double g = dy[n * M + o];
            for (int64_t i = 0; dx && i < K; i++) dx[n * K + i] += g * pn_f64(c->in[1])[o * K + i];
            for (int64_t i = 0; dw && i < K; i++) dw[o * K + i] += g * pn_f64(c->in[0])[n * K + i];
            if (db) db[o] += g;
        }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "linear/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const linear_ref[];
const pn_op_impl *const linear_ref[] = { &impl, NULL };
