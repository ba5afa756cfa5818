/* The chunkwise form: 64 tokens at a time by matrix products instead of one after the other.
 *
 * Written token by token, the delta rule reads and writes the whole state for a few operations on each element: it
 * runs at the speed of memory. But the tokens of a chunk touch the state in a way that can be untangled. Let S be the
 * state at the chunk's start, L_i = g_1 + .. + g_i and u_i = beta_i e_i the update that token i writes. Then
 *
 *     S_i = e^{L_i} S + sum_{j<=i} e^{L_i - L_j} k_j u_j^T
 *
 * and what token i finds under its key is, from the same sum over j < i,
 *
 *     u_i = beta_i (v_i - e^{L_i} S^T k_i - sum_{j<i} e^{L_i - L_j} <k_j, k_i> u_j).
 *
 * All the entanglement is in scalars: with E_ij = e^{L_i - L_j} (0 above the diagonal) and the strictly lower matrix
 * A = beta (K K^T) E it is one unit lower triangular system with dv right-hand sides,
 *
 *     (I + A) U = R = beta (V - e^L K S)                          the WY, or UT, representation
 *     O  = scale (e^L Q S + ((Q K^T) E) U)                        what tokens read
 *     S' = e^{L_C} S + (e^{L_C - L} K)^T U                        the next chunk's state
 *
 * so the sequential part shrinks to one step per chunk, and everything is a matrix product of 64 rows. Only differences
 * L_i - L_j with j <= i are exponentiated, so no decay, however strong, can overflow.
 *
 * Work is split over documents and query/key heads; a task walks its chunks in order with everything but the inputs in
 * the core's own cache. When that gives fewer tasks than threads, columns of V are split as well: the columns of the
 * state do not interact. Results do not depend on the split or the number of threads.
 *
 * What bounds it: cost() counts the recurrence, 7 dk dv per token forward and 15 backward, but a chunk also multiplies
 * inside itself. With heads of 64 x 64 that is 1.6 times the useful flops forward and 1.8 times backward, so at the
 * full speed of sgemm 0.63 and 0.54 of it would be useful; wider heads lose less (1.2 times at 128 x 128). The rest
 * goes to tiles that are used once, so that they come out of the second-level cache, and to reading the inputs. Chunks
 * of 32 would do a fifth less at 64 x 64 and gain 5 %, but save twice the states and lose at every wider head. */
#include "gated_delta_chunk.h"

#include <omp.h>

#include "cpu/heads.h"
#include "cpu/unit_lower.h"

enum { C = PN_DELTA_C };

typedef struct forward_work {
    pn_delta_tiles t;
    float *S;     /* [group, dk, cols] states of the value heads */
    float *keys;  /* [64, dk] keys scaled to the chunk's end */
    float *R, *U; /* [64, cols]; R holds Q S after the solve */
} forward_work;

static size_t forward_floats(const pn_delta_dims *d) {
    int64_t states = pn_whole_lines(d->group * d->size);
    return pn_delta_tiles_floats(d) + (size_t)(states + C * d->dk + 2 * C * d->dv);
}
static forward_work forward_work_at(const pn_delta_dims *d, float *at) {
    forward_work w = { .t = pn_delta_tiles_at(d, &at) };
    w.S = pn_take(&at, d->group * d->size);
    w.keys = pn_take(&at, C * d->dk);
    w.R = pn_take(&at, C * d->dv);
    w.U = pn_take(&at, C * d->dv);
    return w;
}

/* `cols` columns of one value head in one chunk; S is their state, updated; zero: S is zero and not to be read. */
static void chunk_forward(const pn_delta_dims *d, int64_t n, int64_t cols, const pn_delta_gates *x, const float *v,
                          float *S, bool zero, float *o, forward_work *w) {
    float in_beta[C];
    for (int64_t i = 0; i < n; i++) in_beta[i] = x->decay.in[i] * x->beta[i];
    if (zero) { /* R = beta V - beta e^L (K S) */
        pn_scale_rows(n, cols, 1, x->beta, v, d->ldv, w->R);
    } else {
        pn_mm r = pn_mm_of(n, cols, d->dk, w->t.K, d->dk, S, cols, w->R, cols);
        pn_mm_keep(&r, 1, v, d->ldv);
        r.ahead = &w->t.ahead;
        r.keep_row = x->beta, r.scale = -1, r.scale_row = in_beta;
        pn_tile_mm(&r);
    }
    pn_unit_lower_solve(n, w->t.A, C, w->t.X, w->R, cols, w->U, cols, cols);

    /* O = scale e^L (Q S) + P U */
    pn_mm out = pn_mm_of(n, cols, n, w->t.P, C, w->U, cols, o, d->ldv);
    out.ahead = &w->t.ahead;
    out.form = PN_MM_A_LOWER;
    if (!zero) {
        pn_mm qs = pn_mm_of(n, cols, d->dk, w->t.Q, d->dk, S, cols, w->R, cols);
        qs.ahead = &w->t.ahead;
        qs.scale = d->scale, qs.scale_row = x->decay.in;
        pn_tile_mm(&qs);
        pn_mm_keep(&out, 1, w->R, cols);
    }
    pn_tile_mm(&out);

    /* S = e^{L_C} S + (e^{L_C - L} K)^T U */
    pn_scale_rows(n, d->dk, 1, x->decay.out, w->t.K, d->dk, w->keys);
    pn_mm s = pn_mm_transposed_of(d->dk, cols, n, w->keys, d->dk, w->U, cols, S, cols);
    if (!zero) pn_mm_keep(&s, x->decay.through, S, cols);
    s.ahead = &w->t.ahead;
    pn_tile_mm(&s);
}

/* All chunks of one document for one query/key head and columns first_col .. of its value heads. */
static void document_forward(const pn_op_call *c, const pn_delta_dims *d, int64_t doc, int64_t head, int64_t first_col,
                             int64_t cols, forward_work *w) {
    const pn_gated_delta_attr *a = c->attr;
    int64_t begin = a->docs.offset[doc], end = a->docs.offset[doc + 1], own = d->dk * cols;
    int64_t v_head = head * d->group, state_at = (doc * d->v_heads + v_head) * d->size + first_col;
    const float *q = pn_f32(c->in[0]) + head * d->dk, *k = pn_f32(c->in[1]) + head * d->dk, *v = pn_f32(c->in[2]);
    const float *g = pn_f32_or_null(c->in[3]), *beta = pn_f32(c->in[4]);
    const float *S0 = c->n_in > 5 ? pn_f32_or_null(c->in[5]) : NULL;
    float *o = pn_f32(c->out[0]), *final = pn_f32(c->out[1]) + state_at, *kept = NULL;
    if (pn_tensor_elems(c->out[2]) > 0)
        kept = pn_f32(c->out[2]) + (pn_docs_chunks(&a->docs, doc) * d->v_heads + v_head) * d->size + first_col;
    for (int64_t r = 0; r < d->group; r++)
        pn_copy_rows(d->dk, cols, S0 ? S0 + state_at + r * d->size : NULL, d->dv, w->S + r * own, cols);
    for (int64_t t = begin; t < end; t += C) {
        int64_t n = end - t < C ? end - t : C, ahead = end - t - n < C ? end - t - n : C;
        pn_ahead_reset(&w->t.ahead);
        if (ahead > 0) {
            pn_ahead_add(&w->t.ahead, ahead, d->dk, q + (t + C) * d->ldk, d->ldk);
            pn_ahead_add(&w->t.ahead, ahead, d->dk, k + (t + C) * d->ldk, d->ldk);
        }
        pn_delta_scores(d, n, q + t * d->ldk, k + t * d->ldk, &w->t);
        for (int64_t r = 0; r < d->group; r++) {
            int64_t gate_at = t * d->v_heads + v_head + r, at = t * d->ldv + (v_head + r) * d->dv + first_col;
            float *S = w->S + r * own;
            if (r > 0) pn_ahead_reset(&w->t.ahead);
            if (ahead > 0) {
                pn_ahead_add(&w->t.ahead, ahead, cols, v + at + C * d->ldv, d->ldv);
                pn_ahead_add(&w->t.ahead, ahead, cols, o + at + C * d->ldv, d->ldv);
            }
            if (kept) pn_copy_rows(d->dk, cols, S, cols, kept + r * d->size, d->dv);
            pn_delta_gates gates;
            pn_delta_gates_of(d, n, g ? g + gate_at : NULL, beta + gate_at, &gates);
            pn_delta_system(d, n, &gates, &w->t);
            chunk_forward(d, n, cols, &gates, v + at, S, t == begin && !S0, o + at, w);
        }
        if (kept) kept += d->v_heads * d->size;
    }
    for (int64_t r = 0; r < d->group; r++) pn_copy_rows(d->dk, cols, w->S + r * own, cols, final + r * d->size, d->dv);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    pn_delta_dims d = pn_delta_dims_of(c);
    size_t floats = backward ? pn_delta_backward_floats(&d) : forward_floats(&d);
    return sizeof(float) * floats * (size_t)omp_get_max_threads();
}

static pn_status forward(const pn_op_call *c) {
    const pn_gated_delta_attr *a = c->attr;
    pn_delta_dims d = pn_delta_dims_of(c);
    int64_t heads = a->docs.n * d.heads, width = pn_task_columns(heads, d.dv, omp_get_max_threads());
    int64_t parts = (d.dv + width - 1) / width;
#pragma omp parallel for schedule(dynamic) if (heads * parts > 1)
    for (int64_t task = 0; task < heads * parts; task++) {
        int64_t doc = task / parts / d.heads, head = task / parts % d.heads, col = task % parts * width;
        forward_work w = forward_work_at(&d, (float *)c->scratch + (size_t)omp_get_thread_num() * forward_floats(&d));
        document_forward(c, &d, doc, head, col, d.dv - col < width ? d.dv - col : width, &w);
    }
    return PN_OK;
}

static const pn_op_impl chunk = {
    .name = "gated_delta/cpu-chunk", .scratch_bytes = scratch_bytes, .forward = forward, .backward = pn_delta_backward
};
extern const pn_op_impl *const gated_delta_cpu[];
const pn_op_impl *const gated_delta_cpu[] = { &pn_gated_delta_cpu_step, &chunk, NULL };
