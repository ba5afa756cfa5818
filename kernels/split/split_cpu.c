#include "split.h"

static pn_status forward(const pn_op_call *c) {
    const pn_split_attr *attr = c->attr;
    int64_t N = c->in[0]->shape[0], C = c->in[0]->shape[1];
#pragma omp parallel for schedule(static) if (N * C > 65536)
    for (int64_t n = 0; n < N; n++) {
        const float *from = pn_f32(c->in[0]) + n * C;
        for (int64_t k = 0; k < attr->n; from += attr->width[k++])
            memcpy(pn_f32(c->out[k]) + n * attr->width[k], from, (size_t)attr->width[k] * sizeof *from);
    }
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->din[0]) return PN_OK;
    const pn_split_attr *attr = c->attr;
    int64_t N = c->din[0]->shape[0], C = c->din[0]->shape[1];
#pragma omp parallel for schedule(static) if (N * C > 65536)
    for (int64_t n = 0; n < N; n++) {
        float *dx = pn_f32(c->din[0]) + n * C;
        for (int64_t k = 0; k < attr->n; dx += attr->width[k++]) {
            if (!c->dout[k]) continue;
            const float *dy = pn_f32(c->dout[k]) + n * attr->width[k];
#pragma omp simd
            for (int64_t i = 0; i < attr->width[k]; i++) dx[i] += dy[i];
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "split/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const split_cpu[];
const pn_op_impl *const split_cpu[] = { &impl, NULL };
