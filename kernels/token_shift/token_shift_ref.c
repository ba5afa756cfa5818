#include "token_shift.h"

enum { X, MIX, PREVIOUS };
enum { Y, LAST };

/* Channel i of the input before token t of a document. */
static double before(const pn_op_call *c, int64_t doc, int64_t t, int64_t i) {
    const pn_token_shift_attr *attr = c->attr;
    int64_t D = c->in[X]->shape[1];
    if (t > attr->docs.offset[doc]) return pn_f64(c->in[X])[(t - 1) * D + i];
    return c->in[PREVIOUS] ? pn_f64(c->in[PREVIOUS])[doc * D + i] : 0;
}

static pn_status forward(const pn_op_call *c) {
    const pn_token_shift_attr *attr = c->attr;
    int64_t D = c->in[X]->shape[1];
    for (int64_t doc = 0; doc < attr->docs.n; doc++) {
        int64_t begin = attr->docs.offset[doc], end = attr->docs.offset[doc + 1];
        for (int64_t t = begin; t < end; t++)
            for (int64_t i = 0; i < D; i++) {
                double x = pn_f64(c->in[X])[t * D + i];
                pn_f64(c->out[Y])[t * D + i] = x + pn_f64(c->in[MIX])[i] * (before(c, doc, t, i) - x);
            }
        for (int64_t i = 0; i < D; i++) pn_f64(c->out[LAST])[doc * D + i] = before(c, doc, end, i);
    }
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[Y]) return PN_OK;
    const pn_token_shift_attr *attr = c->attr;
    int64_t D = c->dout[Y]->shape[1];
    for (int64_t doc = 0; doc < attr->docs.n; doc++)
        for (int64_t begin = attr->docs.offset[doc], t = begin; t < attr->docs.offset[doc + 1]; t++)
            for (int64_t i = 0; i < D; i++) {
                double dy = pn_f64(c->dout[Y])[t * D + i];
                if (c->din[MIX]) pn_f64(c->din[MIX])[i] += (before(c, doc, t, i) - pn_f64(c->in[X])[t * D + i]) * dy;
                if (c->din[X]) {
                    double w = pn_f64(c->in[MIX])[i];
                    pn_f64(c->din[X])[t * D + i] += (1 - w) * dy;
                    if (t > begin) pn_f64(c->din[X])[(t - 1) * D + i] += w * dy;
                }
                if (c->din[PREVIOUS] && t == begin) pn_f64(c->din[PREVIOUS])[doc * D + i] += pn_f64(c->in[MIX])[i] * dy;
            }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "token_shift/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const token_shift_ref[];
const pn_op_impl *const token_shift_ref[] = { &impl, NULL };
