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
#include "cpu/tile_mm.h"
#include "cpu/unit_lower.h"

enum { C = PN_DELTA_C };

typedef struct backward_work {
    pn_delta_tiles t;
    float *G;              /* [group, dk, dv] gradient of the state at the chunk's end */
    float *W, *R, *U, *dU; /* [64, dv]: V - e^L K S; R, then dR */
    float *UT;             /* [dv, 64] */
    float *ST;             /* [dv, dk] */
    float *dP, *dA;        /* [64, 64]; then scale dP E and beta dA E */
    float *rows;           /* [64, dk] one term of dQ or dK; scaled queries or keys */
    float *dQ, *dK;        /* [64, dk] sums over the value heads */
} backward_work;

size_t pn_delta_backward_floats(const pn_delta_dims *d) {
    int64_t size = (d->size + 15) & ~(int64_t)15, G = (d->group * d->size + 15) & ~(int64_t)15;
    return pn_delta_tiles_floats(d) + (size_t)(G + size + 5 * C * d->dv + 2 * PN_DELTA_TILE + 4 * C * d->dk);
}
static backward_work backward_work_at(const pn_delta_dims *d, float *at) {
    backward_work w = { .t = pn_delta_tiles_at(d, &at) };
    w.G = pn_delta_take(&at, d->group * d->size);
    w.W = pn_delta_take(&at, C * d->dv);
    w.R = pn_delta_take(&at, C * d->dv);
    w.U = pn_delta_take(&at, C * d->dv);
    w.dU = pn_delta_take(&at, C * d->dv);
    w.UT = pn_delta_take(&at, C * d->dv);
    w.ST = pn_delta_take(&at, d->size);
    w.dP = pn_delta_take(&at, PN_DELTA_TILE);
    w.dA = pn_delta_take(&at, PN_DELTA_TILE);
    w.rows = pn_delta_take(&at, 2 * C * d->dk); /* and room for a transposed one */
    w.dQ = pn_delta_take(&at, C * d->dk);
    w.dK = pn_delta_take(&at, C * d->dk);
    return w;
}

/* Where one value head's part of the call lies, at a chunk's first token. NULL: absent or not wanted. */
typedef struct chunk_grad {
    const float *q, *k, *v, *dout, *S;
    float *dv, *dg, *dbeta;
} chunk_grad;

static PN_CLONES double dot(int64_t n, const float *x, const float *y) {
    double sum = 0;
    while (n > 0) { /* float inside runs of 512, double across them */
        int64_t run = n < 512 ? n : 512;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t i = 0; i < run; i++) part += x[i] * y[i];
        sum += (double)part;
        x += run;
        y += run;
        n -= run;
    }
    return sum;
}

/* sum [n, cols] += factor_i x_i, and dots_i = <factor_i x_i, y_i>; x, sum contiguous. */
static PN_CLONES void add_term(int64_t n, int64_t cols, const float *factor, const float *x, const float *y,
                               int64_t ldy, float *sum, double *dots) {
    for (int64_t i = 0; i < n; i++) {
        float f = factor ? factor[i] : 1.0f, part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t a = 0; a < cols; a++) {
            float term = f * x[i * cols + a];
            sum[i * cols + a] += term;
            part += term * y[i * ldy + a];
        }
        dots[i] = (double)part;
    }
}

/* W = V - KS and R = beta W, where w holds K S scaled already or is NULL for a zero state. */
static PN_CLONES void scale_into(int64_t n, int64_t cols, const float *beta, const float *W, float *R) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t x = 0; x < cols; x++) R[i * cols + x] = beta[i] * W[i * cols + x];
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
    for (int64_t i = 0; i < n; i++) minus_in_beta[i] = -x->in[i] * x->beta[i];

    /* U again, keeping W = V - e^L (K S) */
    if (p->S)
        pn_tile_mm(&(pn_mm){ .m = n,
                             .n = dv,
                             .l = dk,
                             .a = p->k,
                             .a_row = d->ldk,
                             .a_col = 1,
                             .b = p->S,
                             .ldb = dv,
                             .c = w->W,
                             .ldc = dv,
                             .c0 = p->v,
                             .ldc0 = d->ldv,
                             .keep = 1,
                             .scale = -1,
                             .scale_row = x->in });
    else
        pn_delta_scale_rows(n, dv, 1, NULL, p->v, d->ldv, w->W);
    scale_into(n, dv, x->beta, w->W, w->R);
    pn_unit_lower_solve(n, w->t.A, C, w->t.X, w->R, dv, w->U, dv, dv);
    pn_tile_transpose(w->UT, C, w->U, dv, n, dv);

    /* dU = e^{L_C - L} (K G) + P^T dO;  dR = (I + A)^-T dU, in the place of R */
    if (have_G)
        pn_tile_mm(&(pn_mm){ .m = n,
                             .n = dv,
                             .l = dk,
                             .a = p->k,
                             .a_row = d->ldk,
                             .a_col = 1,
                             .b = G,
                             .ldb = dv,
                             .c = w->dU,
                             .ldc = dv,
                             .scale = 1,
                             .scale_row = x->out });
    if (p->dout)
        pn_tile_mm(&(pn_mm){ .m = n,
                             .n = dv,
                             .l = n,
                             .a = w->t.P,
                             .a_row = 1,
                             .a_col = C,
                             .b = p->dout,
                             .ldb = d->ldv,
                             .c = w->dU,
                             .ldc = dv,
                             .c0 = have_G ? w->dU : NULL,
                             .ldc0 = dv,
                             .keep = 1,
                             .scale = 1,
                             .form = PN_MM_A_UPPER });
    pn_unit_lower_solve_transposed(n, w->t.A, C, w->t.X, w->dU, dv, w->R, dv, dv);
    const float *dR = w->R;
    value_gradient(n, dv, x->beta, dR, w->W, p->dv, d->ldv, dbeta);

    /* inside the chunk: dP = dO U^T, dA = -dR U^T, and through them dQ, dK */
    pn_mm ut = {
        .m = n, .n = n, .l = dv, .a_col = 1, .b = w->UT, .ldb = C, .ldc = C, .scale = 1, .form = PN_MM_C_LOWER
    };
    if (p->dout) {
        ut.a = p->dout, ut.a_row = d->ldv, ut.c = w->dP;
        pn_tile_mm(&ut);
    }
    ut.a = dR, ut.a_row = dv, ut.c = w->dA;
    pn_tile_mm(&ut);
    score_gradients(n, x->beta, d->scale, p->dout, &w->t, w->dP, w->dA, dL, dbeta);
    pn_mm to = { .m = n, .n = dk, .l = n, .ldb = d->ldk, .ldc = dk, .ldc0 = dk, .keep = 1, .scale = 1 };
    to.a = w->dP, to.a_row = C, to.a_col = 1, to.form = PN_MM_A_LOWER, to.b = p->k, to.c = w->dQ, to.c0 = w->dQ;
    if (p->dout) pn_tile_mm(&to); /* dQ += (dP E) K */
    to.a = w->dA, to.c = w->dK, to.c0 = w->dK;
    pn_tile_mm(&to); /* dK += M K + M^T K + (dP E)^T Q */
    to.a_row = 1, to.a_col = C, to.form = PN_MM_A_UPPER;
    pn_tile_mm(&to);
    to.a = w->dP, to.b = p->q;
    if (p->dout) pn_tile_mm(&to);

    /* through the start state: qin = scale e^L (dO S^T), kin = -beta e^L (dR S^T) */
    if (p->S) {
        pn_tile_transpose(w->ST, dk, p->S, dv, dk, dv);
        pn_mm st = { .m = n, .n = dk, .l = dv, .a_col = 1, .b = w->ST, .ldb = dk, .c = w->rows, .ldc = dk };
        if (p->dout) {
            st.a = p->dout, st.a_row = d->ldv, st.scale = d->scale, st.scale_row = x->in;
            pn_tile_mm(&st);
            add_term(n, dk, NULL, w->rows, p->q, d->ldk, w->dQ, dots);
            for (int64_t i = 0; i < n; i++) dL[i] += dots[i];
        }
        st.a = dR, st.a_row = dv, st.scale = 1, st.scale_row = minus_in_beta;
        pn_tile_mm(&st);
        add_term(n, dk, NULL, w->rows, p->k, d->ldk, w->dK, dots);
        for (int64_t i = 0; i < n; i++) dL[i] += dots[i];
        if (have_G) to_end += (double)x->through * dot(d->size, p->S, G);
    }
    /* through the end state: kS = e^{L_C - L} (U G^T), computed as G U^T */
    if (have_G) {
        float *turned = w->rows + C * dk;
        pn_tile_mm(&(pn_mm){ .m = dk,
                             .n = n,
                             .l = dv,
                             .a = G,
                             .a_row = dv,
                             .a_col = 1,
                             .b = w->UT,
                             .ldb = C,
                             .c = turned,
                             .ldc = C,
                             .scale = 1 });
        pn_tile_transpose(w->rows, dk, turned, C, dk, n);
        add_term(n, dk, x->out, w->rows, p->k, d->ldk, w->dK, dots);
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
    pn_mm g = { .m = dk,
                .n = dv,
                .l = n,
                .a = w->rows,
                .a_row = 1,
                .a_col = dk,
                .c = G,
                .ldc = dv,
                .ldc0 = dv,
                .c0 = have_G ? G : NULL,
                .keep = x->through,
                .scale = 1 };
    if (p->dout) {
        pn_delta_scale_rows(n, dk, d->scale, x->in, p->q, d->ldk, w->rows);
        g.b = p->dout, g.ldb = d->ldv;
        pn_tile_mm(&g);
        g.c0 = G, g.keep = 1;
    }
    pn_delta_scale_rows(n, dk, 1, minus_in_beta, p->k, d->ldk, w->rows);
    g.b = dR, g.ldb = dv;
    pn_tile_mm(&g);
}

static void add_rows(int64_t n, int64_t cols, const float *x, float *dst, int64_t ld) {
    for (int64_t i = 0; dst && i < n; i++)
        for (int64_t a = 0; a < cols; a++) dst[i * ld + a] += x[i * cols + a];
}

static float *grad_at(const pn_op_call *c, int i, int64_t offset) {
    return i < c->n_in && c->din[i] ? pn_f32(c->din[i]) + offset : NULL;
}

/* All chunks of one document for one query/key head. */
static void document_backward(const pn_op_call *c, const pn_delta_dims *d, int64_t doc, int64_t head,
                              backward_work *w) {
    const pn_gated_delta_attr *a = c->attr;
    int64_t begin = a->docs.offset[doc], end = a->docs.offset[doc + 1], states = d->group * d->size;
    int64_t n_chunks = (end - begin + C - 1) / C, chunk = pn_gated_delta_chunks(&a->docs, doc) + n_chunks - 1;
    int64_t state_at = (doc * d->v_heads + head * d->group) * d->size;
    const float *dout = pn_f32_or_null(c->dout[0]), *dS_T = pn_f32_or_null(c->dout[1]);
    const float *g = pn_f32_or_null(c->in[3]), *beta = pn_f32(c->in[4]);
    bool have_S0 = c->n_in > 5 && c->in[5], have_G = dS_T;
    float *dS0 = grad_at(c, 5, state_at);
    if (dS_T) memcpy(w->G, dS_T + state_at, sizeof(float) * (size_t)states);
    for (int64_t t = begin + (n_chunks - 1) * C; t >= begin; t -= C, chunk--) {
        int64_t n = end - t < C ? end - t : C, qk_at = t * d->ldk + head * d->dk;
        chunk_grad p = { .q = pn_f32(c->in[0]) + qk_at, .k = pn_f32(c->in[1]) + qk_at };
        pn_delta_scores(d, n, p.q, p.k, &w->t);
        memset(w->dQ, 0, sizeof(float) * (size_t)(n * d->dk));
        memset(w->dK, 0, sizeof(float) * (size_t)(n * d->dk));
        for (int64_t r = 0; r < d->group; r++) {
            int64_t j = head * d->group + r, v_at = t * d->ldv + j * d->dv, gate_at = t * d->v_heads + j;
            pn_delta_gates gates;
            pn_delta_gates_of(d, n, g ? g + gate_at : NULL, beta + gate_at, &gates);
            pn_delta_system(d, n, &gates, &w->t);
            p.v = pn_f32(c->in[2]) + v_at;
            p.dout = dout ? dout + v_at : NULL;
            p.S = t > begin || have_S0 ? pn_f32(c->out[2]) + (chunk * d->v_heads + j) * d->size : NULL;
            p.dv = grad_at(c, 2, v_at);
            p.dg = grad_at(c, 3, gate_at);
            p.dbeta = grad_at(c, 4, gate_at);
            chunk_backward(d, n, &gates, &p, w->G + r * d->size, have_G, t > begin || dS0, w);
        }
        have_G = true;
        add_rows(n, d->dk, w->dQ, grad_at(c, 0, qk_at), d->ldk);
        add_rows(n, d->dk, w->dK, grad_at(c, 1, qk_at), d->ldk);
    }
    for (int64_t i = 0; dS0 && have_G && i < states; i++) dS0[i] += w->G[i];
}

pn_status pn_delta_backward(const pn_op_call *c) {
    const pn_gated_delta_attr *a = c->attr;
    if (!pn_gated_delta_any(c->din) || (!c->dout[0] && !c->dout[1])) return PN_OK;
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
