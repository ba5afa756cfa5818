/* Gradients of a chunk's queries, keys, a, b and decays from those of its scores and states.
 *
 * The gradient of x_i e^{L_i - R} is a sum over what it met; multiplied by x_i e^{L_i - R} itself it is also what
 * reaches L_i, and likewise with the other sign for columns. Pairs of one token (for a: of the token before) do not
 * decay: they stay out of these sums, in which the decays of strong gates would drown, and are added at the end. */
#include "dplr_chunk.h"

#include <string.h>

#include "cpu/clones.h"

enum { C = PN_DPLR_C };

/* Takes the scores of token i + later with i, n - later of them, out of M, which stays below that diagonal; zeros from
 * there on as far as products look. */
static void split_near(int64_t n, int64_t later, float *M, float *near) {
    for (int64_t i = 0; i < n - later; i++) near[i] = M[(i + later) * C + i];
    for (int64_t i = 0; i < n; i++) {
        int64_t from = i > later ? i - later : 0, to = i + 16 < C ? i + 16 : C;
        memset(M + i * C + from, 0, sizeof(float) * (size_t)(to - from));
    }
}

/* y_i = f * x_i for n rows. */
static PN_CLONES void multiply_rows(int64_t n, int64_t cols, int64_t ld, const float *f, const float *x, float *y) {
    for (int64_t i = 0; i < n; i++)
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) y[i * ld + c] = f[c] * x[i * ld + c];
}

/* Rows of a kind in a block: tokens first .. first + count - 1 plus `later`. */
static int64_t rows_in_block(const pn_dplr_tiles *t, int64_t b, int64_t later) {
    int64_t next = t->first[b + 1], last = t->n - later;
    return (next < last ? next : last) - t->first[b];
}

/* dX of one block's rows = MK K + MB B over all columns up to their own; far: columns of earlier blocks, decayed to
 * this block's reference. */
static void row_gradient(const pn_dplr_dims *d, int64_t b, int64_t later, const float *MK, const float *MB,
                         float *const far[2], float *dX, pn_dplr_tiles *t) {
    int64_t first = t->first[b], rows = rows_in_block(t, b, later), at = (first + later) * C, row = d->row;
    float *out = dX + (first + later) * row;
    if (rows == 0) return;
    pn_mm_run(pn_mm_of(rows, d->dk, rows, MK + at + first, C, t->K + first * row, row, out, row), PN_MM_A_LOWER, false,
              &t->ahead);
    pn_mm_run(pn_mm_of(rows, d->dk, rows, MB + at + first, C, t->B + first * row, row, out, row), PN_MM_A_LOWER, true,
              &t->ahead);
    if (first == 0) return;
    pn_mm_run(pn_mm_of(rows, d->dk, first, MK + at, C, far[0], row, out, row), PN_MM_DENSE, true, &t->ahead);
    pn_mm_run(pn_mm_of(rows, d->dk, first, MB + at, C, far[1], row, out, row), PN_MM_DENSE, true, &t->ahead);
}

static void row_gradients(const pn_dplr_dims *d, const pn_dplr_grad *x, pn_dplr_tiles *t) {
    float *const far[2] = { t->work[0], t->work[1] };
    const float *const near[2] = { t->K, t->B };
    memset(x->dA, 0, sizeof(float) * (size_t)d->row);
    for (int64_t b = 0; b < t->blocks; b++) {
        for (int i = 0; b > 0 && i < 2; i++) {
            int64_t before = t->first[b - 1], at = before * d->row;
            const float *step = t->step + b * d->row;
            multiply_rows(before, d->dk, d->row, step, far[i], far[i]);
            multiply_rows(t->first[b] - before, d->dk, d->row, step, near[i] + at, far[i] + at);
        }
        row_gradient(d, b, 0, x->QK, x->QB, far, x->dQ, t);
        row_gradient(d, b, 1, x->AK, x->AB, far, x->dA, t);
    }
}

/* dY of one block's columns = MQ^T Q + MA^T A over all rows from their own on; far: rows of later blocks, decayed from
 * this block's reference. */
static void column_gradient(const pn_dplr_dims *d, int64_t b, const float *MQ, const float *MA, float *const far[2],
                            float *dY, pn_dplr_tiles *t) {
    int64_t first = t->first[b], next = t->first[b + 1], row = d->row;
    float *out = dY + first * row;
    for (int64_t later = 0; later < 2; later++) {
        int64_t rows = rows_in_block(t, b, later), at = first + later, from = next + later;
        const float *M = later ? MA : MQ, *X = later ? t->A : t->Q;
        if (rows > 0)
            pn_mm_run(pn_mm_transposed_of(rows, d->dk, rows, M + at * C + first, C, X + at * row, row, out, row),
                      PN_MM_A_UPPER, later, &t->ahead);
        if (from < t->n)
            pn_mm_run(pn_mm_transposed_of(next - first, d->dk, t->n - from, M + from * C + first, C,
                                          far[later] + from * row, row, out, row),
                      PN_MM_DENSE, true, &t->ahead);
    }
}

static void column_gradients(const pn_dplr_dims *d, const pn_dplr_grad *x, pn_dplr_tiles *t) {
    float *const far[2] = { t->work[0], t->work[1] };
    for (int64_t b = t->blocks - 1; b >= 0; b--) {
        for (int64_t later = 0; b + 1 < t->blocks && later < 2; later++) {
            int64_t at = (t->first[b + 1] + later) * d->row, after = t->first[b + 2] + later;
            const float *step = t->step + (b + 1) * d->row;
            multiply_rows(rows_in_block(t, b + 1, later), d->dk, d->row, step, (later ? t->A : t->Q) + at,
                          far[later] + at);
            if (after < t->n)
                multiply_rows(t->n - after, d->dk, d->row, step, far[later] + after * d->row,
                              far[later] + after * d->row);
        }
        column_gradient(d, b, x->QK, x->AK, far, x->dK, t);
        column_gradient(d, b, x->QB, x->AB, far, x->dB, t);
    }
}

/* n rows of queries (or a): dX <- e^{L - R} (dX + e^R in); dL (+)= X times what is in brackets. */
static PN_CLONES void finish_rows(int64_t n, int64_t cols, int64_t row, bool adds, const float *up, const float *start,
                                  const float *in, const float *X, float *dX, float *dL) {
    for (int64_t i = 0; i < n * row; i += row)
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) {
            float g = dX[i + c] + start[c] * in[i + c], moved = X[i + c] * g;
            dL[i + c] = adds ? dL[i + c] + moved : moved;
            dX[i + c] = up[i + c] * g;
        }
}

/* n rows of keys (or b): dL -= Y dY; dY <- e^{R - L} (dY + e^{L_C - R} out); left (+)= Y e^{L_C - R} out, what is there
 * at the chunk's end. */
static PN_CLONES void finish_columns(int64_t n, int64_t cols, int64_t row, bool adds, const float *down,
                                     const float *end, const float *out, const float *Y, float *dY, float *dL,
                                     float *left) {
    for (int64_t i = 0; i < n * row; i += row)
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) {
            float kept = end[c] * out[i + c], moved = Y[i + c] * kept;
            dL[i + c] -= Y[i + c] * dY[i + c];
            left[i + c] = adds ? left[i + c] + moved : moved;
            dY[i + c] = down[i + c] * (dY[i + c] + kept);
        }
}

static void finish(const pn_dplr_dims *d, const pn_dplr_grad *x, pn_dplr_tiles *t) {
    int64_t row = d->row, dk = d->dk;
    pn_add_rows(1, dk, 1, x->inA, row, x->dA, row);
    for (int64_t b = 0; b < t->blocks; b++) {
        int64_t at = t->first[b] * row, next = at + row, n = rows_in_block(t, b, 0), next_n = rows_in_block(t, b, 1);
        const float *start = t->start + b * row, *end = t->end + b * row, *up = t->up + at, *down = t->down + at;
        float *dL = x->dL + at, *left = x->left + at;
        finish_rows(n, dk, row, false, up, start, x->inQ + at, t->Q + at, x->dQ + at, dL);
        finish_rows(next_n, dk, row, true, up, start, x->inA + next, t->A + next, x->dA + next, dL);
        finish_columns(n, dk, row, false, down, end, x->outK + at, t->K + at, x->dK + at, dL, left);
        finish_columns(n, dk, row, true, down, end, x->outB + at, t->B + at, x->dB + at, dL, left);
    }
}

/* dg_i = sum over m >= i of what enters the chunk or moves inside it, and over j < i of what token j leaves behind, and
 * of the start state what is left at the end (`all`, destroyed). In the place of dL. */
static PN_CLONES void decay_gradient(int64_t n, int64_t cols, int64_t ld, const float *through, float *all,
                                     const float *left, float *dL) {
    for (int64_t i = n - 2; i >= 0; i--)
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) dL[i * ld + c] += dL[(i + 1) * ld + c];
#pragma omp simd
    for (int64_t c = 0; c < cols; c++) all[c] *= through[c];
    for (int64_t i = 0; i < n; i++)
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) {
            dL[i * ld + c] += all[c];
            all[c] += left[i * ld + c];
        }
}

/* out_i <- scale (out_i + f_i x_i + h_i y_i) for n rows; x and y are ld apart. */
static PN_CLONES void add_pairs(int64_t n, int64_t cols, int64_t row, float scale, const float *f, const float *x,
                                const float *h, const float *y, int64_t ld, float *out) {
    for (int64_t i = 0; i < n; i++)
#pragma omp simd
        for (int64_t c = 0; c < cols; c++)
            out[i * row + c] = scale * (out[i * row + c] + f[i] * x[i * ld + c] + h[i] * y[i * ld + c]);
}

void pn_dplr_gradient(const pn_dplr_dims *d, const pn_dplr_rows *rows, const pn_dplr_grad *x, pn_dplr_tiles *t) {
    float qk[C], qb[C], ak[C], ab[C]; /* of every token, for a of every token after the first, with that before it */
    int64_t n = t->n, row = d->row, ld = d->ldk, dk = d->dk;
    split_near(n, 0, x->QK, qk);
    split_near(n, 0, x->QB, qb);
    split_near(n, 1, x->AK, ak);
    split_near(n, 1, x->AB, ab);
    row_gradients(d, x, t);
    column_gradients(d, x, t);
    finish(d, x, t);
    decay_gradient(n, dk, row, t->through, x->SG, x->left, x->dL);
    const float *q = rows->q, *k = rows->k, *b = rows->b, *a = rows->a + ld;
    add_pairs(n, dk, row, d->scale, qk, k, qb, b, ld, x->dQ);
    add_pairs(n - 1, dk, row, 1, ak, k, ab, b, ld, x->dA + row);
    for (int64_t i = 0; i < n; i++) qk[i] *= d->scale, qb[i] *= d->scale;
    add_pairs(n - 1, dk, row, 1, qk, q, ak, a, ld, x->dK);
    add_pairs(n - 1, dk, row, 1, qb, q, ab, a, ld, x->dB);
    int64_t last = (n - 1) * row;
    pn_add_rows(1, dk, qk[n - 1], q + (n - 1) * ld, ld, x->dK + last, row);
    pn_add_rows(1, dk, qb[n - 1], q + (n - 1) * ld, ld, x->dB + last, row);
}
