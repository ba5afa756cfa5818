/* What infer() functions and checks of integer inputs share: one sentence per wrong shape, the same for every op. */
#ifndef PN_KERNELS_INFER_H
#define PN_KERNELS_INFER_H

#include "op.h"

enum { PN_ANY = -1 }; /* a dimension that may have any size */

/* Input i is present, of this dtype and shape; PN_USAGE names the op, the input and both shapes otherwise. */
pn_status pn_need_matrix(const pn_op_call *c, int i, const char *name, pn_dtype dtype, int64_t rows, int64_t cols);
pn_status pn_need_vector(const pn_op_call *c, int i, const char *name, pn_dtype dtype, int64_t n);

/* Input i, where it is present, is a recurrent state [documents, heads, dk, dv] as `state` says; PN_USAGE otherwise. */
pn_status pn_need_state(const pn_op_call *c, int i, const char *name, const pn_out_spec *state);

/* An output of x's shape, in the compute dtype. */
void pn_out_like(const pn_tensor *x, pn_out_spec *out);

/* Every element of the I32 vector `ids` is in lo .. hi - 1; PN_USAGE names the first that is not and its position. */
pn_status pn_need_ids(const char *op, const char *name, const pn_tensor *ids, int64_t lo, int64_t hi);

/* Every row of the I32 matrix `ids` ascends within 0 .. end - 1, no id twice; PN_USAGE names the first that does not.
 */
pn_status pn_need_ascending(const char *op, const char *name, const pn_tensor *ids, int64_t end);

/* Every element of the vector (F32 or F64; NULL: fine) is finite and not negative; PN_USAGE otherwise. */
pn_status pn_need_weights(const char *op, const pn_tensor *weights);

/* An input of a test case: an activation. */
static inline pn_case_input pn_case_matrix(int64_t rows, int64_t cols) {
    return (pn_case_input){ .present = true, .rank = 2, .shape = { rows, cols } };
}
/* The matrix is a parameter. */
static inline pn_case_input pn_case_weight(int64_t rows, int64_t cols) {
    return (pn_case_input){ .present = true, .weight = true, .rank = 2, .shape = { rows, cols } };
}
/* Vectors are wide in every contract: small parameters, statistics, weights of rows. */
static inline pn_case_input pn_case_vector(int64_t n) {
    return (pn_case_input){ .present = true, .wide = true, .rank = 1, .shape = { n } };
}
static inline pn_case_input pn_case_ids(int64_t n, int64_t lo, int64_t hi) {
    return (pn_case_input){ .present = true,
                            .integer = true,
                            .rank = 1,
                            .shape = { n },
                            .fill = PN_FILL_INT,
                            .lo = (double)lo,
                            .hi = (double)hi };
}
/* Rows of k ids each that ascend within 0 .. end - 1: one from each of k equal ranges. */
static inline pn_case_input pn_case_ascending(int64_t rows, int64_t k, int64_t end) {
    pn_case_input in = pn_case_ids(rows, 0, end);
    in.rank = 2;
    in.shape[1] = in.group = k;
    return in;
}

#endif
