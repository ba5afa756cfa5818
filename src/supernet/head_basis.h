/* Fewer channels for a head: the best ones for a product of two of its factors (blocks.md 11.2).
 *
 * The scores of a head are a b^T, a [m, d] its queries and b [n, d] its keys. With P and R [rank, d] the same head has
 * rank channels, queries a P^T and keys b R^T; of all such heads this one's scores (a P^T)(b R^T)^T are nearest to
 * a b^T (Frobenius), and the singular values are split evenly between the two sides. The same serves the values of a
 * head and the columns of the output projection that read them. */
#ifndef PN_SUPERNET_HEAD_BASIS_H
#define PN_SUPERNET_HEAD_BASIS_H

#include <stdint.h>

#include "status.h"

/* a [m, d] and b [n, d], row after row; both are overwritten. p, r: [rank, d], rank <= d. Where a b^T has less than
 * that rank, the last rows are 0. *kept: the share of |a b^T|^2 that stays, 1 when a b^T is 0. */
pn_status pn_head_basis(double *a, int64_t m, double *b, int64_t n, int64_t d, int64_t rank, double *p, double *r,
                        double *kept);

#endif
