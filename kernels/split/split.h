/* Columns apart: what one matrix or convolution computed for several purposes (Mamba-2's in_proj, blocks.md 6.1).
 * x: [N, C]; out k: [N, width_k], the widths add up to C. */
#ifndef PN_KERNELS_SPLIT_H
#define PN_KERNELS_SPLIT_H

#include <string.h>

#include "op.h"

typedef struct pn_split_attr {
    int64_t n, width[PN_OP_OUT]; /* 1 .. PN_OP_OUT parts of at least 1 column */
} pn_split_attr;

static inline pn_status pn_split(pn_tape *t, pn_tensor *x, const int64_t *width, int n, pn_tensor **out) {
    PN_CHECK(n >= 1 && n <= PN_OP_OUT, PN_USAGE, "split: %d parts; it makes 1 .. %d", n, (int)PN_OP_OUT);
    pn_split_attr attr = { .n = n };
    memcpy(attr.width, width, (size_t)n * sizeof *width);
    PN_TRY(pn_tape_call(t, &pn_op_split, &attr, sizeof attr, &x, 1, out, n));
    return PN_OK;
}

#endif
