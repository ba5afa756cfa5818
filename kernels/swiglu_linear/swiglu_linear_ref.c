#include <math.h>

#include "swiglu_linear.h"

/* Scratch: h of one token, and its gradient. */
static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    return (size_t)c->in[0]->shape[1] * sizeof(double) * (backward ? 2 : 1);
}

static double sig(double x) {
    return 1 / (1 + exp(-x));
}

static pn_status forward(const pn_op_call *c) {
    const double *gate = pn_f64(c->in[0]), *up = pn_f64(c->in[1]), *w = pn_f64(c->in[2]);
    double *y = pn_f64(c->out[0]), *h = c->scratch;
    int64_t N = c->in[0]->shape[0], I = c->in[0]->shape[1], M = c->in[2]->shape[0];
    for (int64_t n = 0; n < N; n++, gate += I, up += I) {
        for (int64_t i = 0; i < I; i++) h[i] = gate[i] * sig(gate[i]) * up[i];
        for (int64_t m = 0; m < M; m++) {
            double sum = 0;
            for (int64_t i = 0; i < I; i++) sum += w[m * I + i] * h[i];
            y[n * M + m] = sum;
        }
    }
    return PN_OK;
}

/* dh = W^T dy; dup = dh silu(gate), dgate = dh up silu'(gate), silu'(x) = s (1 + x (1 - s)), s = sig(x); dW = dy h^T */
static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !pn_op_has_din(c)) return PN_OK;
    const int64_t N = c->in[0]->shape[0], I = c->in[0]->shape[1], M = c->dout[0]->shape[1];
    double *dgate = pn_f64_or_null(c->din[0]), *dup = pn_f64_or_null(c->din[1]), *dw = pn_f64_or_null(c->din[2]);
    double *h = c->scratch, *dh = h + I;
    for (int64_t n = 0; n < N; n++) {
        const double *gate = pn_f64(c->in[0]) + n * I, *up = dgate || dw ? pn_f64(c->in[1]) + n * I : NULL;
        const double *dy = pn_f64(c->dout[0]) + n * M;
        for (int64_t i = 0; i < I; i++) dh[i] = 0;
        for (int64_t m = 0; (dgate || dup) && m < M; m++)
            for (int64_t i = 0; i < I; i++) dh[i] += dy[m] * pn_f64(c->in[2])[m * I + i];
        for (int64_t i = 0; i < I; i++) {
            const double s = sig(gate[i]);
            if (dgate) dgate[n * I + i] += dh[i] * up[i] * s * (1 + gate[i] * (1 - s));
            if (dup) dup[n * I + i] += dh[i] * gate[i] * s;
            if (dw) h[i] = gate[i] * s * up[i];
        }
        for (int64_t m = 0; dw && m < M; m++)
            for (int64_t i = 0; i < I; i++) dw[m * I + i] += dy[m] * h[i];
    }
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = "swiglu_linear/ref", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const swiglu_linear_ref[];
const pn_op_impl *const swiglu_linear_ref[] = { &impl, NULL };
