/* Linear attention with decay: the recurrence of GLA, and with a scalar decay that of RetNet and Mamba-2
 * (blocks.md 5.3).
 *
 * A head keeps a state S [dk, dv]. A token lets it decay, each key channel by its own factor or all by one, adds the
 * product of its key and value, then asks it with its query:
 *
 *     S = diag(e^g) S + k v^T          o = scale * S^T q
 *
 * Shapes, N tokens of packed documents (docs.h), H heads, in the compute type (op.h); g, S0 and S_T wide. q, k, v and g
 * may each have fewer heads than H, shared by neighbours: with Hx of them, a divisor of H, head j reads head floor(j Hx
 * / H). That covers grouped keys, values and gates (GLA, RetNet) as well as grouped queries and keys (Mamba-2).
 *
 *     in 0   q    [N, Hq*dk]
 *     in 1   k    [N, Hk*dk]
 *     in 2   v    [N, Hv*dv]
 *     in 3   g    [N, Hg*dk] (vector_gate) or [N, Hg]  log decay, <= 0; NULL: no decay
 *     in 4   S0   [docs, H, dk, dv]    state before each document's first token; NULL: zero
 *     out 0  o    [N, H*dv]
 *     out 1  S_T  [docs, H, dk, dv]    state after each document's last token (S0 for an empty document)
 *     out 2       [chunks, H, dk, dv]  the state at the start of every chunk of 64 tokens, for backward, as in
 *                                      gated_delta.h; [0, H, dk, dv] when no input wants a gradient
 *
 * Any dk, dv >= 1. */
#ifndef PN_KERNELS_GATED_LINEAR_H
#define PN_KERNELS_GATED_LINEAR_H

#include "op.h"

typedef struct pn_gated_linear_attr {
    pn_docs docs;
    int heads;                              /* H */
    int q_heads, k_heads, v_heads, g_heads; /* Hq, Hk, Hv, Hg (ignored without g) */
    int dk, dv;
    bool vector_gate;
    double scale; /* usually dk^-1/2; 1 in Mamba-2 */
} pn_gated_linear_attr;

bool pn_gated_linear_case(int i, pn_op_case *out); /* the contract's cases: gated_linear_cases.c */

/* g, S0: NULL as above. final_state: NULL when it is not needed. The tape owns both outputs. */
static inline pn_status pn_gated_linear(pn_tape *t, const pn_gated_linear_attr *attr, pn_tensor *q, pn_tensor *k,
                                        pn_tensor *v, pn_tensor *g, pn_tensor *S0, pn_tensor **o,
                                        pn_tensor **final_state) {
    pn_tensor *in[] = { q, k, v, g, S0 }, *out[3];
    PN_TRY(pn_tape_call(t, &pn_op_gated_linear, attr, sizeof *attr, in, 5, out, 3));
    *o = out[0];
    if (final_state) *final_state = out[1];
    return PN_OK;
}

#endif
