/* The gated delta rule: the recurrence of DeltaNet, Gated DeltaNet and JetBlock (blocks.md 8.3).
 *
 * A head keeps a state S [dk, dv], an associative memory from keys to values. A token first lets it decay, then
 * replaces what the memory answers to its key by a step of size beta towards its value, then asks it with its query:
 *
 *     Sd = e^g S          e = v - Sd^T k          S = Sd + k (beta e)^T          o = scale * S^T q
 *
 * Shapes, N tokens of packed documents (docs.h), H query/key heads, Hv value heads (a multiple of H; value head j reads
 * query/key head floor(j H / Hv)), in the compute type (op.h); g, beta, S0 and S_T wide:
 *
 *     in 0   q    [N, H*dk]
 *     in 1   k    [N, H*dk]           each head of each token of unit length: the caller normalises (it is not checked,
 *                                     and with longer keys and beta near 1 the state grows without bound)
 *     in 2   v    [N, Hv*dv]
 *     in 3   g    [N, Hv]             log decay, <= 0; NULL: no decay, the plain delta rule
 *     in 4   beta [N, Hv]             step size in 0 .. 2
 *     in 5   S0   [docs, Hv, dk, dv]  state before each document's first token; NULL: zero
 *     out 0  o    [N, Hv*dv]
 *     out 1  S_T  [docs, Hv, dk, dv]  state after each document's last token (S0 for an empty document)
 *     out 2       [chunks, Hv, dk, dv]  the state at the start of every chunk of 64 tokens (chunks start anew in every
 *                                     document), for backward; [0, Hv, dk, dv] when no input wants a gradient
 *     out 3       [N, Hv*dv]          e, for backward; [0, Hv*dv] when no input wants a gradient
 *
 * Out 2 is memory for time: with it, backward needs no second forward sweep through the sequence (about a fifth of a
 * training step of this op) and a fixed amount of scratch. It costs 4 Hv dk dv / 64 bytes per token, as much as v
 * itself when dk = 64. Per-layer recompute keeps it alive for one layer at a time. Out 3 costs nothing: backward reads
 * it in the place of v, and has no system of equations to solve a second time.
 *
 * 1 <= dk <= 256, any dv >= 1. */
#ifndef PN_KERNELS_GATED_DELTA_H
#define PN_KERNELS_GATED_DELTA_H

#include "op.h"

enum { PN_GATED_DELTA_MAX_DK = 256 };

typedef struct pn_gated_delta_attr {
    pn_docs docs;
    int heads, v_heads; /* H, Hv */
    int dk, dv;
    double scale; /* usually dk^-1/2 */
} pn_gated_delta_attr;

bool pn_gated_delta_case(int i, pn_op_case *out); /* the contract's cases: gated_delta_cases.c */

/* g, S0: NULL as above. final_state: NULL when it is not needed. The tape owns both outputs. */
static inline pn_status pn_gated_delta(pn_tape *t, const pn_gated_delta_attr *attr, pn_tensor *q, pn_tensor *k,
                                       pn_tensor *v, pn_tensor *g, pn_tensor *beta, pn_tensor *S0, pn_tensor **o,
                                       pn_tensor **final_state) {
    pn_tensor *in[] = { q, k, v, g, beta, S0 }, *out[4];
    PN_TRY(pn_tape_call(t, &pn_op_gated_delta, attr, sizeof *attr, in, 6, out, 4));
    *o = out[0];
    if (final_state) *final_state = out[1];
    return PN_OK;
}

#endif
