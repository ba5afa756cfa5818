/* What full and sliding-window attention share (blocks.md 3): rotary positions, grouped keys and values, the weights.
 *
 *     q, k, v = W x + b;  q, k rotated;  o_i = sum_j softmax_j(<q_i, k_j> / sqrt d) v_j;  y = W_o o */
#ifndef PN_BLOCKS_SOFTMAX_ATTENTION_H
#define PN_BLOCKS_SOFTMAX_ATTENTION_H

#include "block.h"

typedef struct pn_softmax_attention {
    pn_tensor *wq, *wk, *wv, *wo; /* [Hq d, D], [Hkv d, D], [Hkv d, D], [D, Hq d] */
    pn_tensor *bq, *bk, *bv;      /* [Hq d], [Hkv d], [Hkv d]; NULL without QKV bias */
} pn_softmax_attention;

/* For a type whose data is a pn_softmax_attention. */
pn_status pn_softmax_attention_build(pn_block *b, pn_params *params);

/* j runs over the last `window` keys, the query's own included; 0: over all of them. A state is that of
 * pn_softmax_attention_state with the same window. */
pn_status pn_softmax_attention_mix(pn_block *b, int64_t window, pn_tape *t, pn_tensor *x, const pn_docs *docs,
                                   pn_state *state, pn_tensor **y);
/* Rotated keys, and values: kv_cache.h. */
pn_status pn_softmax_attention_state(const pn_block *b, int64_t window, pn_state *s);
double pn_softmax_attention_cache_bytes(const pn_dims *dims, int64_t keys, size_t activation_bytes);

#endif
