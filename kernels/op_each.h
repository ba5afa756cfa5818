/* A short way through an op: the cases that run every implementation once, for tools that make everything a hundred
 * times slower. */
#ifndef PN_KERNELS_OP_EACH_H
#define PN_KERNELS_OP_EACH_H

#include "op.h"

typedef struct pn_op_sample {
    int at; /* of the case, as case_at() counts */
    const pn_op_impl *impl;
} pn_op_sample;

/* For every implementation of the backend and every kind of case (op.h) that it takes in this type: the case with the
 * fewest elements, of those with gradients where it has a backward and there are such, of those with tokens. In order
 * of cases; *out is the caller's to free. An implementation that takes no case is in no sample. */
pn_status pn_op_each(const pn_op *op, pn_backend backend, pn_dtype type, pn_op_sample **out, int *n);

#endif
