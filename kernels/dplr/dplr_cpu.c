/* The chunkwise form (blocks.md 9.4): 64 tokens at a time by matrix products instead of one after the other.
 *
 * With S the state at a chunk's start, L_i = g_1 + .. + g_i inside it, and (X Y)_ij the decayed score
 * sum_n x_i[n] y_j[n] e^{L_i[n] - L_j[n]}, or e^{L_{i-1}[n] - L_j[n]} where x is a,
 *
 *     P  = (A K) V + (A B) P + (e^{L_{i-1}} A) S      j < i: what the state answers to a before each token
 *     O  = scale ((Q K) V + (Q B) P + (e^L Q) S)      j <= i
 *     S' = diag(e^{L_C}) S + (e^{L_C - L} K)^T V + (e^{L_C - L} B)^T P
 *
 * The first line is a unit lower triangular system, so only one step per chunk is sequential. Work is split over
 * documents and heads; a task walks its chunks in order with everything but the inputs in the core's own cache. When
 * that gives fewer tasks than threads, columns of V are split as well: the columns of the state do not interact.
 * Results do not depend on the split or the number of threads.
 *
 * What bounds it: cost() counts the recurrence, 9 dk dv per token forward and 19 backward, but a chunk multiplies
 * 8 dk dv + 64 (4 dk + 4 dv) forward and 18 dk dv + 64 (12 dk + 10 dv) backward, triangles counted as halves. With
 * heads of 64 x 64 that is 1.8 and 2.1 times the useful flops, so at the full speed of sgemm 0.56 and 0.47 of it would
 * be useful. */
#include "dplr_chunk.h"

#include <omp.h>

#include "cpu/column_tasks.h"

enum { C = PN_DPLR_C };

typedef struct forward_work {
    pn_dplr_tiles t;
    float *S;         /* [dk, cols] */
    float *V, *P, *R; /* [64, cols] */
} forward_work;

static size_t forward_floats(const pn_dplr_dims *d) {
    return pn_dplr_tiles_floats(d) + (size_t)(pn_whole_lines(d->size) + 3 * C * d->dv);
}
static forward_work forward_work_at(const pn_dplr_dims *d, float *at) {
    forward_work w = { .t = pn_dplr_tiles_at(d, &at) };
    w.S = pn_take(&at, d->size);
    w.V = pn_take(&at, C * d->dv);
    w.P = pn_take(&at, C * d->dv);
    w.R = pn_take(&at, C * d->dv);
    return w;
}

/* `cols` columns of a head in one chunk; w->S is their state, updated; zero: it is zero and not to be read. */
static void chunk_forward(const pn_dplr_dims *d, int64_t cols, const float *v, bool zero, float *o, forward_work *w) {
    pn_dplr_tiles *t = &w->t;
    int64_t n = t->n, dk = d->dk, row = d->row;
    pn_copy_rows(n, cols, v, d->ldv, w->V, cols);
    pn_dplr_answers(d, cols, w->V, zero ? NULL : w->S, w->R, w->P, t);
    pn_mm_run(pn_mm_of(n, cols, n, t->QK, C, w->V, cols, o, d->ldv), PN_MM_A_LOWER, false, &t->ahead);
    pn_mm_run(pn_mm_of(n, cols, n, t->QB, C, w->P, cols, o, d->ldv), PN_MM_A_LOWER, true, &t->ahead);
    if (!zero) pn_mm_run(pn_mm_of(n, cols, dk, t->Qin, row, w->S, cols, o, d->ldv), PN_MM_DENSE, true, &t->ahead);

    pn_mm s = pn_mm_transposed_of(dk, cols, n, t->Kout, row, w->V, cols, w->S, cols);
    if (!zero) pn_mm_keep(&s, 1, w->S, cols), s.keep_row = t->through;
    pn_mm_run(s, PN_MM_DENSE, false, &t->ahead);
    pn_mm_run(pn_mm_transposed_of(dk, cols, n, t->Bout, row, w->P, cols, w->S, cols), PN_MM_DENSE, true, &t->ahead);
}

/* All chunks of one document for one head and columns first_col .. of it. */
static void document_forward(const pn_op_call *c, const pn_dplr_dims *d, int64_t doc, int64_t j, int64_t first_col,
                             int64_t cols, forward_work *w) {
    const pn_dplr_attr *attr = c->attr;
    int64_t begin = attr->docs.offset[doc], end = attr->docs.offset[doc + 1];
    int64_t state_at = (doc * d->heads + j) * d->size + first_col;
    const float *v = pn_f32(c->in[2]) + j * d->dv + first_col, *S0 = pn_f32_or_null(c->in[6]);
    float *o = pn_f32(c->out[0]) + j * d->dv + first_col, *final = pn_f32(c->out[1]) + state_at, *kept = NULL;
    if (pn_tensor_elems(c->out[2]) > 0)
        kept = pn_f32(c->out[2]) + (pn_docs_chunks(&attr->docs, doc) * d->heads + j) * d->size + first_col;
    pn_copy_rows(d->dk, cols, S0 ? S0 + state_at : NULL, d->dv, w->S, cols);
    for (int64_t t = begin; t < end; t += C) {
        int64_t n = end - t < C ? end - t : C, next = end - t - n < C ? end - t - n : C;
        pn_dplr_rows x = pn_dplr_rows_of(c, t * d->ldk + j * d->dk);
        const float *const keys[] = { x.q, x.k, x.a, x.b, x.g };
        pn_ahead_reset(&w->t.ahead);
        for (int i = 0; i < 5 && next > 0; i++) pn_ahead_add(&w->t.ahead, next, d->dk, keys[i] + C * d->ldk, d->ldk);
        if (next > 0) {
            pn_ahead_add(&w->t.ahead, next, cols, v + (t + C) * d->ldv, d->ldv);
            pn_ahead_add(&w->t.ahead, next, cols, o + (t + C) * d->ldv, d->ldv);
        }
        if (kept) {
            pn_copy_rows(d->dk, cols, w->S, cols, kept, d->dv);
            kept += d->heads * d->size;
        }
        pn_dplr_chunk(d, n, &x, &w->t);
        chunk_forward(d, cols, v + t * d->ldv, t == begin && !S0, o + t * d->ldv, w);
    }
    pn_copy_rows(d->dk, cols, w->S, cols, final, d->dv);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    pn_dplr_dims d = pn_dplr_dims_of(c);
    size_t floats = backward ? pn_dplr_backward_floats(&d) : forward_floats(&d);
    return sizeof(float) * floats * (size_t)omp_get_max_threads();
}

static pn_status forward(const pn_op_call *c) {
    const pn_dplr_attr *attr = c->attr;
    pn_dplr_dims d = pn_dplr_dims_of(c);
    pn_column_tasks tasks = pn_column_tasks_of(attr->docs.n * d.heads, d.dv, omp_get_max_threads());
#pragma omp parallel for schedule(dynamic) if (tasks.n > 1)
    for (int64_t i = 0; i < tasks.n; i++) {
        pn_column_task task = pn_column_task_at(&tasks, i);
        forward_work w = forward_work_at(&d, (float *)c->scratch + (size_t)omp_get_thread_num() * forward_floats(&d));
        document_forward(c, &d, task.head / d.heads, task.head % d.heads, task.first, task.cols, &w);
    }
    return PN_OK;
}

static const pn_op_impl chunk = {
    .name = "dplr/cpu-chunk", .scratch_bytes = scratch_bytes, .forward = forward, .backward = pn_dplr_backward
};
extern const pn_op_impl *const dplr_cpu[];
const pn_op_impl *const dplr_cpu[] = { &pn_dplr_cpu_step, &chunk, NULL };
