/* What the delta-rule blocks share (blocks.md 7, 8 and 10): gates, core, output norm and output projection.
 *
 *     beta = sig(W_b x) [* 2]      g = -e^{A_log} softplus(W_a x + dt_bias)
 *                                  without W_b sig(..) = 1; without decay g = 0: the plain delta rule
 *     o = gated delta rule(q, k, v, g, beta), scale dk^-1/2
 *     y = W_o concat_h( rms(o_h; o_norm, eps) [* silu(z_h)] ),    z = W_g x */
#ifndef PN_BLOCKS_DELTA_RULE_H
#define PN_BLOCKS_DELTA_RULE_H

#include "attention_map.h"
#include "block.h"
#include "qkv.h"

typedef struct pn_delta_shape {
    int64_t heads, v_heads, dk, dv;
    bool use_decay, use_beta;            /* g, and beta, from x */
    bool use_gate, negative_eigenvalues; /* output gate; beta in (0, 2) */
    double norm_eps;
} pn_delta_shape;

typedef struct pn_delta_rule {
    pn_tensor *wa, *wb, *a_log, *dt_bias; /* [Hv, D], [Hv, D], [Hv], [Hv]; NULL where not used */
    pn_tensor *wg, *o_norm, *wo;          /* [Hv dv, D] or NULL, [dv], [D, Hv dv] */
} pn_delta_rule;

/* dv = dk * expand_v rounded to nearest; PN_USAGE unless that is within relative 1e-5 of an integer (blocks.md 10.2).
 */
pn_status pn_delta_value_dim(const char *block, int64_t dk, double expand_v, int64_t *dv);

/* Projections and decode state of a block with static convolutions on q, k and v; conv_size 0: without them. */
pn_qkv pn_delta_qkv(const pn_delta_shape *shape, int64_t conv_size);
/* Output projection and slow decays. */
void pn_delta_map(const pn_delta_rule *w, const pn_delta_shape *shape, pn_attention_map *map);

pn_status pn_delta_build(pn_block *b, pn_params *params, const pn_delta_shape *shape, pn_delta_rule *w);

/* q, k [N, H dk] l2-normalised, v [N, Hv dv]; state tensor `s_index` is S [n, Hv, dk, dv] when state is given. */
pn_status pn_delta_mix(const pn_delta_rule *w, const pn_delta_shape *shape, pn_tape *t, pn_tensor *x, pn_tensor *q,
                       pn_tensor *k, pn_tensor *v, const pn_docs *docs, pn_state *state, int s_index, pn_tensor **y);

#endif
