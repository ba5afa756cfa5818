/* Products of small blocks that are already in cache: C (+)= A B, without packing, threads or checks.
 *
 * For tiles of attention and chunks of linear attention sgemm spends more on packing than on arithmetic: both operands
 * are used a few times only, and live in L1 or L2. Here B is read in place, 16 channels at a time, and elements of A
 * are broadcast, so A may be transposed for free. */
#ifndef PN_KERNELS_CPU_BLOCK_GEMM_H
#define PN_KERNELS_CPU_BLOCK_GEMM_H

#include <stdbool.h>
#include <stdint.h>

/* C[m x n] = A B, or += with `add`. Element (i, k) of A is a[i * a_row + k * a_col]; B is k x n with rows ldb apart; n
 * is a multiple of 16. No alignment is needed. The order of every sum is that of k. */
void pn_block_gemm(int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_col, const float *b,
                   int64_t ldb, float *c, int64_t ldc, bool add);

#endif
