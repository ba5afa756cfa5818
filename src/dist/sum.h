/* Sums and maxima of several ranks' values, the same whoever makes them. */
#ifndef PN_DIST_SUM_H
#define PN_DIST_SUM_H

#include "comm.h"

/* dst[i] = src[0][i] + src[1][i] + ..., in double precision from the left and rounded once (I64: exact, wrapping), or
 * the largest. dst may be one of the sources. F32, BF16, F64, I64. */
void pn_reduce_values(void *dst, const void *const *src, int n_src, int64_t n, pn_dtype t, pn_reduce op);

#endif
