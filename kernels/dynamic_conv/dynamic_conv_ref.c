#include "dynamic_conv.h"

#include <math.h>

/* Where position s of a document lives, s >= -W: element index in c, or -1 - index in state, or NONE. */
#define NONE INT64_MIN
static int64_t place(const pn_op_call *c, int64_t doc, int64_t s, int64_t channel) {
    const pn_dynamic_conv_attr *a = c->attr;
    int64_t channels = c->in[0]->shape[1];
    if (s >= 0) return (a->docs.offset[doc] + s) * channels + channel;
    return c->in[4] ? -1 - ((doc * channels + channel) * a->width + a->width + s) : NONE;
}
static double at(const pn_op_call *c, int64_t doc, int64_t s, int64_t channel) {
    int64_t p = place(c, doc, s, channel);
    return p == NONE ? 0 : p >= 0 ? pn_f64(c->in[0])[p] : pn_f64(c->in[4])[-1 - p];
}

/* K_t[ch][w] = <w2[ch*W + w], h_t> + b2[ch*W + w] */
static double tap(const pn_op_call *c, int64_t token, int64_t row) {
    int64_t rank = c->in[1]->shape[1];
    const double *h = pn_f64(c->in[1]) + token * rank, *w2 = pn_f64(c->in[2]) + row * rank;
    double sum = pn_f64(c->in[3])[row];
    for (int64_t r = 0; r < rank; r++) sum += w2[r] * h[r];
    return sum;
}

/* y_t[ch] = sum_w K_t[ch][w] c_{t-(W-1)+w}[ch] */
static double convolve(const pn_op_call *c, int64_t doc, int64_t s, int64_t ch) {
    const pn_dynamic_conv_attr *a = c->attr;
    double y = 0;
    for (int64_t w = 0; w < a->width; w++)
        y += tap(c, a->docs.offset[doc] + s, ch * a->width + w) * at(c, doc, s - (a->width - 1) + w, ch);
    return y;
}

static pn_status forward(const pn_op_call *c) {
    const pn_dynamic_conv_attr *a = c->attr;
    int64_t channels = c->in[0]->shape[1];
    double *v = pn_f64(c->out[0]), *new_state = pn_f64(c->out[1]);
    for (int64_t doc = 0; doc < a->docs.n; doc++) {
        int64_t length = a->docs.offset[doc + 1] - a->docs.offset[doc];
        for (int64_t ch = 0; ch < channels; ch++) {
            for (int64_t s = 0; s < length; s++) {
                double y = convolve(c, doc, s, ch);
                v[place(c, doc, s, ch)] = y / (1 + exp(-y));
            }
            for (int64_t j = 0; j < a->width; j++)
                new_state[(doc * channels + ch) * a->width + j] = at(c, doc, length - a->width + j, ch);
        }
    }
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    const pn_dynamic_conv_attr *a = c->attr;
    if (!c->dout[0]) return PN_OK;
    int64_t channels = c->in[0]->shape[1], rank = c->in[1]->shape[1], width = a->width;
    double *dc = pn_f64_or_null(c->din[0]), *dh = pn_f64_or_null(c->din[1]), *dw2 = pn_f64_or_null(c->din[2]);
    double *db2 = pn_f64_or_null(c->din[3]), *dstate = pn_f64_or_null(c->din[4]);
    for (int64_t doc = 0; doc < a->docs.n; doc++) {
        for (int64_t s = 0; s < a->docs.offset[doc + 1] - a->docs.offset[doc]; s++) {
            int64_t token = a->docs.offset[doc] + s;
            for (int64_t ch = 0; ch < channels; ch++) {
                double y = convolve(c, doc, s, ch), sig = 1 / (1 + exp(-y));
                double p = pn_f64(c->dout[0])[token * channels + ch] * sig * (1 + y * (1 - sig)); /* p = dv silu'(y) */
                for (int64_t w = 0; w < width; w++) {
                    int64_t row = ch * width + w, from = place(c, doc, s - (width - 1) + w, ch);
                    double dk = p * at(c, doc, s - (width - 1) + w, ch);
                    if (db2) db2[row] += dk;
                    for (int64_t r = 0; r < rank; r++) {
                        if (dw2) dw2[row * rank + r] += dk * pn_f64(c->in[1])[token * rank + r];
                        if (dh) dh[token * rank + r] += dk * pn_f64(c->in[2])[row * rank + r];
                    }
                    if (from == NONE) continue;
                    if (from >= 0 && dc) dc[from] += p * tap(c, token, row);
                    if (from < 0 && dstate) dstate[-1 - from] += p * tap(c, token, row);
                }
            }
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "dynamic_conv/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const dynamic_conv_ref[];
const pn_op_impl *const dynamic_conv_ref[] = { &impl, NULL };
