/* The chunkwise form (blocks.md 5.4): 64 tokens at a time by matrix products instead of one after the other.
 *
 * With S the state at a chunk's start and L_i = g_1 + .. + g_i inside it,
 *
 *     A_ij = sum_n q_i[n] k_j[n] e^{L_i[n] - L_j[n]}    j <= i
 *     O    = scale ((e^L Q) S + A V)
 *     S'   = diag(e^{L_C}) S + (e^{L_C - L} K)^T V
 *
 * so only one step per chunk is sequential. Work is split over documents and heads; a task walks its chunks in order
 * with everything but the inputs in the core's own cache. Heads that the threads cannot share out evenly are split by
 * columns of V as well: the columns of the state do not interact. Results do not depend on the split or the number of
 * threads.
 */
#include "gated_linear_chunk.h"

#include <omp.h>

#include "cpu/column_tasks.h"

enum { C = PN_GLIN_C };

typedef struct forward_work {
    pn_glin_tiles t;
    float *S; /* [dk, cols] the state where it is not saved */
} forward_work;

static size_t forward_floats(const pn_glin_dims *d) {
    return pn_glin_tiles_floats(d) + (size_t)pn_whole_lines(d->size);
}
static forward_work forward_work_at(const pn_glin_dims *d, float *at) {
    forward_work w = { .t = pn_glin_tiles_at(d, &at) };
    w.S = pn_take(&at, d->size);
    return w;
}

/* A state's columns. x NULL: zero, not to be read. */
typedef struct state {
    float *x;
    int64_t ld;
} state;

/* `cols` columns of a head in one chunk, from the state at its start to the one at its end; they may be the same
 * memory. */
static void chunk_forward(const pn_glin_dims *d, int64_t n, int64_t cols, const float *v, state S, state next, float *o,
                          forward_work *w) {
    const pn_glin_tiles *t = &w->t;
    pn_mm out = pn_mm_of(n, cols, n, t->A, C, v, d->ldv, o, d->ldo);
    out.form = PN_MM_A_LOWER;
    out.ahead = &w->t.ahead;
    pn_tile_mm(&out);
    if (S.x) {
        pn_mm qs = pn_mm_of(n, cols, d->dk, t->Qin, d->row, S.x, S.ld, o, d->ldo);
        pn_mm_keep(&qs, 1, o, d->ldo);
        qs.ahead = &w->t.ahead;
        pn_tile_mm(&qs);
    }
    pn_mm s = pn_mm_transposed_of(d->dk, cols, n, t->Kout, d->row, v, d->ldv, next.x, next.ld);
    if (S.x) pn_mm_keep(&s, 1, S.x, S.ld), s.keep_row = t->through;
    s.ahead = &w->t.ahead;
    pn_tile_mm(&s);
}

/* All chunks of one document for one head and columns first_col .. of it. */
static void document_forward(const pn_op_call *c, const pn_glin_dims *d, int64_t doc, int64_t j, int64_t first_col,
                             int64_t cols, forward_work *w) {
    const pn_gated_linear_attr *a = c->attr;
    int64_t begin = a->docs.offset[doc], end = a->docs.offset[doc + 1], g_width = d->vector ? d->dk : 1;
    int64_t state_at = (doc * d->heads + j) * d->size + first_col;
    const float *q = pn_f32(c->in[0]), *k = pn_f32(c->in[1]), *v = pn_f32(c->in[2]), *g = pn_f32_or_null(c->in[3]);
    const float *S0 = pn_f32_or_null(c->in[4]);
    float *o = pn_f32(c->out[0]), *final = pn_f32(c->out[1]) + state_at, *kept = NULL;
    if (pn_tensor_elems(c->out[2]) > 0)
        kept = pn_f32(c->out[2]) + (pn_docs_chunks(&a->docs, doc) * d->heads + j) * d->size + first_col;
    /* states go where they are saved and are read from there */
    state S = begin == end ? (state){ final, d->dv } : kept ? (state){ kept, d->dv } : (state){ w->S, cols };
    pn_copy_rows(d->dk, cols, S0 ? S0 + state_at : NULL, d->dv, S.x, S.ld);
    if (!S0) S.x = NULL;
    for (int64_t t = begin; t < end; t += C) {
        int64_t n = end - t < C ? end - t : C, next = end - t - n < C ? end - t - n : C;
        const float *q_t = q + pn_glin_at(t, d->ldq, j, d->q_share, d->dk);
        const float *k_t = k + pn_glin_at(t, d->ldk, j, d->k_share, d->dk);
        const float *v_t = v + pn_glin_at(t, d->ldv, j, d->v_share, d->dv) + first_col;
        const float *g_t = g ? g + pn_glin_at(t, d->ldg, j, d->g_share, g_width) : NULL;
        float *o_t = o + pn_glin_at(t, d->ldo, j, 1, d->dv) + first_col;
        if (kept) kept += d->heads * d->size;
        state after = next == 0 ? (state){ final, d->dv } : kept ? (state){ kept, d->dv } : (state){ w->S, cols };
        pn_ahead_reset(&w->t.ahead);
        pn_ahead_add(&w->t.ahead, d->dk, cols, after.x, after.ld);
        if (next > 0) {
            pn_ahead_add(&w->t.ahead, next, d->dk, q_t + C * d->ldq, d->ldq);
            pn_ahead_add(&w->t.ahead, next, d->dk, k_t + C * d->ldk, d->ldk);
            if (g) pn_ahead_add(&w->t.ahead, next, g_width, g_t + C * d->ldg, d->ldg);
            pn_ahead_add(&w->t.ahead, next, cols, v_t + C * d->ldv, d->ldv);
            pn_ahead_add(&w->t.ahead, next, cols, o_t + C * d->ldo, d->ldo);
        }
        pn_glin_chunk(d, n, q_t, k_t, g_t, &w->t);
        chunk_forward(d, n, cols, v_t, S, after, o_t, w);
        S = after;
    }
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    pn_glin_dims d = pn_glin_dims_of(c);
    size_t floats = backward ? pn_glin_backward_floats(&d) : forward_floats(&d);
    return sizeof(float) * floats * (size_t)omp_get_max_threads();
}

static pn_status forward(const pn_op_call *c) {
    const pn_gated_linear_attr *a = c->attr;
    pn_glin_dims d = pn_glin_dims_of(c);
    pn_column_tasks tasks = pn_column_tasks_of(a->docs.n * d.heads, d.dv, omp_get_max_threads());
#pragma omp parallel for schedule(dynamic) if (tasks.n > 1)
    for (int64_t i = 0; i < tasks.n; i++) {
        pn_column_task task = pn_column_task_at(&tasks, i);
        forward_work w = forward_work_at(&d, (float *)c->scratch + (size_t)omp_get_thread_num() * forward_floats(&d));
        document_forward(c, &d, task.head / d.heads, task.head % d.heads, task.first, task.cols, &w);
    }
    return PN_OK;
}

static const pn_op_impl chunk = {
    .name = "gated_linear/cpu-chunk", .scratch_bytes = scratch_bytes, .forward = forward, .backward = pn_glin_backward
};
extern const pn_op_impl *const gated_linear_cpu[];
const pn_op_impl *const gated_linear_cpu[] = { &pn_gated_linear_cpu_step, &chunk, NULL };
