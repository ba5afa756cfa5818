/* Which gradients travel together, and which part of them each rank owns: the arithmetic of ZeRO-1.
 *
 * Parameters, in the order in which backward finishes their gradients, are laid one after the other into buckets. A
 * bucket is what one reduce_scatter carries: large enough to use the network well, small enough that the first leaves
 * while backward still runs. Every bucket is cut into as many equal parts as there are ranks, and rank r owns part r of
 * every bucket: it alone has masters and moments for these elements, updates them, and an all_gather brings the updated
 * weights to all.
 *
 *     bucket 0                                     bucket 1
 *     | w7 ......... | w6 .... | w5 ... | padding || w4 ...
 *     | rank 0   | rank 1   | rank 2   | rank 3   || rank 0 ...
 *
 * Every parameter starts at a multiple of `align` elements, and so does every part; what lies between holds zeros. Pure
 * arithmetic: no memory of tensors, no communication. All parameters of a plan have one type. */
#ifndef PN_DIST_BUCKET_H
#define PN_DIST_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

typedef struct pn_bucket {
    int first, end;      /* parameters */
    int64_t elems, part; /* with padding: elems = ranks x part */
    int64_t at;          /* where it starts when all buckets lie one after the other */
    int64_t part_at;     /* where its part starts when a rank's parts do */
} pn_bucket;

typedef struct pn_bucket_plan {
    int ranks, n_params, n_buckets;
    int64_t *elems;  /* of each parameter */
    int64_t *offset; /* where it starts in its bucket */
    int *bucket_of;
    pn_bucket *bucket;
    int64_t total_elems, shard_elems; /* of all buckets, and of a rank's parts: total = ranks x shard */
} pn_bucket_plan;

/* elems: n_params sizes, at least 1 each. A bucket is full when it has bucket_elems or more; a parameter is never cut
 * between two, so one that is larger has a bucket that is as large. The same on all ranks for the same arguments. */
pn_status pn_bucket_plan_create(const int64_t *elems, int n_params, int64_t bucket_elems, int ranks, int64_t align,
                                pn_bucket_plan **out);
void pn_bucket_plan_destroy(pn_bucket_plan **p);

/* Which buckets may leave: counts gradients as they are finished. Buckets leave in order, on all ranks alike, so one
 * that is full early waits for those before it. */
typedef struct pn_bucket_count {
    const pn_bucket_plan *plan; /* borrowed */
    int *missing;               /* gradients that each bucket still waits for */
    bool *seen;                 /* of every parameter */
    int next;                   /* the first bucket that has not left */
} pn_bucket_count;

pn_status pn_bucket_count_create(const pn_bucket_plan *plan, pn_bucket_count *out);
void pn_bucket_count_free(pn_bucket_count *c);
void pn_bucket_count_reset(pn_bucket_count *c); /* before every backward */
/* The gradient of param is finished (a second time changes nothing). Buckets *first .. *end - 1 leave now; often none.
 */
void pn_bucket_count_add(pn_bucket_count *c, int param, int *first, int *end);
/* Backward is over: all that have not left do, whether their gradients came or not. */
void pn_bucket_count_rest(pn_bucket_count *c, int *first, int *end);

#endif
