#include "cpu/unit_lower.h"

#include "cpu/clones.h"
#include "cpu/tile_mm.h"
#include "cpu/vec.h"

enum { B = PN_UNIT_LOWER_BLOCK };

/* Column by column: once row j of the inverse is known, every row below subtracts its share of it. All rows of a few
 * columns stay in registers. A: a whole block. */
static PN_CLONES void invert_block(const float *A, int64_t lda, float *X) {
    for (int x = 0; x < B; x += PN_VEC) {
        pn_vec row[B];
#pragma GCC unroll 16
        for (int i = 0; i < B; i++) {
            row[i] = (pn_vec){ 0 };
            if (i >= x && i < x + PN_VEC) row[i][i - x] = 1;
        }
#pragma GCC unroll 16
        for (int j = 0; j < B; j++)
#pragma GCC unroll 16
            for (int i = j + 1; i < B; i++) row[i] -= A[i * lda + j] * row[j];
#pragma GCC unroll 16
        for (int i = 0; i < B; i++) *(pn_vec *)(X + i * B + x) = row[i];
    }
}

void pn_unit_lower_prepare(int64_t n, const float *A, int64_t lda, float *X) {
    int64_t r = 0;
    for (; r + B <= n; r += B) invert_block(A + r * lda + r, lda, X + r * B);
    if (r == n) return;
    float last[B * B] = { 0 };
    for (int64_t i = 1; i < n - r; i++)
        for (int64_t j = 0; j < i; j++) last[i * B + j] = A[(r + i) * lda + r + j];
    invert_block(last, B, X + r * B);
}

static void subtract_product(pn_mm p) { /* C -= A B */
    p.scale = -1;
    pn_mm_keep(&p, 1, p.c, p.ldc);
    pn_tile_mm(&p);
}

void pn_unit_lower_solve(int64_t n, const float *A, int64_t lda, const float *X, float *R, int64_t ldr, float *U,
                         int64_t ldu, int64_t cols) {
    for (int64_t r = 0; r < n; r += B) {
        int64_t rows = n - r < B ? n - r : B;
        float *Rb = R + r * ldr;
        if (r > 0) subtract_product(pn_mm_of(rows, cols, r, A + r * lda, lda, U, ldu, Rb, ldr));
        pn_mm p = pn_mm_of(rows, cols, rows, X + r * B, B, Rb, ldr, U + r * ldu, ldu);
        p.form = PN_MM_A_LOWER;
        pn_tile_mm(&p);
    }
}

void pn_unit_lower_solve_transposed(int64_t n, const float *A, int64_t lda, const float *X, float *R, int64_t ldr,
                                    float *U, int64_t ldu, int64_t cols) {
    for (int64_t r = (n - 1) / B * B; r >= 0; r -= B) {
        int64_t rows = n - r < B ? n - r : B, next = r + rows;
        float *Rb = R + r * ldr;
        if (next < n)
            subtract_product(
                pn_mm_transposed_of(rows, cols, n - next, A + next * lda + r, lda, U + next * ldu, ldu, Rb, ldr));
        pn_mm p = pn_mm_transposed_of(rows, cols, rows, X + r * B, B, Rb, ldr, U + r * ldu, ldu);
        p.form = PN_MM_A_UPPER;
        pn_tile_mm(&p);
    }
}
