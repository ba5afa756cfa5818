/* Gradient of the chunkwise form (blocks.md 5.4): chunks in reverse, each from its saved start state S, with G the
 * gradient of the state at its end. Scores and decays are computed again; nothing is inverted in time.
 *
 *     dA = low(dO V^T)      dV = A^T dO + (e^{L_C - L} K) G      G <- diag(e^{L_C}) G + (e^L Q)^T dO
 *
 * and dO S^T and V G^T are what dQ, dK and the gate's gradient need of the states. */
#include "gated_linear_chunk.h"

#include <omp.h>
#include <string.h>

#include "cpu/heads.h"

enum { C = PN_GLIN_C, B = PN_GLIN_B };

typedef struct backward_work {
    pn_glin_tiles t;
    pn_glin_grad x;
    float *G;      /* [dk, dv] gradient of the state at the chunk's end */
    float *dO;     /* [64, dv] */
    float *VT;     /* [dv, 64] transposed values, then transposed dO */
    float *turned; /* [dk, 64] */
} backward_work;

size_t pn_glin_backward_floats(const pn_glin_dims *d) {
    int64_t grad = PN_GLIN_TILE + 5 * C * d->row + d->row;
    return pn_glin_tiles_floats(d) + (size_t)(grad + pn_whole_lines(d->size) + 2 * C * d->dv + C * d->dk);
}
static backward_work backward_work_at(const pn_glin_dims *d, float *at) {
    backward_work w = { .t = pn_glin_tiles_at(d, &at) };
    w.x.dA = pn_take(&at, PN_GLIN_TILE);
    float **const rows[] = { &w.x.R, &w.x.X, &w.x.dQ, &w.x.dK, &w.x.dL };
    for (int i = 0; i < 5; i++) *rows[i] = pn_take(&at, C * d->row);
    w.x.SG = pn_take(&at, d->row);
    w.G = pn_take(&at, d->size);
    w.dO = pn_take(&at, C * d->dv);
    w.VT = pn_take(&at, C * d->dv);
    w.turned = pn_take(&at, C * d->dk);
    return w;
}

/* A head's part of the call at a chunk's first token. NULL: absent or not wanted. */
typedef struct chunk_grad {
    const float *v, *dout, *S;
    float *dv, *dg;
} chunk_grad;

/* Zeros above the diagonal and in the rows that fill the last sub-block. */
static void clear_above(int64_t n, float *dA) {
    for (int64_t i = 0; i < n; i++) {
        int64_t end = i / B * B + B;
        memset(dA + i * C + i + 1, 0, sizeof(float) * (size_t)(end - i - 1));
    }
    for (int64_t i = n; i < (n + B - 1) / B * B; i++) memset(dA + i * C, 0, sizeof(float) * C);
}

/* out [n, row] = columns [dv, n]^T state^T, computed as state columns: state [dk, dv]. */
static void through_state(const pn_glin_dims *d, int64_t n, const float *state, backward_work *w, float *out) {
    pn_mm p = pn_mm_of(d->dk, n, d->dv, state, d->dv, w->VT, C, w->turned, C);
    p.ahead = &w->t.ahead;
    pn_tile_mm(&p);
    pn_tile_transpose(out, d->row, w->turned, C, d->dk, n);
    for (int64_t i = 0; i < n; i++) memset(out + i * d->row + d->dk, 0, sizeof(float) * (size_t)(d->row - d->dk));
}

/* One head of one chunk, its scores in w->t. have_G: w->G is not zero. Leaves gradients of Q and K in w->x, and that of
 * the start state in G if keep_G. */
static void chunk_backward(const pn_glin_dims *d, int64_t n, const chunk_grad *p, bool have_G, bool keep_G,
                           backward_work *w) {
    const pn_glin_tiles *t = &w->t;
    int64_t dk = d->dk, dv = d->dv;
    pn_glin_grad x = w->x;
    x.dg = p->dg;
    if (!have_G) x.X = NULL;
    if (!p->S) x.R = NULL;
    if (!have_G || !p->S) x.SG = NULL;

    pn_copy_rows(n, dv, p->dout, d->ldo, w->dO, dv); /* zeros when there is none */
    pn_tile_transpose(w->VT, C, p->v, d->ldv, n, dv);
    pn_mm a = pn_mm_of(n, n, dv, w->dO, dv, w->VT, C, x.dA, C);
    a.form = PN_MM_C_LOWER;
    a.ahead = &w->t.ahead;
    pn_tile_mm(&a);
    clear_above(n, x.dA);
    if (x.X) through_state(d, n, w->G, w, x.X);
    if (x.R) {
        pn_tile_transpose(w->VT, C, w->dO, dv, n, dv);
        through_state(d, n, p->S, w, x.R);
    }
    for (int64_t i = 0; x.SG && i < dk; i++) x.SG[i] = (float)pn_long_dot(dv, p->S + i * dv, w->G + i * dv);
    if (x.SG) memset(x.SG + dk, 0, sizeof(float) * (size_t)(d->row - dk));

    if (p->dv) {
        pn_mm v = pn_mm_transposed_of(n, dv, n, t->A, C, w->dO, dv, p->dv, d->ldv);
        v.form = PN_MM_A_UPPER;
        v.ahead = &w->t.ahead;
        pn_mm_keep(&v, 1, p->dv, d->ldv);
        pn_tile_mm(&v);
        v = pn_mm_of(n, dv, dk, t->Kout, d->row, w->G, dv, p->dv, d->ldv);
        v.ahead = &w->t.ahead;
        pn_mm_keep(&v, 1, p->dv, d->ldv);
        if (have_G) pn_tile_mm(&v);
    }
    (d->vector ? pn_glin_vector_gradient : pn_glin_scalar_gradient)(d, n, &x, &w->t);
    if (!keep_G) return;
    pn_mm g = pn_mm_transposed_of(dk, dv, n, t->Qin, d->row, w->dO, dv, w->G, dv);
    g.ahead = &w->t.ahead;
    if (have_G) pn_mm_keep(&g, 1, w->G, dv), g.keep_row = t->through;
    pn_tile_mm(&g);
}

static float *grad_at(const pn_op_call *c, int i, int64_t offset) {
    return c->din[i] ? pn_f32(c->din[i]) + offset : NULL;
}

/* All chunks of one document for one head. */
static void document_backward(const pn_op_call *c, const pn_glin_dims *d, int64_t doc, int64_t j, backward_work *w) {
    const pn_gated_linear_attr *a = c->attr;
    int64_t begin = a->docs.offset[doc], end = a->docs.offset[doc + 1], g_width = d->vector ? d->dk : 1;
    int64_t n_chunks = (end - begin + C - 1) / C, chunk = pn_docs_chunks(&a->docs, doc) + n_chunks - 1;
    int64_t state_at = (doc * d->heads + j) * d->size;
    const float *dout = pn_f32_or_null(c->dout[0]), *dS_T = pn_f32_or_null(c->dout[1]);
    const float *q = pn_f32(c->in[0]), *k = pn_f32(c->in[1]), *v = pn_f32(c->in[2]), *g = pn_f32_or_null(c->in[3]);
    const float *S = pn_f32(c->out[2]);
    float *dS0 = grad_at(c, 4, state_at);
    bool have_G = dS_T;
    if (dS_T) memcpy(w->G, dS_T + state_at, sizeof(float) * (size_t)d->size);
    for (int64_t t = begin + (n_chunks - 1) * C; t >= begin; t -= C, chunk--) {
        int64_t n = end - t < C ? end - t : C, q_at = pn_glin_at(t, d->ldq, j, d->q_share, d->dk);
        int64_t k_at = pn_glin_at(t, d->ldk, j, d->k_share, d->dk), v_at = pn_glin_at(t, d->ldv, j, d->v_share, d->dv);
        int64_t g_at = pn_glin_at(t, d->ldg, j, d->g_share, g_width), kept_at = (chunk * d->heads + j) * d->size;
        float *dq = grad_at(c, 0, q_at), *dk = grad_at(c, 1, k_at);
        chunk_grad p = { .v = v + v_at,
                         .dout = dout ? dout + pn_glin_at(t, d->ldo, j, 1, d->dv) : NULL,
                         .S = t > begin || c->in[4] ? S + kept_at : NULL,
                         .dv = grad_at(c, 2, v_at),
                         .dg = grad_at(c, 3, g_at) };
        pn_ahead *before = &w->t.ahead;
        pn_ahead_reset(before);
        if (t > begin) {
            pn_ahead_add_chunk_before(before, d->dk, q + q_at, d->ldq);
            pn_ahead_add_chunk_before(before, d->dk, k + k_at, d->ldk);
            if (g) pn_ahead_add_chunk_before(before, g_width, g + g_at, d->ldg);
            pn_ahead_add_chunk_before(before, d->dv, p.v, d->ldv);
            pn_ahead_add_chunk_before(before, d->dv, p.dout, d->ldo);
            pn_ahead_add(before, 1, d->size, S + kept_at - d->heads * d->size, d->size);
            pn_ahead_add_chunk_before(before, d->dv, p.dv, d->ldv);
            pn_ahead_add_chunk_before(before, d->dk, dq, d->ldq);
            pn_ahead_add_chunk_before(before, d->dk, dk, d->ldk);
            pn_ahead_add_chunk_before(before, g_width, p.dg, d->ldg);
        }
        pn_glin_chunk(d, n, q + q_at, k + k_at, g ? g + g_at : NULL, &w->t);
        chunk_backward(d, n, &p, have_G, t > begin || dS0, w);
        have_G = true;
        pn_add_rows(n, d->dk, d->scale, w->x.dQ, d->row, dq, d->ldq);
        pn_add_rows(n, d->dk, 1, w->x.dK, d->row, dk, d->ldk);
    }
    for (int64_t i = 0; dS0 && have_G && i < d->size; i++) dS0[i] += w->G[i];
}

/* Heads that share an input add to the same gradient, one after the other. */
pn_status pn_glin_backward(const pn_op_call *c) {
    const pn_gated_linear_attr *a = c->attr;
    if (!pn_op_has_din(c) || (!c->dout[0] && !c->dout[1])) return PN_OK;
    pn_glin_dims d = pn_glin_dims_of(c);
    int64_t tasks = a->docs.n * d.groups, group = d.heads / d.groups;
#pragma omp parallel for schedule(dynamic) if (tasks > 1)
    for (int64_t task = 0; task < tasks; task++) {
        size_t mine = (size_t)omp_get_thread_num() * pn_glin_backward_floats(&d);
        backward_work w = backward_work_at(&d, (float *)c->scratch + mine);
        for (int64_t j = 0; j < group; j++) document_backward(c, &d, task / d.groups, task % d.groups * group + j, &w);
    }
    return PN_OK;
}
