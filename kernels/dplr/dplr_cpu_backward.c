/* Gradient of the chunkwise form (blocks.md 9.4): chunks in reverse, each from its saved start state S, with G the
 * gradient of the state at its end. Scores, decays and P are computed again; nothing is inverted in time.
 *
 *     dP = (Q B)^T dO + (e^{L_C - L} B) G          dR = (I + N)^-T dP, of the right-hand side of P
 *     dV = (Q K)^T dO + (e^{L_C - L} K) G + (A K)^T dR
 *     G <- diag(e^{L_C}) G + (e^L Q)^T dO + (e^{L_{i-1}} A)^T dR
 *
 * and gradients of scores are dO and dR times V^T and P^T: dplr_gradient.c. */
#include "dplr_chunk.h"

#include <omp.h>
#include <string.h>

#include "cpu/heads.h"
#include "cpu/unit_lower.h"

enum { C = PN_DPLR_C };

typedef struct backward_work {
    pn_dplr_tiles t;
    pn_dplr_grad x;
    float *G;                   /* [dk, dv] gradient of the state at the chunk's end */
    float *V, *P, *R, *dO, *dP; /* [64, dv]; R becomes dR */
    float *turned;              /* [dv, 64] or [dv, row]: V, P, S, G transposed, one after another */
} backward_work;

enum { SCORES = 4, ROWS = 10, VALUES = 5 };

static int64_t turned_floats(const pn_dplr_dims *d) {
    return d->dv * (d->row > C ? d->row : C);
}
size_t pn_dplr_backward_floats(const pn_dplr_dims *d) {
    int64_t grad = SCORES * PN_DPLR_TILE + ROWS * C * d->row + d->row;
    int64_t values = pn_whole_lines(d->size) + VALUES * C * d->dv + pn_whole_lines(turned_floats(d));
    return pn_dplr_tiles_floats(d) + (size_t)(grad + values);
}
static backward_work backward_work_at(const pn_dplr_dims *d, float *at) {
    backward_work w = { .t = pn_dplr_tiles_at(d, &at) };
    float **const scores[] = { &w.x.QK, &w.x.QB, &w.x.AK, &w.x.AB };
    float **const rows[] = { &w.x.inQ, &w.x.inA, &w.x.outK, &w.x.outB, &w.x.dQ,
                             &w.x.dA,  &w.x.dK,  &w.x.dB,   &w.x.dL,   &w.x.left };
    float **const values[] = { &w.V, &w.P, &w.R, &w.dO, &w.dP };
    for (int i = 0; i < SCORES; i++) *scores[i] = pn_take(&at, PN_DPLR_TILE);
    for (int i = 0; i < ROWS; i++) *rows[i] = pn_take(&at, C * d->row);
    for (int i = 0; i < VALUES; i++) *values[i] = pn_take(&at, C * d->dv);
    w.x.SG = pn_take(&at, d->row);
    w.G = pn_take(&at, d->size);
    w.turned = pn_take(&at, turned_floats(d));
    return w;
}

/* dR, and the values' gradient added to dv (NULL: not wanted). have_G: w->G is not zero. */
static void value_gradients(const pn_dplr_dims *d, bool have_G, float *dv, backward_work *w) {
    pn_dplr_tiles *t = &w->t;
    int64_t n = t->n, cols = d->dv, ld = d->ldv;
    pn_mm_run(pn_mm_transposed_of(n, cols, n, t->QB, C, w->dO, cols, w->dP, cols), PN_MM_A_UPPER, false, &t->ahead);
    if (have_G)
        pn_mm_run(pn_mm_of(n, cols, d->dk, t->Bout, d->row, w->G, cols, w->dP, cols), PN_MM_DENSE, true, &t->ahead);
    pn_unit_lower_solve_transposed(n, t->N, C, t->X, w->dP, cols, w->R, cols, cols);
    if (!dv) return;
    pn_mm_run(pn_mm_transposed_of(n, cols, n, t->QK, C, w->dO, cols, dv, ld), PN_MM_A_UPPER, true, &t->ahead);
    pn_mm_run(pn_mm_transposed_of(n, cols, n, t->AK, C, w->R, cols, dv, ld), PN_MM_A_UPPER, true, &t->ahead);
    if (have_G) pn_mm_run(pn_mm_of(n, cols, d->dk, t->Kout, d->row, w->G, cols, dv, ld), PN_MM_DENSE, true, &t->ahead);
}

/* The triangles of MQ = dO values^T and MA = dR values^T; values [n, dv]. */
static void score_gradients(const pn_dplr_dims *d, const float *values, float *MQ, float *MA, backward_work *w) {
    int64_t n = w->t.n, dv = d->dv;
    pn_tile_transpose(w->turned, C, values, dv, n, dv);
    pn_mm_run(pn_mm_of(n, n, dv, w->dO, dv, w->turned, C, MQ, C), PN_MM_C_LOWER, false, &w->t.ahead);
    pn_mm_run(pn_mm_of(n, n, dv, w->R, dv, w->turned, C, MA, C), PN_MM_C_LOWER, false, &w->t.ahead);
}

/* outA = a state^T, outB = b state^T; zeros without a state. */
static void through_state(const pn_dplr_dims *d, const float *a, const float *b, const float *state, float *out_a,
                          float *out_b, backward_work *w) {
    int64_t n = w->t.n, dk = d->dk, dv = d->dv, row = d->row;
    if (!state) {
        memset(out_a, 0, sizeof(float) * (size_t)(n * row));
        memset(out_b, 0, sizeof(float) * (size_t)(n * row));
        return;
    }
    pn_tile_transpose(w->turned, row, state, dv, dk, dv);
    pn_mm_run(pn_mm_of(n, dk, dv, a, dv, w->turned, row, out_a, row), PN_MM_DENSE, false, &w->t.ahead);
    pn_mm_run(pn_mm_of(n, dk, dv, b, dv, w->turned, row, out_b, row), PN_MM_DENSE, false, &w->t.ahead);
}

/* A head's part of the call at a chunk's first token. NULL: absent or not wanted. */
typedef struct chunk_grad {
    const float *v, *dout, *S;
    float *dv;
} chunk_grad;

/* Leaves the gradients of q, a, k, b and g in w->x, and that of the start state in G if keep_G. */
static void chunk_backward(const pn_dplr_dims *d, const pn_dplr_rows *rows, const chunk_grad *p, bool have_G,
                           bool keep_G, backward_work *w) {
    pn_dplr_tiles *t = &w->t;
    const pn_dplr_grad *x = &w->x;
    int64_t n = t->n, dk = d->dk, dv = d->dv;
    pn_copy_rows(n, dv, p->v, d->ldv, w->V, dv);
    pn_copy_rows(n, dv, p->dout, d->ldv, w->dO, dv); /* zeros when there is none */
    pn_dplr_answers(d, dv, w->V, p->S, w->R, w->P, t);
    value_gradients(d, have_G, p->dv, w);
    score_gradients(d, w->V, x->QK, x->AK, w);
    score_gradients(d, w->P, x->QB, x->AB, w);
    through_state(d, w->dO, w->R, p->S, x->inQ, x->inA, w);
    through_state(d, w->V, w->P, have_G ? w->G : NULL, x->outK, x->outB, w);
    for (int64_t i = 0; i < dk; i++)
        x->SG[i] = have_G && p->S ? (float)pn_long_dot(dv, p->S + i * dv, w->G + i * dv) : 0;
    pn_dplr_gradient(d, rows, x, t);
    if (!keep_G) return;
    pn_mm g = pn_mm_transposed_of(dk, dv, n, t->Qin, d->row, w->dO, dv, w->G, dv);
    if (have_G) pn_mm_keep(&g, 1, w->G, dv), g.keep_row = t->through;
    pn_mm_run(g, PN_MM_DENSE, false, &t->ahead);
    pn_mm_run(pn_mm_transposed_of(dk, dv, n, t->Ain, d->row, w->R, dv, w->G, dv), PN_MM_DENSE, true, &t->ahead);
}

static float *grad_at(const pn_op_call *c, int i, int64_t offset) {
    return c->din[i] ? pn_f32(c->din[i]) + offset : NULL;
}

/* All chunks of one document for one head. */
static void document_backward(const pn_op_call *c, const pn_dplr_dims *d, int64_t doc, int64_t j, backward_work *w) {
    const pn_dplr_attr *attr = c->attr;
    int64_t begin = attr->docs.offset[doc], end = attr->docs.offset[doc + 1], n_chunks = (end - begin + C - 1) / C;
    int64_t chunk = pn_docs_chunks(&attr->docs, doc) + n_chunks - 1, state_at = (doc * d->heads + j) * d->size;
    const float *v = pn_f32(c->in[2]), *S = pn_f32(c->out[2]);
    const float *dout = pn_f32_or_null(c->dout[0]), *dS_T = pn_f32_or_null(c->dout[1]);
    float *dS0 = grad_at(c, 6, state_at);
    bool have_G = dS_T;
    if (dS_T) memcpy(w->G, dS_T + state_at, sizeof(float) * (size_t)d->size);
    for (int64_t t = begin + (n_chunks - 1) * C; t >= begin; t -= C, chunk--) {
        int64_t n = end - t < C ? end - t : C, k_at = t * d->ldk + j * d->dk, v_at = t * d->ldv + j * d->dv;
        int64_t kept_at = (chunk * d->heads + j) * d->size;
        pn_dplr_rows x = pn_dplr_rows_of(c, k_at);
        chunk_grad p = { .v = v + v_at,
                         .dout = dout ? dout + v_at : NULL,
                         .S = t > begin || c->in[6] ? S + kept_at : NULL,
                         .dv = grad_at(c, 2, v_at) };
        const struct {
            const float *in, *grad;
            float *out;
        } rows[] = { { x.q, w->x.dQ, grad_at(c, 0, k_at) },
                     { x.k, w->x.dK, grad_at(c, 1, k_at) },
                     { x.a, w->x.dA, grad_at(c, 3, k_at) },
                     { x.b, w->x.dB, grad_at(c, 4, k_at) },
                     { x.g, w->x.dL, grad_at(c, 5, k_at) } };
        pn_ahead *before = &w->t.ahead;
        pn_ahead_reset(before);
        if (t > begin) {
            for (int i = 0; i < 5; i++) pn_ahead_add_chunk_before(before, d->dk, rows[i].in, d->ldk);
            pn_ahead_add_chunk_before(before, d->dv, p.v, d->ldv);
            pn_ahead_add_chunk_before(before, d->dv, p.dout, d->ldv);
            pn_ahead_add(before, 1, d->size, S + kept_at - d->heads * d->size, d->size);
            pn_ahead_add_chunk_before(before, d->dv, p.dv, d->ldv);
            for (int i = 0; i < 5; i++) pn_ahead_add_chunk_before(before, d->dk, rows[i].out, d->ldk);
        }
        pn_dplr_chunk(d, n, &x, &w->t);
        chunk_backward(d, &x, &p, have_G, t > begin || dS0, w);
        have_G = true;
        for (int i = 0; i < 5; i++) pn_add_rows(n, d->dk, 1, rows[i].grad, d->row, rows[i].out, d->ldk);
    }
    for (int64_t i = 0; dS0 && have_G && i < d->size; i++) dS0[i] += w->G[i];
}

pn_status pn_dplr_backward(const pn_op_call *c) {
    const pn_dplr_attr *attr = c->attr;
    if (!pn_op_has_din(c) || (!c->dout[0] && !c->dout[1])) return PN_OK;
    pn_dplr_dims d = pn_dplr_dims_of(c);
    int64_t tasks = attr->docs.n * d.heads;
#pragma omp parallel for schedule(dynamic) if (tasks > 1)
    for (int64_t task = 0; task < tasks; task++) {
        size_t mine = (size_t)omp_get_thread_num() * pn_dplr_backward_floats(&d);
        backward_work w = backward_work_at(&d, (float *)c->scratch + mine);
        document_backward(c, &d, task / d.heads, task % d.heads, &w);
    }
    return PN_OK;
}
