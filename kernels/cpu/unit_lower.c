#include "cpu/unit_lower.h"

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/tile_mm.h"

enum { B = PN_UNIT_LOWER_BLOCK };

/* Column by column: once row j of the inverse is known, every row below subtracts its share of it. */
static PN_CLONES void invert_block(int64_t n, const float *A, int64_t lda, float *X) {
    for (int i = 0; i < B; i++)
        for (int j = 0; j < B; j++) X[i * B + j] = i == j ? 1.0f : 0.0f;
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = j + 1; i < n; i++)
            for (int x = 0; x < B; x++) X[i * B + x] = pn_fmaf(-A[i * lda + j], X[j * B + x], X[i * B + x]);
}

void pn_unit_lower_prepare(int64_t n, const float *A, int64_t lda, float *X) {
    for (int64_t r = 0; r < n; r += B) invert_block(n - r < B ? n - r : B, A + r * lda + r, lda, X + r * B);
}

void pn_unit_lower_solve(int64_t n, const float *A, int64_t lda, const float *X, float *R, int64_t ldr, float *U,
                         int64_t ldu, int64_t cols) {
    for (int64_t r = 0; r < n; r += B) {
        int64_t rows = n - r < B ? n - r : B;
        float *Rb = R + r * ldr;
        if (r > 0)
            pn_tile_mm(&(pn_mm){ .m = rows,
                                 .n = cols,
                                 .l = r,
                                 .a = A + r * lda,
                                 .a_row = lda,
                                 .a_col = 1,
                                 .b = U,
                                 .ldb = ldu,
                                 .c = Rb,
                                 .ldc = ldr,
                                 .c0 = Rb,
                                 .ldc0 = ldr,
                                 .keep = 1,
                                 .scale = -1 });
        pn_tile_mm(&(pn_mm){ .m = rows,
                             .n = cols,
                             .l = rows,
                             .a = X + r * B,
                             .a_row = B,
                             .a_col = 1,
                             .b = Rb,
                             .ldb = ldr,
                             .c = U + r * ldu,
                             .ldc = ldu,
                             .scale = 1,
                             .form = PN_MM_A_LOWER });
    }
}

void pn_unit_lower_solve_transposed(int64_t n, const float *A, int64_t lda, const float *X, float *R, int64_t ldr,
                                    float *U, int64_t ldu, int64_t cols) {
    for (int64_t r = (n - 1) / B * B; r >= 0; r -= B) {
        int64_t rows = n - r < B ? n - r : B, next = r + rows;
        float *Rb = R + r * ldr;
        if (next < n)
            pn_tile_mm(&(pn_mm){ .m = rows,
                                 .n = cols,
                                 .l = n - next,
                                 .a = A + next * lda + r,
                                 .a_row = 1,
                                 .a_col = lda,
                                 .b = U + next * ldu,
                                 .ldb = ldu,
                                 .c = Rb,
                                 .ldc = ldr,
                                 .c0 = Rb,
                                 .ldc0 = ldr,
                                 .keep = 1,
                                 .scale = -1 });
        pn_tile_mm(&(pn_mm){ .m = rows,
                             .n = cols,
                             .l = rows,
                             .a = X + r * B,
                             .a_row = 1,
                             .a_col = B,
                             .b = Rb,
                             .ldb = ldr,
                             .c = U + r * ldu,
                             .ldc = ldu,
                             .scale = 1,
                             .form = PN_MM_A_UPPER });
    }
}
