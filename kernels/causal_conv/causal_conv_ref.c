#include "causal_conv.h"

#include <math.h>

/* Where position s of a document lives, s >= -W: element index in x, or -1 - index in state, or NONE. */
#define NONE INT64_MIN
static int64_t place(const pn_op_call *c, int64_t doc, int64_t s, int64_t channel) {
    const pn_causal_conv_attr *a = c->attr;
    int64_t channels = c->in[0]->shape[1];
    if (s >= 0) return (a->docs.offset[doc] + s) * channels + channel;
    return c->in[3] ? -1 - ((doc * channels + channel) * a->width + a->width + s) : NONE;
}
static double at(const pn_op_call *c, int64_t doc, int64_t s, int64_t channel) {
    int64_t p = place(c, doc, s, channel);
    return p == NONE ? 0 : p >= 0 ? pn_f64(c->in[0])[p] : pn_f64(c->in[3])[-1 - p];
}

static double silu(double x) {
    return x / (1 + exp(-x));
}
static double silu_grad(double x) {
    double s = 1 / (1 + exp(-x));
    return s * (1 + x * (1 - s));
}

/* b[c] + sum_w weight[c,0,w] x_{t-(W-1)+w}[c] */
static double convolve(const pn_op_call *c, int64_t doc, int64_t s, int64_t channel) {
    int64_t width = ((const pn_causal_conv_attr *)c->attr)->width;
    double sum = c->in[2] ? pn_f64(c->in[2])[channel] : 0;
    for (int64_t w = 0; w < width; w++)
        sum += pn_f64(c->in[1])[channel * width + w] * at(c, doc, s - (width - 1) + w, channel);
    return sum;
}

static pn_status forward(const pn_op_call *c) {
    const pn_causal_conv_attr *a = c->attr;
    int64_t channels = c->in[0]->shape[1];
    double *y = pn_f64(c->out[0]), *new_state = pn_f64(c->out[1]);
    for (int64_t doc = 0; doc < a->docs.n; doc++) {
        int64_t length = a->docs.offset[doc + 1] - a->docs.offset[doc];
        for (int64_t ch = 0; ch < channels; ch++) {
            for (int64_t s = 0; s < length; s++) {
                double u = convolve(c, doc, s, ch);
                y[place(c, doc, s, ch)] = a->silu ? silu(u) : u;
            }
            for (int64_t j = 0; j < a->width; j++)
                new_state[(doc * channels + ch) * a->width + j] = at(c, doc, length - a->width + j, ch);
        }
    }
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    const pn_causal_conv_attr *a = c->attr;
    if (!c->dout[0]) return PN_OK;
    int64_t channels = c->dout[0]->shape[1], width = a->width;
    double *dx = pn_f64_or_null(c->din[0]), *dw = pn_f64_or_null(c->din[1]), *db = pn_f64_or_null(c->din[2]);
    double *dstate = pn_f64_or_null(c->din[3]);
    for (int64_t doc = 0; doc < a->docs.n; doc++) {
        for (int64_t s = 0; s < a->docs.offset[doc + 1] - a->docs.offset[doc]; s++) {
            for (int64_t ch = 0; ch < channels; ch++) {
                double p = pn_f64(c->dout[0])[place(c, doc, s, ch)]; /* p = dy act' */
                if (a->silu) p *= silu_grad(convolve(c, doc, s, ch));
                if (db) db[ch] += p;
                for (int64_t w = 0; w < width; w++) {
                    int64_t from = place(c, doc, s - (width - 1) + w, ch);
                    if (dw) dw[ch * width + w] += p * at(c, doc, s - (width - 1) + w, ch);
                    if (from == NONE) continue;
                    if (from >= 0 && dx) dx[from] += p * pn_f64(c->in[1])[ch * width + w];
                    if (from < 0 && dstate) dstate[-1 - from] += p * pn_f64(c->in[1])[ch * width + w];
                }
            }
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "causal_conv/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const causal_conv_ref[];
const pn_op_impl *const causal_conv_ref[] = { &impl, NULL };
