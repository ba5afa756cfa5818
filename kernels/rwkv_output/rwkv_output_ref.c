#include "rwkv_output.h"

enum { O, R, K, V, GATE, R_K };

/* c of the head whose first channel of a token is at `at`. */
static double bonus(const pn_op_call *c, int64_t at, int64_t first, int64_t d) {
    double sum = 0;
    for (int64_t i = 0; i < d; i++)
        sum += pn_f64(c->in[R])[at + i] * pn_f64(c->in[K])[at + i] * pn_f64(c->in[R_K])[first + i];
    return sum;
}

static pn_status forward(const pn_op_call *c) {
    const int64_t N = c->in[O]->shape[0], C = c->in[O]->shape[1], d = c->in[R_K]->shape[1];
    for (int64_t at = 0; at < N * C; at += d) {
        double s = bonus(c, at, at % C, d);
        for (int64_t i = at; i < at + d; i++)
            pn_f64(c->out[0])[i] = (pn_f64(c->in[O])[i] + s * pn_f64(c->in[V])[i]) * pn_f64(c->in[GATE])[i];
    }
    return PN_OK;
}

static void add(pn_tensor *x, int64_t i, double value) {
    if (x) pn_f64(x)[i] += value;
}

/* With do = dy * gate and dc = <do, v>: dr = dc k r_k, dk = dc r r_k, dr_k = sum dc r k, dv = c do. */
static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const int64_t N = c->in[O]->shape[0], C = c->in[O]->shape[1], d = c->in[R_K]->shape[1];
    const double *o = pn_f64(c->in[O]), *r = pn_f64(c->in[R]), *k = pn_f64(c->in[K]), *v = pn_f64(c->in[V]);
    const double *gate = pn_f64(c->in[GATE]), *r_k = pn_f64(c->in[R_K]), *dy = pn_f64(c->dout[0]);
    for (int64_t at = 0; at < N * C; at += d) {
        double s = bonus(c, at, at % C, d), ds = 0;
        for (int64_t i = at; i < at + d; i++) ds += dy[i] * gate[i] * v[i];
        for (int64_t i = at, ch = at % C; i < at + d; i++, ch++) {
            add(c->din[O], i, dy[i] * gate[i]);
            add(c->din[R], i, ds * k[i] * r_k[ch]);
            add(c->din[K], i, ds * r[i] * r_k[ch]);
            add(c->din[V], i, s * dy[i] * gate[i]);
            add(c->din[GATE], i, dy[i] * (o[i] + s * v[i]));
            add(c->din[R_K], ch, ds * r[i] * k[i]);
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "rwkv_output/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const rwkv_output_ref[];
const pn_op_impl *const rwkv_output_ref[] = { &impl, NULL };
