/* A chunk with a decay for each channel, however strong (blocks.md 1.9): sub-blocks of 16 tokens.
 *
 * A_ij = sum_n q_i[n] k_j[n] e^{L_i[n] - L_j[n]} is a matrix product only if each factor takes its share of the decay,
 * and the only shares that cannot overflow are those of a place between j and i. So for rows in one sub-block and
 * columns in an earlier one the place is the start of the rows' sub-block: queries carry the decay since then, keys the
 * decay up to there. The keys' part moves from sub-block to sub-block by multiplying with the decay of the one passed.
 * Inside a sub-block every pair has its own place: products over channels with a running decay, one multiplication by
 * e^g per step, forward in time for what a query collects and backward for what a key does.
 *
 * Decays over up to 16 tokens are exponentials of sums of g from the sub-block's start and, separately, to its end: a
 * difference of two sums would lose the small decays next to strong ones. Across sub-blocks the sums of sub-blocks are
 * added and exponentiated again. All exponents are <= 0. */
#include "gated_linear_chunk.h"

#include <string.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/vec.h"

enum { C = PN_GLIN_C, B = PN_GLIN_B };

static int64_t blocks_of(int64_t n) {
    return (n + B - 1) / B;
}

/* ---- decays ---- */

/* One sub-block of log decays g, which become decays in place: pre, suf; total = the sum of g. All [., row]. */
static PN_CLONES void block_decays(int64_t row, float *g, float *pre, float *suf, float *total) {
    for (int64_t x = 0; x < row; x++) total[x] = 0;
    for (int64_t i = B - 1; i >= 0; i--)
#pragma omp simd
        for (int64_t x = 0; x < row; x++) {
            suf[i * row + x] = pn_exp_nonposf(total[x]);
            total[x] += g[i * row + x];
        }
    for (int64_t x = 0; x < row; x++) total[x] = 0;
    for (int64_t i = 0; i < B; i++)
#pragma omp simd
        for (int64_t x = 0; x < row; x++) {
            total[x] += g[i * row + x];
            pre[i * row + x] = pn_exp_nonposf(total[x]);
            g[i * row + x] = pn_exp_nonposf(g[i * row + x]);
        }
}

/* Decays over whole sub-blocks; on entry block holds the sums. */
static PN_CLONES void far_decays(int64_t row, int64_t blocks, float *block, float *start, float *end, float *through) {
    for (int64_t x = 0; x < row; x++) through[x] = 0;
    for (int64_t b = blocks - 1; b >= 0; b--)
#pragma omp simd
        for (int64_t x = 0; x < row; x++) {
            end[b * row + x] = pn_exp_nonposf(through[x]);
            through[x] += block[b * row + x];
        }
    for (int64_t x = 0; x < row; x++) through[x] = 0;
    for (int64_t b = 0; b < blocks; b++)
#pragma omp simd
        for (int64_t x = 0; x < row; x++) {
            start[b * row + x] = pn_exp_nonposf(through[x]);
            through[x] += block[b * row + x];
            block[b * row + x] = pn_exp_nonposf(block[b * row + x]);
        }
#pragma omp simd
    for (int64_t x = 0; x < row; x++) through[x] = pn_exp_nonposf(through[x]);
}

/* y_i = f_i * x_i for rows 0 .. n - 1, where f has n rows, or one (ld_f = 0). */
static PN_CLONES void multiply_rows(int64_t n, int64_t row, const float *f, int64_t ld_f, const float *x, float *y) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < row; c++) y[i * row + c] = f[i * ld_f + c] * x[i * row + c];
}

/* The first `cols` columns of row c of KT [rows, 64] times factor c. */
static PN_CLONES void move_keys(int64_t rows, int64_t cols, const float *factor, float *KT) {
    for (int64_t c = 0; c < rows; c++)
        for (int64_t j = 0; j < cols; j++) KT[c * C + j] *= factor[c];
}

/* ---- scores ---- */

/* out[r] = <u, k_r> for r < count, then 0, where u decays by a_r after each, from r = count - 1 down to 0. */
PN_INLINE void scores4(const int count, int64_t row, float *u, const float *k, const float *a, float *out) {
    pn_vec sum[4] = { { 0 }, { 0 }, { 0 }, { 0 } };
    for (int64_t x = 0; x < row; x += PN_VEC) {
        pn_vec w = *(const pn_vec *)(u + x);
#pragma GCC unroll 4
        for (int r = count - 1; r >= 0; r--) {
            sum[r] += w * *(const pn_vec *)(k + r * row + x);
            w *= *(const pn_vec *)(a + r * row + x);
        }
        *(pn_vec *)(u + x) = w;
    }
    pn_vec_sum4(sum, out);
}

/* The sub-block on the diagonal whose rows start at Q, K, a; A: its first element. u: [row] work. */
static PN_CLONES void diagonal_scores(int64_t row, const float *Q, const float *K, const float *a, float *u, float *A) {
    for (int64_t i = 0; i < B; i++) {
        memcpy(u, Q + i * row, sizeof(float) * (size_t)row);
        int64_t j = i & ~(int64_t)3;
        for (int64_t above = j + 4; above < B; above++) A[i * C + above] = 0;
        const float *k = K + j * row, *decay = a + j * row;
        switch (i & 3) {
        case 0: scores4(1, row, u, k, decay, A + i * C + j); break;
        case 1: scores4(2, row, u, k, decay, A + i * C + j); break;
        case 2: scores4(3, row, u, k, decay, A + i * C + j); break;
        default: scores4(4, row, u, k, decay, A + i * C + j); break;
        }
        while ((j -= 4) >= 0) scores4(4, row, u, K + j * row, a + j * row, A + i * C + j);
    }
}

void pn_glin_vector_chunk(const pn_glin_dims *d, int64_t n, const float *g, pn_glin_tiles *t) {
    int64_t row = d->row, blocks = blocks_of(n);
    memset(t->a, 0, sizeof(float) * (size_t)(blocks * B * row));
    pn_copy_rows(n, d->dk, g, d->ldg, t->a, row);
    for (int64_t b = 0; b < blocks; b++) {
        int64_t at = b * B * row;
        block_decays(row, t->a + at, t->pre + at, t->suf + at, t->block + b * row);
    }
    far_decays(row, blocks, t->block, t->start, t->end, t->through);
    multiply_rows(blocks * B, row, t->pre, row, t->Q, t->Qin); /* for now within sub-blocks */
    multiply_rows(blocks * B, row, t->suf, row, t->K, t->Kout);
    float *KT = t->work;
    pn_tile_transpose(KT, C, t->Kout, row, blocks * B, d->dk);
    for (int64_t b = 0; b < blocks; b++) {
        int64_t first = b * B, rows = n - first < B ? n - first : B;
        if (b > 1) move_keys(d->dk, first - B, t->block + (b - 1) * row, KT);
        pn_mm scores = pn_mm_of(rows, first, d->dk, t->Qin + first * row, row, KT, C, t->A + first * C, C);
        scores.ahead = &t->ahead;
        pn_tile_mm(&scores);
    }
    for (int64_t b = 0; b < blocks; b++) {
        int64_t at = b * B * row;
        diagonal_scores(row, t->Q + at, t->K + at, t->a + at, KT, t->A + b * B * (C + 1));
        multiply_rows(B, row, t->start + b * row, 0, t->Qin + at, t->Qin + at);
        multiply_rows(B, row, t->end + b * row, 0, t->Kout + at, t->Kout + at);
    }
}

/* ---- gradients ---- */

/* One sub-block on the diagonal, all pointers at its first row or element. On entry dQ and dK hold what comes from
 * elsewhere; dL = Q dQ - K dK of all but the pairs (i, i), which move nothing through a decay. */
static PN_CLONES void diagonal_gradients(int64_t row, const float *dA, const float *Q, const float *K, const float *a,
                                         float *dQ, float *dK, float *dL) {
#define AT(tile, i) (*(pn_vec *)((tile) + (i)*row + x))
#define IN(tile, i) (*(const pn_vec *)((tile) + (i)*row + x))
    for (int64_t x = 0; x < row; x += PN_VEC) {
        for (int i0 = 0; i0 < B; i0 += 4) {
            pn_vec sum[4] = { { 0 }, { 0 }, { 0 }, { 0 } };
            for (int j = 0; j < i0; j++) {
                pn_vec k = IN(K, j), decay = IN(a, j);
#pragma GCC unroll 4
                for (int r = 0; r < 4; r++) sum[r] = sum[r] * decay + dA[(i0 + r) * C + j] * k;
            }
#pragma GCC unroll 4
            for (int s = 0; s < 4; s++) {
                int j = i0 + s;
                pn_vec k = IN(K, j), decay = IN(a, j), moved = AT(dQ, j) + sum[s] * decay;
                AT(dL, j) = IN(Q, j) * moved;
                AT(dQ, j) = moved + dA[j * C + j] * k;
#pragma GCC unroll 4
                for (int r = s + 1; r < 4; r++) sum[r] = sum[r] * decay + dA[(i0 + r) * C + j] * k;
            }
        }
        for (int j0 = B - 4; j0 >= 0; j0 -= 4) {
            pn_vec sum[4] = { { 0 }, { 0 }, { 0 }, { 0 } };
            for (int i = B - 1; i >= j0 + 4; i--) {
                pn_vec q = IN(Q, i), decay = IN(a, i);
#pragma GCC unroll 4
                for (int r = 0; r < 4; r++) sum[r] = (sum[r] + dA[i * C + j0 + r] * q) * decay;
            }
#pragma GCC unroll 4
            for (int s = 3; s >= 0; s--) {
                int i = j0 + s;
                pn_vec q = IN(Q, i), decay = IN(a, i), moved = AT(dK, i) + sum[s];
                AT(dL, i) -= IN(K, i) * moved;
                AT(dK, i) = moved + dA[i * C + i] * q;
#pragma GCC unroll 4
                for (int r = 0; r < s; r++) sum[r] = (sum[r] + dA[i * C + j0 + r] * q) * decay;
            }
        }
    }
#undef AT
#undef IN
}

/* dQ_i = pre_i (dQ_i + start R_i); R NULL: zero. */
static PN_CLONES void finish_queries(int64_t n, int64_t row, const float *pre, const float *start, const float *R,
                                     float *dQ) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t x = 0; x < row; x++) {
            float from_state = R ? start[x] * R[i * row + x] : 0.0f;
            dQ[i * row + x] = pre[i * row + x] * (dQ[i * row + x] + from_state);
        }
}

/* What scores of earlier sub-blocks and the start state give the queries. */
static void far_queries(const pn_glin_dims *d, int64_t n, const pn_glin_grad *x, pn_glin_tiles *t) {
    int64_t row = d->row;
    float *keys = t->work; /* of the sub-blocks before b, decayed to its start */
    for (int64_t b = 0; b < blocks_of(n); b++) {
        int64_t first = b * B, rows = n - first < B ? n - first : B, before = first - B;
        float *dQ = x->dQ + first * row;
        memset(dQ, 0, sizeof(float) * (size_t)(B * row));
        if (b > 0) {
            multiply_rows(before, row, t->block + (b - 1) * row, 0, keys, keys);
            multiply_rows(B, row, t->suf + before * row, row, t->K + before * row, keys + before * row);
            pn_mm q = pn_mm_of(rows, row, first, x->dA + first * C, C, keys, row, dQ, row);
            q.ahead = &t->ahead;
            pn_tile_mm(&q);
        }
        finish_queries(rows, row, t->pre + first * row, t->start + b * row, x->R ? x->R + first * row : NULL, dQ);
    }
}

/* What scores of later sub-blocks give the keys. */
static void far_keys(const pn_glin_dims *d, int64_t n, const pn_glin_grad *x, pn_glin_tiles *t) {
    int64_t row = d->row, blocks = blocks_of(n);
    float *queries = t->work; /* of the sub-blocks after b, decayed from its end */
    for (int64_t b = blocks - 1; b >= 0; b--) {
        int64_t first = b * B, next = first + B;
        float *dK = x->dK + first * row;
        if (b == blocks - 1) {
            memset(dK, 0, sizeof(float) * (size_t)(B * row));
            continue;
        }
        multiply_rows(n - next > B ? n - next - B : 0, row, t->block + (b + 1) * row, 0, queries + (next + B) * row,
                      queries + (next + B) * row);
        multiply_rows(B, row, t->pre + next * row, row, t->Q + next * row, queries + next * row);
        pn_mm k =
            pn_mm_transposed_of(B, row, n - next, x->dA + next * C + first, C, queries + next * row, row, dK, row);
        k.ahead = &t->ahead;
        pn_tile_mm(&k);
        multiply_rows(B, row, t->suf + first * row, row, dK, dK);
    }
}

/* dL_i <- sum over m >= i of dL_m. */
static PN_CLONES void sum_from_end(int64_t n, int64_t row, float *dL) {
    for (int64_t i = n - 2; i >= 0; i--)
        for (int64_t x = 0; x < row; x++) dL[i * row + x] += dL[(i + 1) * row + x];
}

/* One token: dg += dL + left, then dK_i += e^{L_C - L_i} X_i and left += K_i times that. dg, X: NULL as above. */
static PN_CLONES void token_gate(int64_t dk, int64_t row, const float *suf, const float *end, const float *X,
                                 const float *K, const float *dL, float *dK, float *left, float *dg) {
    if (dg)
        for (int64_t x = 0; x < dk; x++) dg[x] += dL[x] + left[x];
    if (X)
        for (int64_t x = 0; x < row; x++) {
            float kept = suf[x] * end[x] * X[x];
            dK[x] += kept;
            left[x] += K[x] * kept;
        }
}

void pn_glin_vector_gradient(const pn_glin_dims *d, int64_t n, const pn_glin_grad *x, pn_glin_tiles *t) {
    int64_t row = d->row, blocks = blocks_of(n);
    far_queries(d, n, x, t);
    far_keys(d, n, x, t);
    for (int64_t b = 0; b < blocks; b++) {
        int64_t at = b * B * row;
        diagonal_gradients(row, x->dA + b * B * (C + 1), t->Q + at, t->K + at, t->a + at, x->dQ + at, x->dK + at,
                           x->dL + at);
    }
    /* dg_i = sum over m >= i of what enters the chunk or moves inside it, over j < i of what token j leaves behind, and
     * of the start state what is left at the end. */
    float *left = t->work;
    sum_from_end(n, row, x->dL);
    for (int64_t c = 0; c < row; c++) left[c] = x->SG ? t->through[c] * x->SG[c] : 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i * row;
        token_gate(d->dk, row, t->suf + at, t->end + i / B * row, x->X ? x->X + at : NULL, t->K + at, x->dL + at,
                   x->dK + at, left, x->dg ? x->dg + i * d->ldg : NULL);
    }
}
