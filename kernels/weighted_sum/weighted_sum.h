/* y = sum_i weight_i x_i of up to PN_WEIGHTED_SUM_MAX scalars: combines losses. x_i, y: [1]. */
#ifndef PN_KERNELS_WEIGHTED_SUM_H
#define PN_KERNELS_WEIGHTED_SUM_H

#include <string.h>

#include "op.h"

enum { PN_WEIGHTED_SUM_MAX = 8 };

typedef struct pn_weighted_sum_attr {
    double weight[PN_WEIGHTED_SUM_MAX];
} pn_weighted_sum_attr;

static inline pn_status pn_weighted_sum(pn_tape *t, pn_tensor *const *x, const double *weight, int n, pn_tensor **y) {
    pn_weighted_sum_attr attr = { 0 };
    PN_ASSERT(n >= 1 && n <= PN_WEIGHTED_SUM_MAX);
    memcpy(attr.weight, weight, (size_t)n * sizeof *weight);
    PN_TRY(pn_tape_call(t, &pn_op_weighted_sum, &attr, sizeof attr, x, n, y, 1));
    return PN_OK;
}

#endif
