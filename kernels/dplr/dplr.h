/* Diagonal plus low rank: the recurrence of RWKV-7 (core P of blocks.md 9.3).
 *
 * A head keeps a state S [dk, dv]. A token asks it at a, lets every key channel decay by its own factor, writes what
 * was answered back along b, adds the product of its key and value, then asks the new state with its query:
 *
 *     p = S^T a          S = diag(e^g) S + b p^T + k v^T          o = scale * S^T q
 *
 * so that the transition of S is diag(e^g) + b a^T. p comes from the state BEFORE the decay. RWKV-7 sets a = -kk and
 * b = kk * rate with unit keys kk and rates in 0 .. 1: the transition then shrinks the state along kk.
 *
 * Shapes, N tokens of packed documents (docs.h), H heads, in the compute type (op.h); g, S0 and S_T wide:
 *
 *     in 0   q    [N, H*dk]
 *     in 1   k    [N, H*dk]
 *     in 2   v    [N, H*dv]
 *     in 3   a    [N, H*dk]
 *     in 4   b    [N, H*dk]         the caller keeps diag(e^g) + b a^T from growing the state (it is not checked)
 *     in 5   g    [N, H*dk]         log decay of every key channel, <= 0
 *     in 6   S0   [docs, H, dk, dv]    state before each document's first token; NULL: zero
 *     out 0  o    [N, H*dv]
 *     out 1  S_T  [docs, H, dk, dv]    state after each document's last token (S0 for an empty document)
 *     out 2       [chunks, H, dk, dv]  the state at the start of every chunk of 64 tokens, for backward, as in
 *                                      gated_delta.h; [0, H, dk, dv] when no input wants a gradient
 *
 * Any dk, dv >= 1. */
#ifndef PN_KERNELS_DPLR_H
#define PN_KERNELS_DPLR_H

#include "op.h"

typedef struct pn_dplr_attr {
    pn_docs docs;
    int heads;
    int dk, dv;
    double scale; /* 1 in RWKV-7 */
} pn_dplr_attr;

bool pn_dplr_case(int i, pn_op_case *out); /* the contract's cases: dplr_cases.c */

/* S0: NULL as above. final_state: NULL when it is not needed. The tape owns both outputs. */
static inline pn_status pn_dplr(pn_tape *t, const pn_dplr_attr *attr, pn_tensor *q, pn_tensor *k, pn_tensor *v,
                                pn_tensor *a, pn_tensor *b, pn_tensor *g, pn_tensor *S0, pn_tensor **o,
                                pn_tensor **final_state) {
    pn_tensor *in[] = { q, k, v, a, b, g, S0 }, *out[3];
    PN_TRY(pn_tape_call(t, &pn_op_dplr, attr, sizeof *attr, in, 7, out, 3));
    *o = out[0];
    if (final_state) *final_state = out[1];
    return PN_OK;
}

#endif
