/* A case of a contract made real: the tensors of one call, filled from the case's description. Shared by checks and
 * benches. */
#ifndef PN_KERNELS_OP_CASE_H
#define PN_KERNELS_OP_CASE_H

#include "op.h"

typedef struct pn_case_call {
    pn_op_call call; /* owns its tensors; attr is borrowed from the case */
    pn_pool *pool;
    pn_storage *scratch; /* owned: behind call.scratch */
    bool bare;           /* scratch is left as it comes, for tools that see what is read before it is written */
} pn_case_call;

/* Inputs as described, for a call in `type` (F32, BF16) on the backend; the reference computes in double, on the same
 * numbers: all are rounded to float, those that are of the compute type to BF16 when that is it. Zero gradients for
 * those that want one; outputs undefined; normal gradients of the outputs. The same case gives the same values. *out:
 * what was made so far also on failure; free it either way. */
pn_status pn_case_call_make(const pn_op *op, const pn_op_case *c, pn_backend backend, pn_dtype type, pn_case_call *out);
/* The same with the values of a call of the case that was made for the reference in this type. */
pn_status pn_case_call_like(const pn_case_call *of, const pn_op_case *c, pn_backend backend, pn_dtype type,
                            pn_case_call *out);
/* The same values in memory of their own, of the kind that is asked for. No scratch. */
pn_status pn_case_call_copy(const pn_case_call *from, pn_pool_kind kind, pn_case_call *out);
/* What it has left behind, out and din alone, in memory of the host. */
pn_status pn_case_call_results(const pn_case_call *from, pn_case_call *out);
/* Scratch for one direction of an implementation, in place of what there was; its contents are NaN unless
 * x is bare. */
pn_status pn_case_call_scratch(pn_case_call *x, const pn_op_impl *impl, bool backward);
void pn_case_call_free(pn_case_call *x); /* {0} is fine */

#endif
