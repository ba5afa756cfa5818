/* The log decay of a token and head: g_nh = -exp(A_log_h) softplus(a_nh + dt_bias_h) <= 0 (Gated DeltaNet and JetBlock,
 * blocks.md 8.2; Mamba-2's is in time_step.h). a, g: [N, H]; A_log, dt_bias: [H]. */
#ifndef PN_KERNELS_DECAY_GATE_H
#define PN_KERNELS_DECAY_GATE_H

#include "op.h"

static inline pn_status pn_decay_gate(pn_tape *t, pn_tensor *a, pn_tensor *A_log, pn_tensor *dt_bias, pn_tensor **g) {
    pn_tensor *in[] = { a, A_log, dt_bias };
    PN_TRY(pn_tape_call(t, &pn_op_decay_gate, NULL, 0, in, 3, g, 1));
    return PN_OK;
}

#endif
