/* The chunkwise form: 64 tokens at a time by matrix products instead of one after the other.
 *
 * Written token by token, the delta rule reads and writes the whole state for a few operations on each element: it
 * runs at the speed of memory. But the tokens of a chunk touch the state in a way that can be untangled. Let S be the
 * state at the chunk's start and L_i = g_1 + .. + g_i. Then
 *
 *     S_i = e^{L_i} S + sum_{j<=i} e^{L_i - L_j} beta_j k_j e_j^T
 *
 * and what token i finds under its key is, from the same sum over j < i,
 *
 *     e_i = v_i - e^{L_i} S^T k_i - sum_{j<i} e^{L_i - L_j} beta_j <k_j, k_i> e_j.
 *
 * All the entanglement is in scalars: with F_ij = e^{L_i - L_j} beta_j (0 above the diagonal) and A the part of
 * (K K^T) F below the diagonal it is one unit lower triangular system with dv right-hand sides,
 *
 *     (I + A) e = W = V - e^L K S                                 the WY, or UT, representation
 *     O  = scale (e^L Q S + ((Q K^T) F) e)                        what tokens read
 *     S' = e^{L_C} S + (e^{L_C - L} beta K)^T e                   the next chunk's state
 *
 * so the sequential part shrinks to one step per chunk, and everything is a matrix product of 64 rows. Only differences
 * L_i - L_j with j <= i are exponentiated, so no decay, however strong, can overflow.
 *
 * Work is split over documents and query/key heads; a task walks its chunks in order with everything but the inputs in
 * the core's own cache. Heads that the threads cannot share out evenly are split by columns of V as well: the columns
 * of the state do not interact. Results do not depend on the split or the number of threads.
 *
 * What bounds it: cost() counts the recurrence, 7 dk dv per token forward and 15 backward, but a chunk also multiplies
 * inside itself. With heads of 64 x 64 that is 1.6 times the useful flops forward and 1.8 times backward, so at the
 * full speed of sgemm 0.63 and 0.54 of it would be useful; wider heads lose less (1.2 times at 128 x 128). The rest
 * goes to tiles that are used once, so that they come out of the second-level cache, and to reading the inputs. Chunks
 * of 32 would do a fifth less at 64 x 64 and gain 5 %, but save twice the states and lose at every wider head. */
#include "gated_delta_chunk.h"

#include <omp.h>

#include "cpu/column_tasks.h"
#include "cpu/unit_lower.h"

enum { C = PN_DELTA_C };

typedef struct forward_work {
    pn_delta_tiles t;
    float *S;     /* [group, dk, cols] states of the value heads where they are not saved */
    float *keys;  /* [64, dk] keys scaled to the chunk's end */
    float *W, *e; /* [64, cols]; W holds Q S after the solve */
} forward_work;

static size_t forward_floats(const pn_delta_dims *d) {
    int64_t states = pn_whole_lines(d->group * d->size);
    return pn_delta_tiles_floats(d) + (size_t)(states + C * d->dk + 2 * C * d->dv);
}
static forward_work forward_work_at(const pn_delta_dims *d, float *at) {
    forward_work w = { .t = pn_delta_tiles_at(d, &at) };
    w.S = pn_take(&at, d->group * d->size);
    w.keys = pn_take(&at, C * d->dk);
    w.W = pn_take(&at, C * d->dv);
    w.e = pn_take(&at, C * d->dv);
    return w;
}

/* A state's columns. x NULL: zero, not to be read. */
typedef struct state {
    float *x;
    int64_t ld;
} state;

/* `cols` columns of one value head in one chunk, from the state at its start to the one at its end; they may be the
 * same memory. */
static void chunk_forward(const pn_delta_dims *d, int64_t n, int64_t cols, const pn_delta_gates *x, const float *v,
                          state S, state next, float *o, forward_work *w) {
    if (S.x) { /* W = V - e^L (K S) */
        pn_mm r = pn_mm_of(n, cols, d->dk, w->t.K, d->dk, S.x, S.ld, w->W, cols);
        pn_mm_keep(&r, 1, v, d->ldv);
        r.ahead = &w->t.ahead;
        r.scale = -1, r.scale_row = x->decay.in;
        pn_tile_mm(&r);
    } else {
        pn_copy_rows(n, cols, v, d->ldv, w->W, cols);
    }
    pn_unit_lower_solve(n, w->t.A, C, w->t.X, w->W, cols, w->e, cols, cols);

    /* O = scale e^L (Q S) + P e */
    pn_mm out = pn_mm_of(n, cols, n, w->t.P, C, w->e, cols, o, d->ldv);
    out.ahead = &w->t.ahead;
    out.form = PN_MM_A_LOWER;
    if (S.x) {
        pn_mm qs = pn_mm_of(n, cols, d->dk, w->t.Q, d->dk, S.x, S.ld, w->W, cols);
        qs.ahead = &w->t.ahead;
        qs.scale = d->scale, qs.scale_row = x->decay.in;
        pn_tile_mm(&qs);
        pn_mm_keep(&out, 1, w->W, cols);
    }
    pn_tile_mm(&out);
    pn_delta_next_state(d, n, cols, x, w->t.K, d->dk, w->e, cols, S.x, S.ld, next.x, next.ld, w->keys, &w->t.ahead);
}

/* All chunks of one document for one query/key head and columns first_col .. of its value heads. */
static void document_forward(const pn_op_call *c, const pn_delta_dims *d, int64_t doc, int64_t head, int64_t first_col,
                             int64_t cols, forward_work *w) {
    const pn_gated_delta_attr *a = c->attr;
    int64_t begin = a->docs.offset[doc], end = a->docs.offset[doc + 1], own = d->dk * cols, step = d->chunk;
    int64_t v_head = head * d->group, state_at = (doc * d->v_heads + v_head) * d->size + first_col;
    const float *q = pn_f32(c->in[0]) + head * d->dk, *k = pn_f32(c->in[1]) + head * d->dk, *v = pn_f32(c->in[2]);
    const float *g = pn_f32_or_null(c->in[3]), *beta = pn_f32(c->in[4]);
    const float *S0 = c->n_in > 5 ? pn_f32_or_null(c->in[5]) : NULL;
    float *o = pn_f32(c->out[0]), *final = pn_f32(c->out[1]) + state_at, *kept = NULL, *e = NULL;
    if (pn_tensor_elems(c->out[2]) > 0) { /* states go where they are saved and are read from there */
        kept = pn_f32(c->out[2]) + (pn_docs_chunks(&a->docs, doc) * d->v_heads + v_head) * d->size + first_col;
        e = pn_f32(c->out[3]);
    }
    for (int64_t r = 0; r < d->group; r++) {
        state first = begin == end ? (state){ final + r * d->size, d->dv }
                      : kept       ? (state){ kept + r * d->size, d->dv }
                                   : (state){ w->S + r * own, cols };
        pn_copy_rows(d->dk, cols, S0 ? S0 + state_at + r * d->size : NULL, d->dv, first.x, first.ld);
    }
    bool in_kept = kept;
    for (int64_t t = begin; t < end; t += step) {
        int64_t n = end - t < step ? end - t : step, ahead = end - t - n < step ? end - t - n : step;
        bool last = ahead == 0, to_kept = kept && !last && (t + step - begin) % C == 0;
        float *next_kept = kept + d->v_heads * d->size;
        pn_ahead_reset(&w->t.ahead);
        pn_ahead_add(&w->t.ahead, ahead, d->dk, q + (t + step) * d->ldk, d->ldk);
        pn_ahead_add(&w->t.ahead, ahead, d->dk, k + (t + step) * d->ldk, d->ldk);
        pn_delta_scores(d, n, q + t * d->ldk, k + t * d->ldk, &w->t);
        for (int64_t r = 0; r < d->group; r++) {
            int64_t gate_at = t * d->v_heads + v_head + r, at = t * d->ldv + (v_head + r) * d->dv + first_col;
            state work = { w->S + r * own, cols };
            state S = in_kept ? (state){ kept + r * d->size, d->dv } : work;
            state next = last      ? (state){ final + r * d->size, d->dv }
                         : to_kept ? (state){ next_kept + r * d->size, d->dv }
                                   : work;
            if (t == begin && !S0) S.x = NULL;
            if (r > 0) pn_ahead_reset(&w->t.ahead);
            if (to_kept) pn_ahead_add(&w->t.ahead, d->dk, cols, next.x, next.ld);
            pn_ahead_add(&w->t.ahead, ahead, cols, v + at + step * d->ldv, d->ldv);
            if (e) pn_ahead_add(&w->t.ahead, ahead, cols, e + at + step * d->ldv, d->ldv);
            pn_ahead_add(&w->t.ahead, ahead, cols, o + at + step * d->ldv, d->ldv);
            pn_delta_gates gates;
            pn_delta_gates_of(d, n, g ? g + gate_at : NULL, beta + gate_at, &gates);
            pn_delta_system(d, n, &gates, NULL, gates.beta, &w->t);
            chunk_forward(d, n, cols, &gates, v + at, S, next, o + at, w);
            if (e) pn_copy_rows(n, cols, w->e, cols, e + at, d->ldv);
        }
        if (to_kept) kept = next_kept;
        in_kept = to_kept;
    }
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    pn_delta_dims d = pn_delta_dims_of(c);
    size_t floats = backward ? pn_delta_backward_floats(&d) : forward_floats(&d);
    return sizeof(float) * floats * (size_t)omp_get_max_threads();
}

static pn_status forward(const pn_op_call *c) {
    const pn_gated_delta_attr *a = c->attr;
    pn_delta_dims d = pn_delta_dims_of(c);
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
    .name = "gated_delta/cpu-chunk", .scratch_bytes = scratch_bytes, .forward = forward, .backward = pn_delta_backward
};
extern const pn_op_impl *const gated_delta_cpu[];
const pn_op_impl *const gated_delta_cpu[] = { &pn_gated_delta_cpu_step, &chunk, NULL };
