#include <string.h>

#include "cpu/clones.h"
#include "cpu/reduce.h"
#include "token_shift.h"

enum { X, MIX, PREVIOUS };
enum { Y, LAST };

/* One token; `before` is the input of the one before it, NULL: zeros. */
PN_CLONES static void shift_row(float *y, const float *x, const float *before, const float *w, int64_t D) {
    if (before) {
#pragma omp simd
        for (int64_t i = 0; i < D; i++) y[i] = x[i] + w[i] * (before[i] - x[i]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < D; i++) y[i] = x[i] - w[i] * x[i];
    }
}

/* next: the dy of the next token of the document, or NULL. */
PN_CLONES static void add_dx(float *dx, const float *dy, const float *next, const float *w, int64_t D) {
    if (next) {
#pragma omp simd
        for (int64_t i = 0; i < D; i++) dx[i] += dy[i] + w[i] * (next[i] - dy[i]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < D; i++) dx[i] += dy[i] - w[i] * dy[i];
    }
}

PN_CLONES static void add_dw(float *dw, const float *dy, const float *x, const float *before, int64_t D) {
    if (before) {
#pragma omp simd
        for (int64_t i = 0; i < D; i++) dw[i] += (before[i] - x[i]) * dy[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < D; i++) dw[i] -= x[i] * dy[i];
    }
}

static int64_t doc_of(const pn_docs *docs, int64_t doc, int64_t token) {
    while (docs->offset[doc + 1] <= token) doc++;
    return doc;
}

/* The input before token t of a document; NULL: zeros. */
static const float *before(const pn_docs *docs, const float *x, const float *previous, int64_t doc, int64_t t,
                           int64_t D) {
    if (t > docs->offset[doc]) return x + (t - 1) * D;
    return previous ? previous + doc * D : NULL;
}

static pn_status forward(const pn_op_call *c) {
    const pn_docs *docs = &((const pn_token_shift_attr *)c->attr)->docs;
    const float *x = pn_f32(c->in[X]), *w = pn_f32(c->in[MIX]), *previous = pn_f32_or_null(c->in[PREVIOUS]);
    float *y = pn_f32(c->out[Y]), *last = pn_f32(c->out[LAST]);
    const int64_t N = c->in[X]->shape[0], D = c->in[X]->shape[1];
#pragma omp parallel for schedule(static) if (N * D > 65536)
    for (int64_t t0 = 0; t0 < N; t0 += PN_REDUCE_ROWS) {
        int64_t end = t0 + PN_REDUCE_ROWS < N ? t0 + PN_REDUCE_ROWS : N;
        for (int64_t t = t0, doc = 0; t < end; t++) {
            doc = doc_of(docs, doc, t);
            shift_row(y + t * D, x + t * D, before(docs, x, previous, doc, t, D), w, D);
        }
    }
    for (int64_t doc = 0; doc < docs->n; doc++) {
        const float *from = before(docs, x, previous, doc, docs->offset[doc + 1], D);
        if (from)
            memcpy(last + doc * D, from, (size_t)D * sizeof *last);
        else
            memset(last + doc * D, 0, (size_t)D * sizeof *last);
    }
    return PN_OK;
}

static void add_dprevious(float *dprevious, const pn_docs *docs, const float *dy, const float *w, int64_t D) {
    for (int64_t doc = 0; doc < docs->n; doc++) {
        const float *first = dy + docs->offset[doc] * D;
        if (docs->offset[doc] == docs->offset[doc + 1]) continue;
#pragma omp simd
        for (int64_t i = 0; i < D; i++) dprevious[doc * D + i] += w[i] * first[i];
    }
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[Y]) return PN_OK;
    const pn_docs *docs = &((const pn_token_shift_attr *)c->attr)->docs;
    const int64_t N = c->dout[Y]->shape[0], D = c->dout[Y]->shape[1], n_blocks = pn_reduce_blocks(N);
    const float *dy = pn_f32(c->dout[Y]);
    float *dx = pn_f32_or_null(c->din[X]), *dw = pn_f32_or_null(c->din[MIX]);
    const float *w = dx || c->din[PREVIOUS] ? pn_f32(c->in[MIX]) : NULL, *x = dw ? pn_f32(c->in[X]) : NULL;
    const float *previous = dw ? pn_f32_or_null(c->in[PREVIOUS]) : NULL;
    float *partial = c->scratch; /* [blocks, D] of dw */
#pragma omp parallel for schedule(static) if (N * D > 65536)
    for (int64_t b = 0; b < n_blocks; b++) {
        int64_t end = (b + 1) * PN_REDUCE_ROWS < N ? (b + 1) * PN_REDUCE_ROWS : N;
        if (dw) memset(partial + b * D, 0, (size_t)D * sizeof *partial);
        for (int64_t t = b * PN_REDUCE_ROWS, doc = 0; t < end; t++) {
            doc = doc_of(docs, doc, t);
            const float *next = t + 1 < docs->offset[doc + 1] ? dy + (t + 1) * D : NULL;
            if (dx) add_dx(dx + t * D, dy + t * D, next, w, D);
            if (dw) add_dw(partial + b * D, dy + t * D, x + t * D, before(docs, x, previous, doc, t, D), D);
        }
    }
    if (dw) pn_add_row_sum(dw, partial, n_blocks, D);
    if (c->din[PREVIOUS]) add_dprevious(pn_f32(c->din[PREVIOUS]), docs, dy, w, D);
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (!backward_pass || !c->wants[MIX]) return 0;
    return (size_t)(pn_reduce_blocks(c->in[X]->shape[0]) * c->in[X]->shape[1]) * sizeof(float);
}

static const pn_op_impl impl = {
    .name = "token_shift/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const token_shift_cpu[];
const pn_op_impl *const token_shift_cpu[] = { &impl, NULL };
