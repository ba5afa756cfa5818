/* Runs an op's cases: every implementation against the double-precision reference, and the reference's backward against
 * finite differences of its forward. Used by tests/ops and `postnas check ops`. */
#ifndef PN_KERNELS_OP_CHECK_H
#define PN_KERNELS_OP_CHECK_H

#include <stdio.h>

#include "op.h"

typedef struct pn_op_check_options {
    pn_backend backend; /* whose implementations are checked; PN_REF: gradcheck of the reference alone */
    pn_dtype type;      /* F32, or BF16: what calls compute in (the limits of BF16 are blocks.md 13's); PN_REF: F32 */
    bool slow;          /* also the cases marked slow */
    bool small;         /* only those small enough for finite differences */
    bool each; /* only those of pn_op_each, each run once: for tools that make everything a hundred times slower */
    const char *only;   /* substring of the case name, or NULL */
    FILE *out;          /* a row per case and implementation: case | impl | worst error of each quantity, its limit */
    bool failures_only; /* print failing rows only */
} pn_op_check_options;

/* Adds to *passed and *failed. Inputs are rounded (op_case.h) before both sides see them; outputs are poisoned with NaN
 * first, so an element that is not written fails. A second run must be bit-equal. In a third, the only one of `each`,
 * backward runs twice and gradients must double; those that an implementation can write are written first. A case that
 * no implementation takes has failed. */
pn_status pn_op_check(const pn_op *op, const pn_op_check_options *options, int *passed, int *failed);

/* rms(x - ref) / rms(ref); NaN or infinity anywhere in x gives infinity. rms(ref) = 0 compares absolutely. */
double pn_relative_error(const float *x, const double *ref, int64_t n);

#endif
