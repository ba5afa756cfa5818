/* `postnas check ops`: every implementation of every op against its reference, the reference against differences. */
#ifndef PN_CLI_CHECK_OPS_H
#define PN_CLI_CHECK_OPS_H

#include <stdbool.h>
#include <stdio.h>

#include "op.h"
#include "status.h"

/* names: ops to check (n 0: all of them); PN_USAGE with the nearest name for an unknown one. PN_CPU checks the
 * references too, PN_CUDA needs a GPU (PN_UNSUPPORTED) and skips ops that have nothing for it. A row per case and
 * implementation in that compute type (BF16: PN_CUDA alone), last "N passed, M failed"; PN_MISMATCH when M > 0. */
pn_status pn_check_ops(char *const *names, int n, pn_backend backend, pn_dtype type, bool slow, FILE *out);

#endif
