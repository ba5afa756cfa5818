/* Row-major single-precision matrix products over OpenBLAS, with 64-bit sizes and empty operands. */
#ifndef PN_KERNELS_CPU_GEMM_H
#define PN_KERNELS_CPU_GEMM_H

#include <cblas.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "status.h"

/* c [m, n] = op(a) op(b) + beta c, where op(a) is [m, k] and op(b) is [k, n]; a `t` flag says the operand is stored
 * transposed. ld*: elements from one stored row to the next. */
static inline void pn_sgemm(bool a_t, bool b_t, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda,
                            const float *b, int64_t ldb, float beta, float *c, int64_t ldc) {
    PN_ASSERT(m <= INT_MAX && n <= INT_MAX && k <= INT_MAX && lda <= INT_MAX && ldb <= INT_MAX && ldc <= INT_MAX);
    if (m == 0 || n == 0) return;
    if (k == 0) { /* BLAS leaves no doubt about beta, but wants leading dimensions that an empty operand has not */
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
        return;
    }
    if (m == 1 && !a_t) { /* one token: a matrix-vector product reads b once and packs nothing */
        cblas_sgemv(CblasRowMajor, b_t ? CblasNoTrans : CblasTrans, (blasint)(b_t ? n : k), (blasint)(b_t ? k : n), 1,
                    b, (blasint)ldb, a, 1, beta, c, 1);
        return;
    }
    cblas_sgemm(CblasRowMajor, a_t ? CblasTrans : CblasNoTrans, b_t ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n,
                (blasint)k, 1, a, (blasint)lda, b, (blasint)ldb, beta, c, (blasint)ldc);
}

#endif
