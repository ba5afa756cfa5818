/* A mixture: y = sum_c p[row, c] x_c, x_c: [N, D], p: [L, C] with C <= PN_MIX_MAX. A NULL x_c is zero. Gradients reach
 * every x_c and the C weights of that row: dx_c = p[row, c] dy, dp[row, c] = <dy, x_c> (0 for a NULL x_c). */
#ifndef PN_KERNELS_MIX_H
#define PN_KERNELS_MIX_H

#include "op.h"

enum { PN_MIX_MAX = PN_OP_IN - 1 };

typedef struct pn_mix_attr {
    int64_t row;
} pn_mix_attr;

static inline pn_status pn_mix(pn_tape *t, pn_tensor *p, int64_t row, pn_tensor *const *x, int n, pn_tensor **y) {
    PN_CHECK(n <= PN_MIX_MAX, PN_USAGE, "mix: %d terms; it takes up to %d", n, (int)PN_MIX_MAX);
    const pn_mix_attr attr = { row };
    pn_tensor *in[PN_OP_IN] = { p };
    for (int c = 0; c < n; c++) in[1 + c] = x[c];
    PN_TRY(pn_tape_call(t, &pn_op_mix, &attr, sizeof attr, in, 1 + n, y, 1));
    return PN_OK;
}

#endif
