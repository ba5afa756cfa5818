/* Mamba-2's step size and the log decay that goes with it, per token and head (blocks.md 6.2):
 *
 *     dt = clamp(softplus(a + dt_bias), min, max)          g = -e^{A_log} dt
 *
 * a, dt, g: [N, H]; A_log, dt_bias: [H]. Where dt is clamped, no gradient reaches a and dt_bias. With dt not asked for
 * and nothing clamped this is decay_gate. */
#ifndef PN_KERNELS_TIME_STEP_H
#define PN_KERNELS_TIME_STEP_H

#include "op.h"

typedef struct pn_time_step_attr {
    double min, max; /* 0 <= min <= max; 0 and 1e30 clamp nothing */
} pn_time_step_attr;

static inline pn_status pn_time_step(pn_tape *t, pn_tensor *a, pn_tensor *A_log, pn_tensor *dt_bias, double min,
                                     double max, pn_tensor **dt, pn_tensor **g) {
    pn_time_step_attr attr = { .min = min, .max = max };
    pn_tensor *in[] = { a, A_log, dt_bias }, *out[2];
    PN_TRY(pn_tape_call(t, &pn_op_time_step, &attr, sizeof attr, in, 3, out, 2));
    *dt = out[0];
    *g = out[1];
    return PN_OK;
}

#endif
