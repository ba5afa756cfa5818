/* Causal softmax attention with grouped key/value heads, packed documents and an optional sliding window
 * (blocks.md 3.2 - 3.4).
 *
 * q [N, heads * d], k and v [M, kv_heads * d], q and k already rotated. Query head h reads key/value head
 * h / (heads / kv_heads). Outputs: o [N, heads * d]; lse [N, heads], the natural log of the softmax denominator, kept
 * for backward and not differentiable. Memory is linear in the number of tokens. */
#ifndef PN_KERNELS_ATTENTION_H
#define PN_KERNELS_ATTENTION_H

#include "op.h"

typedef struct pn_attention_attr {
    pn_docs docs; /* of the queries */
    /* Training: both NULL, a document's keys are its own tokens and M = N. From a cache: for every document the first
     * row in k and v and the number of keys; its last query sees the last key, query i of L sees keys
     * j <= key_len - L + i. Documents may share keys (a common prefix). */
    const int64_t *key_start, *key_len;
    int heads, kv_heads, head_dim; /* heads is a multiple of kv_heads */
    int64_t window;                /* a query sees this many keys, itself included; 0: all before it */
    double scale;                  /* of the scores; head_dim^-1/2 in every model so far */
} pn_attention_attr;

/* Rows of one document in q and in k, v. */
typedef struct pn_attention_doc {
    int64_t query0, queries, key0, keys;
} pn_attention_doc;

static inline pn_attention_doc pn_attention_doc_at(const pn_attention_attr *a, int64_t i) {
    int64_t query0 = a->docs.offset[i], queries = a->docs.offset[i + 1] - query0;
    if (!a->key_start) return (pn_attention_doc){ query0, queries, query0, queries };
    return (pn_attention_doc){ query0, queries, a->key_start[i], a->key_len[i] };
}
/* The key at which query i of a document stands: it sees keys pn_attention_first .. position. */
static inline int64_t pn_attention_position(const pn_attention_doc *d, int64_t i) {
    return d->keys - d->queries + i;
}
static inline int64_t pn_attention_first(const pn_attention_attr *a, int64_t position) {
    return a->window && position >= a->window ? position - a->window + 1 : 0;
}

static inline pn_status pn_attention(pn_tape *t, pn_tensor *q, pn_tensor *k, pn_tensor *v,
                                     const pn_attention_attr *attr, pn_tensor **o) {
    pn_tensor *in[] = { q, k, v }, *out[2];
    PN_TRY(pn_tape_call(t, &pn_op_attention, attr, sizeof *attr, in, 3, out, 2));
    *o = out[0];
    return PN_OK;
}

#endif
