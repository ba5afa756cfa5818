/* Systems with a unit lower triangular matrix I + A, A strictly lower [n, n], for chunks of tokens.
 *
 * The 16 x 16 blocks on the diagonal are inverted by substitution once; both solves then go block by block, and all
 * work off the diagonal is matrix products. Substitution never forms powers of A, which would overflow where the
 * solution itself is harmless (blocks.md 1.9). Only A(i,j), j < i, is read. Single-threaded. */
#ifndef PN_KERNELS_CPU_UNIT_LOWER_H
#define PN_KERNELS_CPU_UNIT_LOWER_H

#include <stdint.h>

enum { PN_UNIT_LOWER_BLOCK = 16 };

/* X: ceil(n / 16) blocks of 16 x 16: the inverses of the diagonal blocks of I + A. */
void pn_unit_lower_prepare(int64_t n, const float *A, int64_t lda, float *X);
/* U = (I + A)^-1 R, both [n, cols]; R is overwritten. */
void pn_unit_lower_solve(int64_t n, const float *A, int64_t lda, const float *X, float *R, int64_t ldr, float *U,
                         int64_t ldu, int64_t cols);
/* U = (I + A)^-T R likewise. */
void pn_unit_lower_solve_transposed(int64_t n, const float *A, int64_t lda, const float *X, float *R, int64_t ldr,
                                    float *U, int64_t ldu, int64_t cols);

#endif
