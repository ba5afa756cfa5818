/* What the CPU forward and backward share: tile geometry, scratch layout, and the exponential of a score tile. */
#ifndef PN_KERNELS_ATTENTION_CPU_H
#define PN_KERNELS_ATTENTION_CPU_H

#include <cblas.h>

#include "attention.h"

enum {
    PN_ATTENTION_KEYS = 128, /* keys of a tile; a multiple of PN_ATTENTION_LANES */
    PN_ATTENTION_LANES = 16,
};

/* A tile is a run of query tokens of one document with every query head of one key/value head: row i * group + g is
 * head g of the group at token i. So one product with a key tile serves the whole group, and channels of a row are
 * contiguous in q and o. */
typedef struct pn_attention_tiles {
    int64_t heads, kv_heads, group, d;
    int64_t q_stride, kv_stride; /* floats from token to token */
    int64_t window;
    float scale;
    int64_t tokens, rows; /* of a full tile: rows = tokens * group */
} pn_attention_tiles;

pn_attention_tiles pn_attention_tiles_of(const pn_attention_attr *a);

/* Bump allocation inside the scratch: bytes of n floats, kept 64-byte aligned. */
static inline size_t pn_attention_floats(int64_t n) {
    return ((size_t)n * sizeof(float) + 63) / 64 * 64;
}
/* The document whose run of tasks holds task x: start[] has n + 1 entries and does not fall. */
int64_t pn_attention_find(const int64_t *start, int64_t n, int64_t x);

/* Query rows of a tile, times `scale`, side by side. */
void pn_attention_pack(const pn_attention_tiles *g, const float *src, int64_t tokens, float scale, float *dst);

/* The first key that row's token sees in a tile starting at key j0 with n keys, and the end: may be empty. */
static inline void pn_attention_visible(const pn_attention_tiles *g, int64_t position, int64_t j0, int64_t n,
                                        int64_t *begin, int64_t *end) {
    int64_t first = g->window && position >= g->window ? position - g->window + 1 : 0;
    *begin = first > j0 ? first - j0 : 0;
    *end = position + 1 - j0 < n ? position + 1 - j0 : n;
    if (*end < *begin) *end = *begin = 0;
}

pn_status pn_attention_cpu_forward(const pn_op_call *c);
pn_status pn_attention_cpu_backward(const pn_op_call *c);
size_t pn_attention_cpu_forward_bytes(const pn_op_call *c);
size_t pn_attention_cpu_backward_bytes(const pn_op_call *c);

#endif
