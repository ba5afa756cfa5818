/* `postnas check ops`: every implementation of every op against its reference, the reference against differences. */
#ifndef PN_CLI_CHECK_OPS_H
#define PN_CLI_CHECK_OPS_H

#include <stdbool.h>
#include <stdio.h>

#include "compute.h"
#include "status.h"

/* names: ops to check (n 0: all of them); PN_USAGE with the nearest name for an unknown one. PN_CPU checks the
 * references too (not with each), PN_CUDA needs a GPU (PN_UNSUPPORTED) and skips ops that have nothing for it. A row
 * per case and implementation in that compute type (BF16: PN_CUDA alone), last "N passed, M failed"; PN_MISMATCH when
 * M > 0. */
typedef struct pn_check_ops_options {
    char *const *names; /* (n) */
    int n;
    pn_compute on;
    bool slow, small, each; /* op_check.h */
} pn_check_ops_options;
pn_status pn_check_ops(const pn_check_ops_options *o, FILE *out);

#endif
