/* Keys and values that softmax attention keeps while decoding: the state of the attention blocks.
 *
 *     k, v [n * capacity, Hkv d]      token p of sequence i is in row i * capacity + p mod capacity
 *
 * The capacity doubles when a sequence outgrows it, up to the window: from there on the rows of a sequence are a ring
 * that holds its last `window` tokens (blocks.md 3.5). */
#ifndef PN_BLOCKS_KV_CACHE_H
#define PN_BLOCKS_KV_CACHE_H

#include "block.h"

#include "attention/attention.h"

/* Adds the two tensors to an empty state. window 0: none. */
pn_status pn_kv_cache_create(pn_state *s, int64_t width, int64_t window);
/* For one more token of every sequence: room for it, which may move the tensors; where it goes and which keys it sees
 * (s->row, s->key_start, s->key_len). Both are part of pn_kv_cache_extend, and for those who do its other part again as
 * it was recorded (decode.h). */
pn_status pn_kv_cache_reserve(pn_state *s);
void pn_kv_cache_place(pn_state *s);

/* Stores the new rows *k and *v [tokens, width] of docs, and makes *k, *v and attr what the attention op needs for its
 * queries: the cache itself, or rows of the tape where a piece overwrites keys that its own first queries see.
 * attr->window: the window, 0 none; set to 0 where every key of *k is seen. */
pn_status pn_kv_cache_extend(pn_state *s, pn_tape *t, const pn_docs *docs, pn_tensor **k, pn_tensor **v,
                             pn_attention_attr *attr);

#endif
