/* Gradient of the chunkwise form (blocks.md 8.4): chunks in reverse, each from its saved start state S and saved e,
 * with G the gradient of the state at its end. A and P are computed again; nothing is inverted in time.
 *
 * In terms of U = beta e and R = beta W the system is (I + A) U = R with A = beta (K K^T) E below the diagonal. From it
 * follow dR = (I + A)^-T dU and dA = -strict_low(dR U^T), so the triangular matrix itself is never inverted either, and
 * dbeta_i = <dR_i, e_i>, the diagonal of the same product. Every gate enters through L only, L_i where token i reads
 * and -L_i where it writes: dL_i = <q_i, dq_i> + <k_i, dk_i of reading> - <k_i, dk_i of writing>, and
 * dg_i = sum_{m>=i} dL_m inside the chunk. */
#include "gated_delta_chunk.h"

#include <omp.h>
#include <string.h>

#include "cpu/clones.h"
#include "cpu/heads.h"
#include "cpu/unit_lower.h"

enum { C = PN_DELTA_C };

typedef struct backward_work {
    pn_delta_tiles t;
    float *G;        /* [group, dk, dv] gradient of the state at the chunk's end */
    float *S;        /* [dk, dv] start state of a chunk that none is saved for */
    float *dU;       /* [64, dv] */
    float *OR;       /* [2 n, dv] dO, then dR */
    float *eT;       /* [dv, 64] */
    float *ST;       /* [dv, dk] */
    float *dP, *dA;  /* [64, 64] dO e^T, dR e^T; then gradients of Q K^T and K K^T below the diagonal */
    float *factored; /* [2 n, dk] queries and keys as what reads the start state */
    float *turned;   /* [dk, 64] G e^T */
    float *reads;    /* [2 n, dk] dQ, then dK of reading */
    float *writes;   /* [64, dk] dK of writing inside the chunk */
    float *ends;     /* [64, dk] e G^T: dK of writing to the chunk's end, without its factor */
} backward_work;

size_t pn_delta_backward_floats(const pn_delta_dims *d) {
    int64_t size = pn_whole_lines(d->size), G = pn_whole_lines(d->group * d->size);
    return pn_delta_tiles_floats(d) + (size_t)(G + 2 * size + 4 * C * d->dv + 2 * PN_DELTA_TILE + 7 * C * d->dk);
}
static backward_work backward_work_at(const pn_delta_dims *d, float *at) {
    backward_work w = { .t = pn_delta_tiles_at(d, &at) };
    w.G = pn_take(&at, d->group * d->size);
    w.S = pn_take(&at, d->size);
    w.dU = pn_take(&at, C * d->dv);
    w.OR = pn_take(&at, 2 * C * d->dv);
    w.eT = pn_take(&at, C * d->dv);
    w.ST = pn_take(&at, d->size);
    w.dP = pn_take(&at, PN_DELTA_TILE);
    w.dA = pn_take(&at, PN_DELTA_TILE);
    w.factored = pn_take(&at, 2 * C * d->dk);
    w.turned = pn_take(&at, C * d->dk);
    w.reads = pn_take(&at, 2 * C * d->dk);
    w.writes = pn_take(&at, C * d->dk);
    w.ends = pn_take(&at, C * d->dk);
    return w;
}

/* Where one value head's part of the call lies, at a chunk's first token. NULL: absent or not wanted. */
typedef struct chunk_grad {
    const float *e, *dout, *S;
    float *dq, *dk, *dv, *dg, *dbeta;
} chunk_grad;

/* On entry dP = dO e^T and dA = dR e^T. dP <- scale beta_j dP_ij E_ij and dA <- -beta_i beta_j dA_ij E_ij below the
 * diagonal, zeros above. diagonal_i: what would be dP_ii, kept out of it because it moves nothing through a decay. */
static PN_CLONES void score_gradients(int64_t n, const float *beta, float scale, bool have_dP, const float *decays,
                                      float *dP, float *dA, float *diagonal) {
    for (int64_t i = 0; i < n; i++) {
        int64_t end = (i & ~(int64_t)15) + 16;
        const float *E = decays + i * C;
        float *dPi = dP + i * C, *dAi = dA + i * C, minus = -beta[i];
        diagonal[i] = have_dP ? scale * beta[i] * dPi[i] : 0;
#pragma omp simd
        for (int64_t j = 0; j < end; j++) {
            float decay = beta[j] * E[j];
            dAi[j] = j < i ? minus * decay * dAi[j] : 0.0f;
        }
        if (!have_dP) continue;
#pragma omp simd
        for (int64_t j = 0; j < end; j++) {
            float decay = scale * beta[j] * E[j];
            dPi[j] = j < i ? decay * dPi[j] : 0.0f;
        }
    }
}

/* The parts of one token's dq and dk, dk_ends times `factor` and the diagonal's, added to dq and dk (NULL: not wanted).
 * Returns dL_i without -*to_end, what it writes to the chunk's end: for late tokens most of that comes back with dL of
 * the end, and only double keeps what is left. dQ, ends: NULL for zeros. */
PN_INLINE float token_gradient(int64_t width, const float *q, const float *k, const float *dQ, const float *reads,
                               const float *writes, const float *ends, float factor, float diagonal, float *dq,
                               float *dk, float *to_end) {
    float inside = 0, end = 0;
#pragma omp simd reduction(+ : inside, end)
    for (int64_t x = 0; x < width; x++) {
        float from_q = dQ ? dQ[x] : 0.0f, from_end = ends ? factor * ends[x] : 0.0f;
        inside += from_q * q[x] + (reads[x] - writes[x]) * k[x];
        end += from_end * k[x];
    }
    if (dk)
#pragma omp simd
        for (int64_t x = 0; x < width; x++)
            dk[x] += reads[x] + writes[x] + (ends ? factor * ends[x] : 0.0f) + diagonal * q[x];
    if (dq && dQ)
#pragma omp simd
        for (int64_t x = 0; x < width; x++) dq[x] += dQ[x] + diagonal * k[x];
    *to_end = end;
    return inside;
}

/* All tokens of a chunk. dL: written. Returns the sum of what goes to the chunk's end. */
static PN_CLONES double key_gradients(int64_t n, int64_t width, int64_t ld, const pn_delta_tiles *t, const float *dQ,
                                      const float *reads, const float *writes, const float *ends, const float *factor,
                                      const float *diagonal, float *dq, float *dk, double *dL) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i * width;
        float to_end;
        float inside = token_gradient(width, t->Q + at, t->K + at, dQ ? dQ + at : NULL, reads + at, writes + at,
                                      ends ? ends + at : NULL, factor[i], diagonal[i], dq ? dq + i * ld : NULL,
                                      dk ? dk + i * ld : NULL, &to_end);
        dL[i] = (double)inside - (double)to_end;
        sum += (double)to_end;
    }
    return sum;
}

static void add_product(pn_mm p, pn_mm_form form) {
    p.form = form;
    pn_mm_keep(&p, 1, p.c, p.ldc);
    pn_tile_mm(&p);
}

/* dR of a chunk, after dO in w->OR when there is one. have_G: G is not zero. */
static void system_gradient(const pn_delta_dims *d, int64_t n, const pn_delta_gates *x, const float *dO, const float *G,
                            bool have_G, float *dR, backward_work *w) {
    int64_t dk = d->dk, dv = d->dv;
    /* dU = e^{L_C - L} (K G) + P^T dO;  dR = (I + A)^-T dU */
    if (have_G) {
        pn_mm kg = pn_mm_of(n, dv, dk, w->t.K, dk, G, dv, w->dU, dv);
        kg.scale_row = x->decay.out;
        kg.ahead = &w->t.ahead;
        pn_tile_mm(&kg);
    }
    if (dO) {
        pn_mm po = pn_mm_transposed_of(n, dv, n, w->t.P, C, dO, dv, w->dU, dv);
        po.form = PN_MM_A_UPPER;
        if (have_G) pn_mm_keep(&po, 1, w->dU, dv);
        po.ahead = &w->t.ahead;
        pn_tile_mm(&po);
    }
    pn_unit_lower_solve_transposed(n, w->t.A, C, w->t.X, w->dU, dv, dR, dv, dv);
}

/* One value head of one chunk. have_G: G is not zero. Leaves the gradient of the start state in G if keep_G. */
static void chunk_backward(const pn_delta_dims *d, int64_t n, const pn_delta_gates *x, const chunk_grad *p, float *G,
                           bool have_G, bool keep_G, backward_work *w) {
    int64_t dk = d->dk, dv = d->dv, rows = p->dout ? 2 * n : n; /* of what reads: queries if dO, and keys */
    const float *dO = p->dout ? w->OR : NULL, *readers = dO ? w->t.Q : w->t.K;
    float *dR = w->OR + (rows - n) * dv, *dQ = dO ? w->reads : NULL, *dK = w->reads + (rows - n) * dk;
    float reading[2 * C], *key_reading = reading + rows - n, diagonal[C];
    for (int64_t i = 0; i < n; i++) {
        reading[i] = d->scale * x->decay.in[i];
        key_reading[i] = -x->decay.in[i] * x->beta[i];
    }
    if (dO) pn_copy_rows(n, dv, p->dout, d->ldv, w->OR, dv);
    system_gradient(d, n, x, dO, G, have_G, dR, w);
    for (int64_t i = 0; p->dv && i < n; i++) pn_add_rows(1, dv, x->beta[i], dR + i * dv, dv, p->dv + i * d->ldv, dv);

    pn_tile_transpose(w->eT, C, p->e, d->ldv, n, dv);
    pn_mm et = pn_mm_of(n, n, dv, dR, dv, w->eT, C, w->dA, C);
    et.form = PN_MM_C_LOWER;
    et.ahead = &w->t.ahead;
    pn_tile_mm(&et);
    et.a = dO, et.c = w->dP;
    if (dO) pn_tile_mm(&et);
    for (int64_t i = 0; p->dbeta && i < n; i++) p->dbeta[i * d->v_heads] += w->dA[i * C + i];
    score_gradients(n, x->beta, d->scale, dO, w->t.E, w->dP, w->dA, diagonal);

    /* what reads: dQ = scale e^L (dO S^T) + dP K,  dK = -beta e^L (dR S^T) + dA K */
    pn_mm reads = pn_mm_of(n, dk, n, w->dA, C, w->t.K, dk, dK, dk);
    reads.form = PN_MM_A_LOWER;
    reads.ahead = &w->t.ahead;
    if (p->S) {
        pn_tile_transpose(w->ST, dk, p->S, dv, dk, dv);
        pn_mm st = pn_mm_of(rows, dk, dv, w->OR, dv, w->ST, dk, w->reads, dk);
        st.scale_row = reading;
        st.ahead = &w->t.ahead;
        pn_tile_mm(&st);
        pn_mm_keep(&reads, 1, dK, dk);
    }
    pn_tile_mm(&reads);
    if (dO) {
        reads.a = w->dP, reads.c = dQ;
        if (p->S) reads.c0 = dQ;
        pn_tile_mm(&reads);
    }
    /* what writes: dK = dA^T K + dP^T Q + beta e^{L_C - L} (e G^T), the last computed as G e^T */
    pn_mm writes = pn_mm_transposed_of(n, dk, n, w->dA, C, w->t.K, dk, w->writes, dk);
    writes.form = PN_MM_A_UPPER;
    writes.ahead = &w->t.ahead;
    pn_tile_mm(&writes);
    if (dO) add_product(pn_mm_transposed_of(n, dk, n, w->dP, C, w->t.Q, dk, w->writes, dk), PN_MM_A_UPPER);
    if (have_G) {
        pn_mm ge = pn_mm_of(dk, n, dv, G, dv, w->eT, C, w->turned, C);
        ge.ahead = &w->t.ahead;
        pn_tile_mm(&ge);
        pn_tile_transpose(w->ends, dk, w->turned, C, dk, n);
    }
    double dL[C];
    double to_end = key_gradients(n, dk, d->ldk, &w->t, dQ, dK, w->writes, have_G ? w->ends : NULL, x->write, diagonal,
                                  p->dq, p->dk, dL);
    if (have_G && p->S) to_end += (double)x->decay.through * pn_long_dot(d->size, p->S, G);
    for (int64_t i = n - 1; p->dg && i >= 0; i--) {
        to_end += dL[i];
        p->dg[i * d->v_heads] += (float)to_end;
    }
    if (!keep_G) return;

    /* G <- e^{L_C} G + scale (e^L Q)^T dO - (beta e^L K)^T dR */
    pn_scale_rows(rows, dk, 1, reading, readers, dk, w->factored);
    pn_mm g = pn_mm_transposed_of(dk, dv, rows, w->factored, dk, w->OR, dv, G, dv);
    if (have_G) pn_mm_keep(&g, x->decay.through, G, dv);
    g.ahead = &w->t.ahead;
    pn_tile_mm(&g);
}

static float *grad_at(const pn_op_call *c, int i, int64_t offset) {
    return i < c->n_in && c->din[i] ? pn_f32(c->din[i]) + offset : NULL;
}

/* x: rows of this chunk, NULL when absent. */
static void add_chunk_before(const pn_delta_dims *d, pn_ahead *list, int64_t cols, const float *x, int64_t ld) {
    if (x) pn_ahead_add(list, d->chunk, cols, x - d->chunk * ld, ld);
}

/* All chunks of one document for one query/key head. */
static void document_backward(const pn_op_call *c, const pn_delta_dims *d, int64_t doc, int64_t head,
                              backward_work *w) {
    const pn_gated_delta_attr *a = c->attr;
    int64_t begin = a->docs.offset[doc], end = a->docs.offset[doc + 1], states = d->group * d->size, step = d->chunk;
    int64_t state_at = (doc * d->v_heads + head * d->group) * d->size;
    const float *dout = pn_f32_or_null(c->dout[0]), *dS_T = pn_f32_or_null(c->dout[1]);
    const float *g = pn_f32_or_null(c->in[3]), *beta = pn_f32(c->in[4]), *e = pn_f32(c->out[3]);
    bool have_S0 = c->n_in > 5 && c->in[5], have_G = dS_T;
    float *dS0 = grad_at(c, 5, state_at);
    if (dS_T) memcpy(w->G, dS_T + state_at, sizeof(float) * (size_t)states);
    const float *q = pn_f32(c->in[0]) + head * d->dk, *k = pn_f32(c->in[1]) + head * d->dk;
    const float *S = pn_f32(c->out[2]) + (pn_docs_chunks(&a->docs, doc) * d->v_heads + head * d->group) * d->size;
    pn_ahead *before = &w->t.ahead;
    for (int64_t t = begin + (end - begin - 1) / step * step; t >= begin && t < end; t -= step) {
        int64_t n = end - t < step ? end - t : step, qk_at = t * d->ldk + head * d->dk, kept = (t - begin) / C;
        bool saved = (t - begin) % C == 0;
        float *dq = grad_at(c, 0, qk_at), *dk = grad_at(c, 1, qk_at);
        pn_ahead_reset(before);
        if (t > begin) {
            add_chunk_before(d, before, d->dk, q + t * d->ldk, d->ldk);
            add_chunk_before(d, before, d->dk, k + t * d->ldk, d->ldk);
            add_chunk_before(d, before, d->dk, dq, d->ldk);
            add_chunk_before(d, before, d->dk, dk, d->ldk);
        }
        pn_delta_scores(d, n, q + t * d->ldk, k + t * d->ldk, &w->t);
        for (int64_t r = 0; r < d->group; r++) {
            int64_t j = head * d->group + r, v_at = t * d->ldv + j * d->dv, gate_at = t * d->v_heads + j;
            const float *from = S + (kept * d->v_heads + r) * d->size;
            if (kept == 0 && !have_S0) from = NULL;
            chunk_grad p = { .e = e + v_at,
                             .dout = dout ? dout + v_at : NULL,
                             .S = from,
                             .dq = dq,
                             .dk = dk,
                             .dv = grad_at(c, 2, v_at),
                             .dg = grad_at(c, 3, gate_at),
                             .dbeta = grad_at(c, 4, gate_at) };
            if (r > 0) pn_ahead_reset(before);
            if (t > begin) {
                add_chunk_before(d, before, d->dv, p.e, d->ldv);
                add_chunk_before(d, before, d->dv, p.dout, d->ldv);
                if (saved && kept > 0) pn_ahead_add(before, 1, d->size, from - d->v_heads * d->size, d->size);
                add_chunk_before(d, before, d->dv, p.dv, d->ldv);
            }
            pn_delta_gates gates;
            if (!saved) {
                int64_t gate_before = gate_at - step * d->v_heads;
                pn_delta_gates_of(d, step, g ? g + gate_before : NULL, beta + gate_before, &gates);
                pn_delta_next_state(d, step, d->dv, &gates, k + (t - step) * d->ldk, d->ldk, p.e - step * d->ldv,
                                    d->ldv, from, d->dv, w->S, d->dv, w->factored, before);
                p.S = w->S;
            }
            pn_delta_gates_of(d, n, g ? g + gate_at : NULL, beta + gate_at, &gates);
            pn_delta_system(d, n, &gates, gates.beta, NULL, &w->t);
            chunk_backward(d, n, &gates, &p, w->G + r * d->size, have_G, t > begin || dS0, w);
        }
        have_G = true;
    }
    for (int64_t i = 0; dS0 && have_G && i < states; i++) dS0[i] += w->G[i];
}

pn_status pn_delta_backward(const pn_op_call *c) {
    const pn_gated_delta_attr *a = c->attr;
    if (!pn_op_has_din(c) || (!c->dout[0] && !c->dout[1])) return PN_OK;
    pn_delta_dims d = pn_delta_dims_of(c);
    int64_t tasks = a->docs.n * d.heads;
#pragma omp parallel for schedule(dynamic) if (tasks > 1)
    for (int64_t task = 0; task < tasks; task++) {
        size_t mine = (size_t)omp_get_thread_num() * pn_delta_backward_floats(&d);
        backward_work w = backward_work_at(&d, (float *)c->scratch + mine);
        document_backward(c, &d, task / d.heads, task % d.heads, &w);
    }
    return PN_OK;
}
