/* The log decay of GLA: g = max(scale logsigmoid(x), min) <= 0 (blocks.md 5.2). x, g: same shape, any rank.
 * The gradient is 0 where g is at the minimum. */
#ifndef PN_KERNELS_LOG_SIGMOID_H
#define PN_KERNELS_LOG_SIGMOID_H

#include "op.h"

typedef struct pn_log_sigmoid_attr {
    double scale; /* > 0 */
    double min;   /* <= 0; as low as -1e30 clamps nothing */
} pn_log_sigmoid_attr;

static inline pn_status pn_log_sigmoid(pn_tape *t, pn_tensor *x, double scale, double min, pn_tensor **g) {
    pn_log_sigmoid_attr attr = { .scale = scale, .min = min };
    PN_TRY(pn_tape_call(t, &pn_op_log_sigmoid, &attr, sizeof attr, &x, 1, g, 1));
    return PN_OK;
}

#endif
