#include "fixed_gates.h"

#include <stdlib.h>

pn_status pn_fixed_gates(pn_tape *t, int64_t tokens, int64_t heads, double (*value)(int64_t head), pn_tensor **out) {
    PN_TRY(pn_tape_new(t, pn_wide_dtype(pn_tape_dtype(t)), 2, (int64_t[]){ tokens, heads }, out));
    if (!(*out)->storage->data) return PN_OK; /* a plan */
    double *gate = malloc((size_t)(tokens * heads + 1) * sizeof *gate);
    PN_CHECK(gate, PN_MEMORY, "out of memory");
    for (int64_t h = 0; h < heads; h++) {
        const double x = value(h);
        for (int64_t i = 0; i < tokens; i++) gate[i * heads + h] = x;
    }
    pn_status s = pn_tensor_write(*out, gate, PN_F64);
    free(gate);
    return s;
}
