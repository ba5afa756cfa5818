#include <math.h>

#include "cpu/logits.h"
#include "linear_argmax.h"

typedef struct work {
    float *tile, *max; /* [PN_LOGIT_ROWS, PN_LOGIT_COLS], [PN_LOGIT_ROWS] */
} work;

static size_t carve(const pn_op_call *c, work *w) {
    size_t N = (size_t)c->in[0]->shape[0], V = (size_t)c->in[1]->shape[0];
    size_t rows = N < PN_LOGIT_ROWS ? N : PN_LOGIT_ROWS, cols = V < PN_LOGIT_COLS ? V : PN_LOGIT_COLS;
    pn_carve s = { .base = c->scratch };
    w->tile = pn_carve_take(&s, rows * cols * sizeof *w->tile);
    w->max = pn_carve_take(&s, rows * sizeof *w->max);
    return s.n_bytes;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    (void)backward;
    pn_op_call counting = *c;
    counting.scratch = NULL;
    return carve(&counting, &(work){ 0 });
}

static pn_status forward(const pn_op_call *c) {
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1], V = c->in[1]->shape[0];
    work w;
    carve(c, &w);
    for (int64_t n0 = 0; n0 < N; n0 += PN_LOGIT_ROWS) {
        int64_t rows = N - n0 < PN_LOGIT_ROWS ? N - n0 : PN_LOGIT_ROWS;
        int32_t *id = pn_i32(c->out[0]) + n0;
        for (int64_t r = 0; r < rows; r++) w.max[r] = -INFINITY, id[r] = 0;
        for (int64_t v0 = 0; v0 < V; v0 += PN_LOGIT_COLS) {
            int64_t cols = V - v0 < PN_LOGIT_COLS ? V - v0 : PN_LOGIT_COLS;
            pn_logits_tile(w.tile, pn_f32(c->in[0]) + n0 * D, rows, pn_f32(c->in[1]), v0, cols, D);
#pragma omp parallel for schedule(static) if (rows * cols > 16384)
            for (int64_t r = 0; r < rows; r++) {
                const float *z = w.tile + r * cols;
                float max = pn_row_max(z, cols);
                if (!(max > w.max[r])) continue; /* an equal one came first */
                int64_t v = 0;
                while (z[v] != max) v++;
                w.max[r] = max;
                id[r] = (int32_t)(v0 + v);
            }
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "linear_argmax/cpu", .scratch_bytes = scratch_bytes, .forward = forward };
extern const pn_op_impl *const linear_argmax_cpu[];
const pn_op_impl *const linear_argmax_cpu[] = { &impl, NULL };
