#include <math.h>

#include "cpu/logits.h"
#include "linear_argmax.h"

typedef struct work {      /* R = PN_LOGIT_ROWS at most */
    int parts;             /* P, of the vocabulary */
    int64_t rows, cols;    /* R and the width of a tile */
    float *tile;           /* [P, R, cols] */
    pn_first_choice *best; /* [P, R] */
} work;

static size_t carve(const pn_op_call *c, work *w) {
    int64_t N = c->in[0]->shape[0], V = c->in[1]->shape[0];
    w->parts = pn_vocab_parts(V);
    w->rows = N < PN_LOGIT_ROWS ? N : PN_LOGIT_ROWS;
    w->cols = V < PN_LOGIT_COLS ? V : PN_LOGIT_COLS;
    size_t all = (size_t)w->parts * (size_t)w->rows;
    pn_carve s = { .base = c->scratch };
    w->tile = pn_carve_take(&s, all * (size_t)w->cols * sizeof *w->tile);
    w->best = pn_carve_take(&s, all * sizeof *w->best);
    return s.n_bytes;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    (void)backward;
    pn_op_call counting = *c;
    counting.scratch = NULL;
    return carve(&counting, &(work){ 0 });
}

/* The best of one part of the vocabulary for rows n0 .. n0 + n - 1. */
static void part_best(const pn_op_call *c, const work *w, int part, int64_t n0, int64_t n) {
    int64_t D = c->in[0]->shape[1], V = c->in[1]->shape[0], end = pn_vocab_begin(V, w->parts, part + 1);
    float *tile = w->tile + part * w->rows * w->cols;
    pn_first_choice *best = w->best + part * w->rows;
    for (int64_t r = 0; r < n; r++) best[r] = (pn_first_choice){ .max = -INFINITY };
    for (int64_t v0 = pn_vocab_begin(V, w->parts, part); v0 < end; v0 += PN_LOGIT_COLS) {
        int64_t cols = end - v0 < PN_LOGIT_COLS ? end - v0 : PN_LOGIT_COLS;
        pn_logits_tile(tile, pn_f32(c->in[0]) + n0 * D, n, pn_f32(c->in[1]), v0, cols, D);
        for (int64_t r = 0; r < n; r++) pn_choice_add(&best[r], tile + r * cols, v0, pn_row_max(tile + r * cols, cols));
    }
}

static pn_status forward(const pn_op_call *c) {
    int64_t N = c->in[0]->shape[0];
    work w;
    carve(c, &w);
    for (int64_t n0 = 0; n0 < N; n0 += PN_LOGIT_ROWS) {
        int64_t rows = N - n0 < PN_LOGIT_ROWS ? N - n0 : PN_LOGIT_ROWS;
#pragma omp parallel for schedule(static, 1) num_threads(w.parts)
        for (int p = 0; p < w.parts; p++) part_best(c, &w, p, n0, rows);
        for (int64_t r = 0; r < rows; r++) {
            for (int p = 1; p < w.parts; p++) pn_choice_merge(&w.best[r], &w.best[p * w.rows + r]);
            pn_i32(c->out[0])[n0 + r] = w.best[r].id;
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "linear_argmax/cpu", .scratch_bytes = scratch_bytes, .forward = forward };
extern const pn_op_impl *const linear_argmax_cpu[];
const pn_op_impl *const linear_argmax_cpu[] = { &impl, NULL };
