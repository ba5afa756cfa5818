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
 * state do not interact. Results do not depend on the split or the number of threads. */
#include "gated_delta_chunk.h"

#include <omp.h>
#include <string.h>

#include "cpu/tile_mm.h"
#include "cpu/unit_lower.h"

enum { C = PN_DELTA_C };

typedef struct forward_work {
    pn_delta_tiles t;
    float *K;     /* [64, dk] keys scaled to the chunk's end */
    float *R, *U; /* [64, dv] */
} forward_work;

static size_t forward_floats(const pn_delta_dims *d) {
    return pn_delta_tiles_floats(d) + (size_t)(C * d->dk + 2 * C * d->dv);
}
static forward_work forward_work_at(const pn_delta_dims *d, float *at) {
    forward_work w = { .t = pn_delta_tiles_at(d, &at) };
    w.K = pn_delta_take(&at, C * d->dk);
    w.R = pn_delta_take(&at, C * d->dv);
    w.U = pn_delta_take(&at, C * d->dv);
    return w;
}

/* Columns 0 .. cols - 1 of one value head in one chunk. S: start state, NULL when zero; next may be S. */
static void chunk_forward(const pn_delta_dims *d, int64_t n, int64_t cols, const pn_delta_gates *x, const float *q,
                          const float *k, const float *v, const float *S, float *o, float *next, forward_work *w) {
    float in_beta[C];
    for (int64_t i = 0; i < n; i++) in_beta[i] = x->in[i] * x->beta[i];
    /* R = beta V - beta e^L (K S) */
    if (S)
        pn_tile_mm(&(pn_mm){ .m = n,
                             .n = cols,
                             .l = d->dk,
                             .a = k,
                             .a_row = d->ldk,
                             .a_col = 1,
                             .b = S,
                             .ldb = d->dv,
                             .c = w->R,
                             .ldc = cols,
                             .c0 = v,
                             .ldc0 = d->ldv,
                             .keep = 1,
                             .keep_row = x->beta,
                             .scale = -1,
                             .scale_row = in_beta });
    else
        pn_delta_scale_rows(n, cols, 1, x->beta, v, d->ldv, w->R);
    pn_unit_lower_solve(n, w->t.A, C, w->t.X, w->R, cols, w->U, cols, cols);
    /* O = scale e^L (Q S) + P U */
    if (S)
        pn_tile_mm(&(pn_mm){ .m = n,
                             .n = cols,
                             .l = d->dk,
                             .a = q,
                             .a_row = d->ldk,
                             .a_col = 1,
                             .b = S,
                             .ldb = d->dv,
                             .c = o,
                             .ldc = d->ldv,
                             .scale = d->scale,
                             .scale_row = x->in });
    pn_tile_mm(&(pn_mm){ .m = n,
                         .n = cols,
                         .l = n,
                         .a = w->t.P,
                         .a_row = C,
                         .a_col = 1,
                         .b = w->U,
                         .ldb = cols,
                         .c = o,
                         .ldc = d->ldv,
                         .c0 = S ? o : NULL,
                         .ldc0 = d->ldv,
                         .keep = 1,
                         .scale = 1,
                         .form = PN_MM_A_LOWER });
    /* S' = e^{L_C} S + (e^{L_C - L} K)^T U */
    pn_delta_scale_rows(n, d->dk, 1, x->out, k, d->ldk, w->K);
    pn_tile_mm(&(pn_mm){ .m = d->dk,
                         .n = cols,
                         .l = n,
                         .a = w->K,
                         .a_row = 1,
                         .a_col = d->dk,
                         .b = w->U,
                         .ldb = cols,
                         .c = next,
                         .ldc = d->dv,
                         .c0 = S,
                         .ldc0 = d->dv,
                         .keep = x->through,
                         .scale = 1 });
}

static void copy_columns(const pn_delta_dims *d, int64_t cols, const float *src, float *dst) { /* src NULL: zeros */
    for (int64_t i = 0; i < d->dk; i++) {
        if (src)
            memcpy(dst + i * d->dv, src + i * d->dv, sizeof(float) * (size_t)cols);
        else
            memset(dst + i * d->dv, 0, sizeof(float) * (size_t)cols);
    }
}

/* All chunks of one document for one query/key head and columns first_col .. of its value heads. */
static void document_forward(const pn_op_call *c, const pn_delta_dims *d, int64_t doc, int64_t head, int64_t first_col,
                             int64_t cols, forward_work *w) {
    const pn_gated_delta_attr *a = c->attr;
    int64_t begin = a->docs.offset[doc], end = a->docs.offset[doc + 1];
    int64_t v_head = head * d->group, chunk = pn_gated_delta_chunks(&a->docs, doc);
    const float *g = pn_f32_or_null(c->in[3]), *beta = pn_f32(c->in[4]);
    const float *S0 = c->n_in > 5 ? pn_f32_or_null(c->in[5]) : NULL;
    float *kept = pn_tensor_elems(c->out[2]) > 0 ? pn_f32(c->out[2]) + first_col : NULL;
    float *final = pn_f32(c->out[1]) + doc * d->v_heads * d->size + first_col;
    if (S0) S0 += doc * d->v_heads * d->size + first_col;
    for (int64_t j = v_head; begin == end && j < v_head + d->group; j++)
        copy_columns(d, cols, S0 ? S0 + j * d->size : NULL, final + j * d->size);
    for (int64_t t = begin; t < end; t += C, chunk++) {
        int64_t n = end - t < C ? end - t : C;
        const float *q = pn_f32(c->in[0]) + t * d->ldk + head * d->dk,
                    *k = pn_f32(c->in[1]) + t * d->ldk + head * d->dk;
        pn_delta_scores(d, n, q, k, &w->t);
        for (int64_t j = v_head; j < v_head + d->group; j++) {
            /* The kept states are the working memory where there are any: each chunk writes the next one's. */
            float *here = kept ? kept + (chunk * d->v_heads + j) * d->size : NULL, *last = final + j * d->size;
            const float *S = t > begin ? (kept ? here : last) : S0 ? S0 + j * d->size : NULL;
            if (kept && t == begin) copy_columns(d, cols, S, here);
            float *next = kept && t + C < end ? here + d->v_heads * d->size : last;
            pn_delta_gates gates;
            pn_delta_gates_of(d, n, g ? g + t * d->v_heads + j : NULL, beta + t * d->v_heads + j, &gates);
            pn_delta_system(d, n, &gates, &w->t);
            int64_t at = t * d->ldv + j * d->dv + first_col;
            chunk_forward(d, n, cols, &gates, q, k, pn_f32(c->in[2]) + at, S, pn_f32(c->out[0]) + at, next, w);
        }
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
    int64_t heads = a->docs.n * d.heads, width = d.dv, threads = omp_get_max_threads();
    if (heads < threads) { /* at least 64 columns each, so that scores stay cheap beside them */
        int64_t parts = (threads + heads - 1) / heads;
        width = ((d.dv + parts - 1) / parts + 31) / 32 * 32;
        if (width < 64) width = 64;
    }
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
