/* Sums over rows, for the gradients of biases, norm weights and gates.
 *
 * A sum over tokens must not depend on which thread came first. Work is cut into blocks of PN_REDUCE_ROWS rows whatever
 * the number of threads: a block's rows are added in order by one thread into a partial row of its own, then the
 * partial rows are added in order. The result depends on the data alone. */
#ifndef PN_KERNELS_CPU_REDUCE_H
#define PN_KERNELS_CPU_REDUCE_H

#include <stdint.h>

enum { PN_REDUCE_ROWS = 64 };

static inline int64_t pn_reduce_blocks(int64_t n_rows) {
    return (n_rows + PN_REDUCE_ROWS - 1) / PN_REDUCE_ROWS;
}

/* dst [n] += the sum of the rows of x [n_rows, n], each column in row order. */
void pn_add_row_sum(float *dst, const float *x, int64_t n_rows, int64_t n);

#endif
