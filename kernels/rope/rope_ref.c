#include "rope.h"

#include <math.h>

/* y_i = x_i cos(n f_i) - x_{i+d/2} sin(n f_i),  y_{i+d/2} = x_{i+d/2} cos(n f_i) + x_i sin(n f_i),  f_i = theta^(-2i/d)
 */
static void rotate(const pn_rope_attr *a, double direction, const double *x, double *y, bool add) {
    int64_t d = a->head_dim, half = d / 2, width = a->heads * d;
    for (int64_t doc = 0; doc < a->docs.n; doc++) {
        for (int64_t t = a->docs.offset[doc]; t < a->docs.offset[doc + 1]; t++) {
            double n = (double)(pn_docs_past(&a->docs, doc) + t - a->docs.offset[doc]);
            for (int64_t i = 0; i < width; i++) {
                int64_t k = i % d;
                if (k >= half) continue;
                double angle = direction * n * pow(a->theta, -2.0 * (double)k / (double)d);
                int64_t lo = t * width + i, hi = lo + half;
                double y_lo = x[lo] * cos(angle) - x[hi] * sin(angle), y_hi = x[hi] * cos(angle) + x[lo] * sin(angle);
                y[lo] = add ? y[lo] + y_lo : y_lo;
                y[hi] = add ? y[hi] + y_hi : y_hi;
            }
        }
    }
}

static pn_status forward(const pn_op_call *c) {
    rotate(c->attr, 1, pn_f64(c->in[0]), pn_f64(c->out[0]), false);
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (c->dout[0] && c->din[0]) rotate(c->attr, -1, pn_f64(c->dout[0]), pn_f64(c->din[0]), true);
    return PN_OK;
}

static const pn_op_impl impl = { .name = "rope/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const rope_ref[];
const pn_op_impl *const rope_ref[] = { &impl, NULL };
