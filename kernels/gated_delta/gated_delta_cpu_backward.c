/* Gradient of the chunkwise form (blocks.md 8.4): chunks in reverse, each from its saved start state S, with G the
 * gradient of the state at its end. A, P and U are computed again; nothing is inverted in time.
 *
 * From U = (I + A)^-1 R follow dR = (I + A)^-T dU and dA = -strict_low(dR U^T), so the triangular matrix itself is
 * never inverted either. Every gate enters through L only: dL_i collects, with sign, all products that contain e^{L_i},
 * and dg_i = sum_{m>=i} dL_m inside the chunk. */
#include "gated_delta_chunk.h"

#include <omp.h>
#include <string.h>

#include "cpu/clones.h"
#include "cpu/heads.h"
#include "cpu/unit_lower.h"

enum { C = PN_DELTA_C };

typedef struct backward_work {
    pn_delta_tiles t;
    float *G;              /* [group, dk, dv] gradient of the state at the chunk's end */
    float *W, *R, *U, *dU; /* [64, dv]: V - e^L K S; R, then dR */
    float *UT;             /* [dv, 64] */
    float *dO;             /* [64, dv] */
    float *ST;             /* [dv, dk] */
    float *dP, *dA;        /* [64, 64]; then scale dP E and beta dA E */
    float *rows;           /* [64, dk] one term of dQ or dK; scaled queries or keys */
    float *dQ, *dK;        /* [64, dk] sums over the value heads */
} backward_work;

size_t pn_delta_backward_floats(const pn_delta_dims *d) {
    int64_t size = pn_whole_lines(d->size), G = pn_whole_lines(d->group * d->size);
    return pn_delta_tiles_floats(d) + (size_t)(G + size + 6 * C * d->dv + 2 * PN_DELTA_TILE + 4 * C * d->dk);
}
static backward_work backward_work_at(const pn_delta_dims *d, float *at) {
    backward_work w = { .t = pn_delta_tiles_at(d, &at) };
    w.G = pn_take(&at, d->group * d->size);
    w.W = pn_take(&at, C * d->dv);
    w.R = pn_take(&at, C * d->dv);
    w.U = pn_take(&at, C * d->dv);
    w.dU = pn_take(&at, C * d->dv);
    w.UT = pn_take(&at, C * d->dv);
    w.dO = pn_take(&at, C * d->dv);
    w.ST = pn_take(&at, d->size);
    w.dP = pn_take(&at, PN_DELTA_TILE);
    w.dA = pn_take(&at, PN_DELTA_TILE);
    w.rows = pn_take(&at, 2 * C * d->dk); /* and room for a transposed one */
    w.dQ = pn_take(&at, C * d->dk);
    w.dK = pn_take(&at, C * d->dk);
    return w;
}

/* Where one value head's part of the call lies, at a chunk's first token. NULL: absent or not wanted. */
typedef struct chunk_grad {
    const float *v, *dout, *S;
    float *dv, *dg, *dbeta;
} chunk_grad;

/* sum [n, cols] += factor_i x_i, and dots_i = <factor_i x_i, y_i>; all contiguous. */
static PN_CLONES void add_term(int64_t n, int64_t cols, const float *factor, const float *x, const float *y, float *sum,
                               double *dots) {
    for (int64_t i = 0; i < n; i++) {
        float f = factor ? factor[i] : 1.0f, part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t a = 0; a < cols; a++) {
            float term = f * x[i * cols + a];
            sum[i * cols + a] += term;
            part += term * y[i * cols + a];
        }
        dots[i] = (double)part;
    }
}

/* dv += beta dR; dbeta_i += <dR_i, W_i>. */
static PN_CLONES void value_gradient(int64_t n, int64_t cols, const float *beta, const float *dR, const float *W,
                                     float *dv, int64_t ldv, double *dbeta) {
    for (int64_t i = 0; i < n; i++) {
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t x = 0; x < cols; x++) part += dR[i * cols + x] * W[i * cols + x];
        dbeta[i] += (double)part;
        for (int64_t x = 0; dv && x < cols; x++) dv[i * ldv + x] += beta[i] * dR[i * cols + x];
    }
}

/* dP <- scale dP E, dA <- -beta dRU E below the diagonal and zeros above, where on entry dA holds dR U^T. With
 * Y = dP P + dA A: dL_i += sum_j Y_ij - sum_j Y_ji (the diagonal drops out), and dbeta_i += sum_j dA_ij E_ij KK_ij. */
static PN_CLONES void score_gradients(int64_t n, const float *beta, float scale, bool have_dP, const pn_delta_tiles *t,
                                      float *dP, float *dA, double *dL, double *dbeta) {
    float columns[C];
    for (int j = 0; j < C; j++) columns[j] = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t end = (i & ~(int64_t)15) + 16;
        const float *E = t->E + i * C, *P = t->P + i * C, *KK = t->KK + i * C;
        float *dPi = dP + i * C, *dAi = dA + i * C, b = beta[i], row = 0, to_beta = 0;
        if (!have_dP)
            for (int64_t j = 0; j < end; j++) dPi[j] = 0;
#pragma omp simd reduction(+ : row, to_beta)
        for (int64_t j = 0; j < end; j++) {
            float p = j <= i ? dPi[j] : 0.0f, x = j < i ? -dAi[j] * E[j] : 0.0f, kk = j < i ? KK[j] : 0.0f;
            float y = b * x * kk + (j < i ? p * P[j] : 0.0f);
            dPi[j] = scale * p * E[j];
            dAi[j] = b * x;
            to_beta += x * kk;
            row += y;
            columns[j] += y;
        }
        dbeta[i] += (double)to_beta;
        dL[i] += (double)row;
    }
    for (int64_t i = 0; i < n; i++) dL[i] -= (double)columns[i];
}

/* One value head of one chunk. have_G: w->G is not zero. Leaves the gradient of the start state in G if keep_G. */
static void chunk_backward(const pn_delta_dims *d, int64_t n, const pn_delta_gates *x, const chunk_grad *p, float *G,
                           bool have_G, bool keep_G, backward_work *w) {
    int64_t dk = d->dk, dv = d->dv;
    double dL[C] = { 0 }, dbeta[C] = { 0 }, dots[C], to_end = 0;
    float minus_in_beta[C];
    for (int64_t i = 0; i < n; i++) minus_in_beta[i] = -x->decay.in[i] * x->beta[i];

    /* U again, keeping W = V - e^L (K S) */
    if (p->S) {
        pn_mm ks = pn_mm_of(n, dv, dk, w->t.K, dk, p->S, dv, w->W, dv);
        pn_mm_keep(&ks, 1, p->v, d->ldv);
        ks.scale = -1, ks.scale_row = x->decay.in;
        ks.ahead = &w->t.ahead;
        pn_tile_mm(&ks);
    } else {
        pn_copy_rows(n, dv, p->v, d->ldv, w->W, dv);
    }
    pn_scale_rows(n, dv, 1, x->beta, w->W, dv, w->R);
    pn_unit_lower_solve(n, w->t.A, C, w->t.X, w->R, dv, w->U, dv, dv);
    pn_tile_transpose(w->UT, C, w->U, dv, n, dv);

    /* dU = e^{L_C - L} (K G) + P^T dO;  dR = (I + A)^-T dU, in the place of R */
    const float *dO = p->dout ? w->dO : NULL;
    if (have_G) {
        pn_mm kg = pn_mm_of(n, dv, dk, w->t.K, dk, G, dv, w->dU, dv);
        kg.scale_row = x->decay.out;
        kg.ahead = &w->t.ahead;
        pn_tile_mm(&kg);
    }
    if (dO) {
        pn_copy_rows(n, dv, p->dout, d->ldv, w->dO, dv);
        pn_mm po = pn_mm_transposed_of(n, dv, n, w->t.P, C, dO, dv, w->dU, dv);
        po.form = PN_MM_A_UPPER;
        if (have_G) pn_mm_keep(&po, 1, w->dU, dv);
        po.ahead = &w->t.ahead;
        pn_tile_mm(&po);
    }
    pn_unit_lower_solve_transposed(n, w->t.A, C, w->t.X, w->dU, dv, w->R, dv, dv);
    const float *dR = w->R;
    value_gradient(n, dv, x->beta, dR, w->W, p->dv, d->ldv, dbeta);

    /* inside the chunk: dP = dO U^T, dA = -dR U^T */
    pn_mm ut = pn_mm_of(n, n, dv, dR, dv, w->UT, C, w->dA, C);
    ut.form = PN_MM_C_LOWER;
    pn_tile_mm(&ut);
    ut.a = dO, ut.c = w->dP;
    if (dO) pn_tile_mm(&ut);
    score_gradients(n, x->beta, d->scale, dO, &w->t, w->dP, w->dA, dL, dbeta);
    if (dO) { /* dQ += (dP E) K;  dK += (dP E)^T Q */
        pn_mm_run(pn_mm_of(n, dk, n, w->dP, C, w->t.K, dk, w->dQ, dk), PN_MM_A_LOWER, true, NULL);
        pn_mm_run(pn_mm_transposed_of(n, dk, n, w->dP, C, w->t.Q, dk, w->dK, dk), PN_MM_A_UPPER, true, NULL);
    }
    /* dK += M K + M^T K */
    pn_mm_run(pn_mm_of(n, dk, n, w->dA, C, w->t.K, dk, w->dK, dk), PN_MM_A_LOWER, true, NULL);
    pn_mm_run(pn_mm_transposed_of(n, dk, n, w->dA, C, w->t.K, dk, w->dK, dk), PN_MM_A_UPPER, true, NULL);

    /* through the start state: qin = scale e^L (dO S^T), kin = -beta e^L (dR S^T) */
    if (p->S) {
        pn_tile_transpose(w->ST, dk, p->S, dv, dk, dv);
        pn_mm st = pn_mm_of(n, dk, dv, dR, dv, w->ST, dk, w->rows, dk);
        st.scale_row = minus_in_beta;
        st.ahead = &w->t.ahead;
        pn_tile_mm(&st);
        add_term(n, dk, NULL, w->rows, w->t.K, w->dK, dots);
        for (int64_t i = 0; i < n; i++) dL[i] += dots[i];
        if (dO) {
            st.a = dO, st.scale = d->scale, st.scale_row = x->decay.in;
            pn_tile_mm(&st);
            add_term(n, dk, NULL, w->rows, w->t.Q, w->dQ, dots);
            for (int64_t i = 0; i < n; i++) dL[i] += dots[i];
        }
        if (have_G) to_end += (double)x->decay.through * pn_long_dot(d->size, p->S, G);
    }
    /* through the end state: kS = e^{L_C - L} (U G^T), computed as G U^T */
    if (have_G) {
        float *turned = w->rows + C * dk;
        pn_mm gu = pn_mm_of(dk, n, dv, G, dv, w->UT, C, turned, C);
        gu.ahead = &w->t.ahead;
        pn_tile_mm(&gu);
        pn_tile_transpose(w->rows, dk, turned, C, dk, n);
        add_term(n, dk, x->decay.out, w->rows, w->t.K, w->dK, dots);
        for (int64_t i = 0; i < n; i++) {
            dL[i] -= dots[i];
            to_end += dots[i];
        }
    }
    dL[n - 1] += to_end;
    for (int64_t i = 0; p->dbeta && i < n; i++) p->dbeta[i * d->v_heads] += (float)dbeta[i];
    double sum = 0;
    for (int64_t i = n - 1; p->dg && i >= 0; i--) {
        sum += dL[i];
        p->dg[i * d->v_heads] += (float)sum;
    }
    if (!keep_G) return;

    /* G <- e^{L_C} G + scale (e^L Q)^T dO - (beta e^L K)^T dR */
    pn_scale_rows(n, dk, 1, minus_in_beta, w->t.K, dk, w->rows);
    pn_mm g = pn_mm_transposed_of(dk, dv, n, w->rows, dk, dR, dv, G, dv);
    if (have_G) pn_mm_keep(&g, x->decay.through, G, dv);
    pn_tile_mm(&g);
    if (!dO) return;
    pn_scale_rows(n, dk, d->scale, x->decay.in, w->t.Q, dk, w->rows);
    pn_mm_run(pn_mm_transposed_of(dk, dv, n, w->rows, dk, dO, dv, G, dv), PN_MM_DENSE, true, NULL);
}

static float *grad_at(const pn_op_call *c, int i, int64_t offset) {
    return i < c->n_in && c->din[i] ? pn_f32(c->din[i]) + offset : NULL;
}

/* All chunks of one document for one query/key head. */
static void document_backward(const pn_op_call *c, const pn_delta_dims *d, int64_t doc, int64_t head,
                              backward_work *w) {
    const pn_gated_delta_attr *a = c->attr;
    int64_t begin = a->docs.offset[doc], end = a->docs.offset[doc + 1], states = d->group * d->size;
    int64_t n_chunks = (end - begin + C - 1) / C, chunk = pn_docs_chunks(&a->docs, doc) + n_chunks - 1;
    int64_t state_at = (doc * d->v_heads + head * d->group) * d->size;
    const float *dout = pn_f32_or_null(c->dout[0]), *dS_T = pn_f32_or_null(c->dout[1]);
    const float *g = pn_f32_or_null(c->in[3]), *beta = pn_f32(c->in[4]);
    bool have_S0 = c->n_in > 5 && c->in[5], have_G = dS_T;
    float *dS0 = grad_at(c, 5, state_at);
    if (dS_T) memcpy(w->G, dS_T + state_at, sizeof(float) * (size_t)states);
    const float *q = pn_f32(c->in[0]) + head * d->dk, *k = pn_f32(c->in[1]) + head * d->dk, *v = pn_f32(c->in[2]);
    const float *S = pn_f32(c->out[2]);
    for (int64_t t = begin + (n_chunks - 1) * C; t >= begin; t -= C, chunk--) {
        int64_t n = end - t < C ? end - t : C, qk_at = t * d->ldk + head * d->dk;
        float *dq = grad_at(c, 0, qk_at), *dk = grad_at(c, 1, qk_at);
        pn_ahead *before = &w->t.ahead;
        pn_ahead_reset(before);
        if (t > begin) {
            pn_ahead_add_chunk_before(before, d->dk, q + t * d->ldk, d->ldk);
            pn_ahead_add_chunk_before(before, d->dk, k + t * d->ldk, d->ldk);
            pn_ahead_add_chunk_before(before, d->dk, dq, d->ldk);
            pn_ahead_add_chunk_before(before, d->dk, dk, d->ldk);
        }
        pn_delta_scores(d, n, q + t * d->ldk, k + t * d->ldk, &w->t);
        memset(w->dQ, 0, sizeof(float) * (size_t)(n * d->dk));
        memset(w->dK, 0, sizeof(float) * (size_t)(n * d->dk));
        for (int64_t r = 0; r < d->group; r++) {
            int64_t j = head * d->group + r, v_at = t * d->ldv + j * d->dv, gate_at = t * d->v_heads + j;
            int64_t kept_at = (chunk * d->v_heads + j) * d->size;
            chunk_grad p = { .v = v + v_at,
                             .dout = dout ? dout + v_at : NULL,
                             .S = t > begin || have_S0 ? S + kept_at : NULL,
                             .dv = grad_at(c, 2, v_at),
                             .dg = grad_at(c, 3, gate_at),
                             .dbeta = grad_at(c, 4, gate_at) };
            if (r > 0) pn_ahead_reset(before);
            if (t > begin) {
                pn_ahead_add_chunk_before(before, d->dv, p.v, d->ldv);
                pn_ahead_add_chunk_before(before, d->dv, p.dout, d->ldv);
                pn_ahead_add(before, 1, d->size, S + kept_at - d->v_heads * d->size, d->size);
                pn_ahead_add_chunk_before(before, d->dv, p.dv, d->ldv);
            }
            pn_delta_gates gates;
            pn_delta_gates_of(d, n, g ? g + gate_at : NULL, beta + gate_at, &gates);
            pn_delta_system(d, n, &gates, &w->t);
            chunk_backward(d, n, &gates, &p, w->G + r * d->size, have_G, t > begin || dS0, w);
        }
        have_G = true;
        pn_add_rows(n, d->dk, 1, w->dQ, d->dk, dq, d->ldk);
        pn_add_rows(n, d->dk, 1, w->dK, d->dk, dk, d->ldk);
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
