#include <math.h>

#include "linear_argmax.h"

static pn_status forward(const pn_op_call *c) {
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1], V = c->in[1]->shape[0];
    for (int64_t n = 0; n < N; n++) {
        const double *h = pn_f64(c->in[0]) + n * D;
        double max = -INFINITY;
        pn_i32(c->out[0])[n] = 0;
        for (int64_t v = 0; v < V; v++) {
            double z = 0;
            for (int64_t i = 0; i < D; i++) z += h[i] * pn_f64(c->in[1])[v * D + i];
            if (z > max) {
                max = z;
                pn_i32(c->out[0])[n] = (int32_t)v;
            }
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "linear_argmax/ref", .forward = forward };
extern const pn_op_impl *const linear_argmax_ref[];
const pn_op_impl *const linear_argmax_ref[] = { &impl, NULL };
