/* What the blocks on linear attention with decay share (blocks.md 4 and 5): head widths, core, output norm and output
 * projection.
 *
 *     o = gated linear attention(q, k, v, g), scale dk^-1/2
 *     y = W_o concat_h( rms(o_h; w, eps) * silu(z_h) ),    z = W_g x */
#ifndef PN_BLOCKS_LINEAR_RULE_H
#define PN_BLOCKS_LINEAR_RULE_H

#include "block.h"
#include "qkv.h"

typedef struct pn_linear_shape {
    int64_t heads, kv_heads, dk, dv; /* H; Hkv, of k and v */
    double norm_eps;
} pn_linear_shape;

typedef struct pn_linear_rule {
    pn_tensor *wg, *g_norm, *wo; /* [H dv, D], [dv], [D, H dv] */
} pn_linear_rule;

/* kv_heads 0: as many as heads. PN_USAGE, naming the block, when heads are not a multiple of them or do not divide the
 * hidden size times expand_k and expand_v. */
pn_status pn_linear_shape_of(const char *block, int64_t hidden, int64_t heads, int64_t kv_heads, double expand_k,
                             double expand_v, pn_linear_shape *out);

/* Projections and decode state of such a block; conv_size 0: no convolutions. */
pn_qkv pn_linear_qkv(const pn_linear_shape *s, int64_t conv_size);

/* The norm is named g_norm_swish_gate.weight when fuse_norm, else g_norm.weight. */
pn_status pn_linear_rule_build(pn_block *b, pn_params *params, const pn_linear_shape *s, bool fuse_norm,
                               pn_linear_rule *w);

/* The output projection. */
void pn_linear_rule_map(const pn_linear_rule *w, const pn_linear_shape *s, pn_attention_map *map);

/* q [N, H dk], k [N, Hkv dk], v [N, Hkv dv]; g [N, Hkv dk] log decays of channels (vector_gate) or [N, H] of heads;
 * state tensor `s_index` is S [n, H, dk, dv] when state is given. */
pn_status pn_linear_rule_mix(const pn_linear_rule *w, const pn_linear_shape *s, pn_tape *t, pn_tensor *x, pn_tensor *q,
                             pn_tensor *k, pn_tensor *v, pn_tensor *g, bool vector_gate, const pn_docs *docs,
                             pn_state *state, int s_index, pn_tensor **y);

#endif
