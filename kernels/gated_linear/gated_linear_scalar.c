/* A chunk with one decay for all channels of a head: scores are those without decay times one tile of decays. */
#include "gated_linear_chunk.h"

#include "cpu/clones.h"

enum { C = PN_GLIN_C };

static PN_CLONES void decayed_scores(int64_t n, const float *E, float *A) {
    for (int64_t i = 0; i < n; i++) {
        int64_t end = (i & ~(int64_t)15) + 16;
#pragma omp simd
        for (int64_t j = 0; j < end; j++) A[i * C + j] = j <= i ? A[i * C + j] * E[i * C + j] : 0.0f;
    }
}

void pn_glin_scalar_chunk(const pn_glin_dims *d, int64_t n, const float *g, pn_glin_tiles *t) {
    pn_chunk_decay_of(n, g, d->ldg, &t->decay);
    pn_chunk_decay_tile(n, &t->decay, t->E);
    float *KT = t->work;
    pn_tile_transpose(KT, C, t->K, d->row, n, d->dk);
    pn_mm scores = pn_mm_of(n, n, d->dk, t->Q, d->row, KT, C, t->A, C);
    scores.form = PN_MM_C_LOWER;
    scores.ahead = &t->ahead;
    pn_tile_mm(&scores);
    decayed_scores(n, t->E, t->A);
    pn_scale_rows(n, d->row, 1, t->decay.in, t->Q, d->row, t->Qin);
    pn_scale_rows(n, d->row, 1, t->decay.out, t->K, d->row, t->Kout);
    for (int64_t x = 0; x < d->row; x++) t->through[x] = t->decay.through;
}

/* dA <- dA E, and with Y = dA A below the diagonal: dL_i = sum_j Y_ij - sum_j Y_ji. */
static PN_CLONES void score_gradients(int64_t n, const float *A, const float *E, float *dA, double *dL) {
    float columns[C];
    for (int j = 0; j < C; j++) columns[j] = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t end = (i & ~(int64_t)15) + 16;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < end; j++) {
            float y = j < i ? dA[i * C + j] * A[i * C + j] : 0.0f;
            sum += y;
            columns[j] += y;
            dA[i * C + j] *= E[i * C + j];
        }
        dL[i] = (double)sum;
    }
    for (int64_t i = 0; i < n; i++) dL[i] -= (double)columns[i];
}

/* dg_i = sum over m >= i of what enters the chunk or moves inside it, and over j < i of what token j leaves behind. */
static void gate_gradient(const pn_glin_dims *d, int64_t n, const pn_glin_grad *x, const pn_glin_tiles *t, double *dL) {
    double sum = 0, left = 0;
    for (int64_t i = n - 1; i >= 0; i--) {
        if (x->R) dL[i] += pn_long_dot(d->dk, t->Qin + i * d->row, x->R + i * d->row);
        sum += dL[i];
        dL[i] = sum;
    }
    for (int64_t i = 0; x->SG && i < d->dk; i++) left += (double)t->decay.through * (double)x->SG[i];
    for (int64_t i = 0; i < n; i++) {
        x->dg[i * d->ldg] += (float)(dL[i] + left);
        if (x->X) left += pn_long_dot(d->dk, t->Kout + i * d->row, x->X + i * d->row);
    }
}

void pn_glin_scalar_gradient(const pn_glin_dims *d, int64_t n, const pn_glin_grad *x, pn_glin_tiles *t) {
    double dL[C];
    score_gradients(n, t->A, t->E, x->dA, dL);
    /* dQ = (dA E) K + e^L R;  dK = (dA E)^T Q + e^{L_C - L} X */
    pn_mm q = pn_mm_of(n, d->dk, n, x->dA, C, t->K, d->row, x->dQ, d->row);
    q.form = PN_MM_A_LOWER;
    q.ahead = &t->ahead;
    if (x->R) pn_mm_keep(&q, 1, x->R, d->row), q.keep_row = t->decay.in;
    pn_tile_mm(&q);
    pn_mm k = pn_mm_transposed_of(n, d->dk, n, x->dA, C, t->Q, d->row, x->dK, d->row);
    k.form = PN_MM_A_UPPER;
    k.ahead = &t->ahead;
    if (x->X) pn_mm_keep(&k, 1, x->X, d->row), k.keep_row = t->decay.out;
    pn_tile_mm(&k);
    if (x->dg) gate_gradient(d, n, x, t, dL);
}
