/* y = scale sig(x): beta of the delta rules (scale 2 admits negative eigenvalues, blocks.md 8.2), output gates, and
 * with scale -e^-1/2 the log decay of RWKV-7 (9.3). x, y: same shape, any rank. */
#ifndef PN_KERNELS_SIGMOID_H
#define PN_KERNELS_SIGMOID_H

#include "op.h"

typedef struct pn_sigmoid_attr {
    double scale; /* not 0 */
    bool wide;    /* y is a gate: in the wide type (op.h) */
} pn_sigmoid_attr;

static inline pn_status pn_sigmoid(pn_tape *t, pn_tensor *x, double scale, pn_tensor **y) {
    pn_sigmoid_attr attr = { .scale = scale };
    PN_TRY(pn_tape_call(t, &pn_op_sigmoid, &attr, sizeof attr, &x, 1, y, 1));
    return PN_OK;
}

/* The same for the recurrent cores, whose gates are wide. */
static inline pn_status pn_sigmoid_gate(pn_tape *t, pn_tensor *x, double scale, pn_tensor **y) {
    pn_sigmoid_attr attr = { .scale = scale, .wide = true };
    PN_TRY(pn_tape_call(t, &pn_op_sigmoid, &attr, sizeof attr, &x, 1, y, 1));
    return PN_OK;
}

#endif
