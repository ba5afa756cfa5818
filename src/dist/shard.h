/* What a rank owns, in terms of parameters: the ranges of its parts of the buckets (bucket.h), and how they meet the
 * ranges that any other number of ranks had.
 *
 * A checkpoint names elements by parameter, offset and length, never by rank, so that any number of ranks reads what
 * any other number wrote. */
#ifndef PN_DIST_SHARD_H
#define PN_DIST_SHARD_H

#include "bucket.h"

/* Elements offset .. offset + n - 1 of a parameter. */
typedef struct pn_shard_range {
    int param;
    int64_t offset, n;
    int64_t at; /* where the first one is among the rank's shard_elems: its parts, one after the other */
} pn_shard_range;

/* The ranges rank owns, in the order of `at`; padding is in none of them. out NULL: only counts. Returns how many. Over
 * all ranks every element is in exactly one. */
int pn_shard_ranges(const pn_bucket_plan *p, int rank, pn_shard_range *out);

/* The rank that owns an element, and where in its shard. */
int pn_shard_owner(const pn_bucket_plan *p, int param, int64_t offset, int64_t *at);

/* Where two ranges meet. */
typedef struct pn_shard_meet {
    int64_t n;      /* elements both have; 0: none */
    int64_t offset; /* of the first one, in the parameter */
} pn_shard_meet;
pn_shard_meet pn_shard_intersect(const pn_shard_range *a, const pn_shard_range *b);

/* The ranges of one rank by parameter, for finding those that meet a range of a file. Sorted by parameter and offset.
 */
void pn_shard_sort(pn_shard_range *range, int n);
/* The first of n sorted ranges that ends after `offset` of `param`, or lies in a later parameter; n: none. */
int pn_shard_find(const pn_shard_range *range, int n, int param, int64_t offset);

#endif
