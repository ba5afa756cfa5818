#include "head_scale.h"

enum { X, S, A };

static pn_status forward(const pn_op_call *c) {
    const pn_tensor *s = c->in[S];
    const int64_t N = c->in[X]->shape[0], C = c->in[X]->shape[1], H = s->shape[s->rank - 1];
    for (int64_t n = 0; n < N; n++)
        for (int64_t i = 0; i < C; i++) {
            double f = pn_f64(s)[(s->rank == 2 ? n * H : 0) + i / (C / H)];
            pn_f64(c->out[0])[n * C + i] =
                f * pn_f64(c->in[X])[n * C + i] + (c->in[A] ? pn_f64(c->in[A])[n * C + i] : 0);
        }
    return PN_OK;
}

/* dx = s dy, da = dy, ds_h = <dy, x> over the channels of head h (and over the tokens that share it) */
static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const pn_tensor *s = c->in[S];
    const int64_t N = c->dout[0]->shape[0], C = c->dout[0]->shape[1], H = s->shape[s->rank - 1];
    const double *dy = pn_f64(c->dout[0]);
    for (int64_t n = 0; n < N; n++)
        for (int64_t i = 0; i < C; i++) {
            int64_t at = n * C + i, f = (s->rank == 2 ? n * H : 0) + i / (C / H);
            if (c->din[X]) pn_f64(c->din[X])[at] += pn_f64(s)[f] * dy[at];
            if (c->din[S]) pn_f64(c->din[S])[f] += dy[at] * pn_f64(c->in[X])[at];
            if (c->din[A]) pn_f64(c->din[A])[at] += dy[at];
        }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "head_scale/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const head_scale_ref[];
const pn_op_impl *const head_scale_ref[] = { &impl, NULL };
