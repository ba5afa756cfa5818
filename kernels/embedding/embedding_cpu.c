#include <string.h>

#include "embedding.h"
#include "infer.h"

static pn_status forward(const pn_op_call *c) {
    const int32_t *ids = pn_i32(c->in[0]);
    const float *table = pn_f32(c->in[1]);
    float *y = pn_f32(c->out[0]);
    int64_t N = c->in[0]->shape[0], D = c->in[1]->shape[1];
    PN_TRY(pn_need_ids("embedding", "token id", c->in[0], 0, c->in[1]->shape[0]));
#pragma omp parallel for schedule(static) if (N * D > 65536)
    for (int64_t n = 0; n < N; n++) memcpy(y + n * D, table + ids[n] * D, (size_t)D * sizeof *y);
    return PN_OK;
}

/* Tokens share rows of the table, so threads share out its columns: every row is added to in token order. */
static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[1]) return PN_OK;
    const int32_t *ids = pn_i32(c->in[0]);
    const float *dy = pn_f32(c->dout[0]);
    float *dtable = pn_f32(c->din[1]);
    int64_t N = c->in[0]->shape[0], D = c->in[1]->shape[1], width = 128;
#pragma omp parallel for schedule(static) if (N * D > 65536)
    for (int64_t i0 = 0; i0 < D; i0 += width) {
        int64_t i1 = i0 + width < D ? i0 + width : D;
        for (int64_t n = 0; n < N; n++) {
            float *row = dtable + ids[n] * D;
            for (int64_t i = i0; i < i1; i++) row[i] += dy[n * D + i];
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "embedding/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const embedding_cpu[];
const pn_op_impl *const embedding_cpu[] = { &impl, NULL };
