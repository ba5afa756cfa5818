#include <string.h>

#include "cpu/clones.h"
#include "cpu/span.h"
#include "cpu/vec.h"
#include "mix.h"

PN_CLONES static void add_scaled(float *y, const float *x, float p, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] += p * x[i];
}

static pn_status forward(const pn_op_call *c) {
    const pn_mix_attr *attr = c->attr;
    const float *p = pn_f32(c->in[0]) + attr->row * c->in[0]->shape[1];
    float *y = pn_f32(c->out[0]);
    int64_t n = pn_tensor_elems(c->out[0]);
    PN_FOR_SPANS(i, len, n) {
        memset(y + i, 0, (size_t)len * sizeof *y);
        for (int k = 1; k < c->n_in; k++)
            if (c->in[k]) add_scaled(y + i, pn_f32(c->in[k]) + i, p[k - 1], len);
    }
    return PN_OK;
}

/* <dy, x>: spans have sums of their own, added in order, so that threads do not change the result. */
static double dot(const float *dy, const float *x, int64_t n, double *span) {
    PN_FOR_SPANS(i, len, n) span[i / PN_SPAN] = (double)pn_dotf(dy + i, x + i, len);
    double sum = 0;
    for (int64_t i = 0; i < n; i += PN_SPAN) sum += span[i / PN_SPAN];
    return sum;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const pn_mix_attr *attr = c->attr;
    int64_t at = attr->row * c->in[0]->shape[1], n = pn_tensor_elems(c->dout[0]);
    const float *dy = pn_f32(c->dout[0]);
    for (int k = 1; k < c->n_in; k++) {
        if (!c->in[k]) continue;
        if (c->din[0]) pn_f32(c->din[0])[at + k - 1] += (float)dot(dy, pn_f32(c->in[k]), n, c->scratch);
        if (c->din[k]) {
            float *dx = pn_f32(c->din[k]), p = pn_f32(c->in[0])[at + k - 1];
            PN_FOR_SPANS(i, len, n) add_scaled(dx + i, dy + i, p, len);
        }
    }
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (!backward_pass || !c->wants[0]) return 0;
    return (size_t)(pn_tensor_elems(c->out[0]) / PN_SPAN + 1) * sizeof(double);
}

static const pn_op_impl impl = {
    .name = "mix/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const mix_cpu[];
const pn_op_impl *const mix_cpu[] = { &impl, NULL };
