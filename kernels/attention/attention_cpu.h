/* What the CPU forward and backward share: tile geometry, transposed panels of keys and values, visibility.
 *
 * A query tile is a run of tokens of one document with every query head of one key/value head: row i * group + g is
 * head g of the group at token i. So keys and values are read once for the whole group. Rows are worked in blocks of a
 * few, keys in tiles; a block computes only the columns, in steps of 16, that one of its rows sees. */
#ifndef PN_KERNELS_ATTENTION_CPU_H
#define PN_KERNELS_ATTENTION_CPU_H

#include "attention.h"

enum {
    PN_ATTENTION_KEYS = 256, /* keys of a tile */
    PN_ATTENTION_PANEL = 64, /* keys of a transposed panel; divides KEYS */
    PN_ATTENTION_BLOCK = 24, /* rows of a block */
    PN_ATTENTION_LANES = 16,
};

typedef struct pn_attention_tiles {
    int64_t heads, kv_heads, group, d;
    int64_t q_stride, kv_stride; /* floats from token to token */
    int64_t window;
    float scale;
    int64_t tokens, rows; /* of a full query tile: rows = tokens * group */
} pn_attention_tiles;

pn_attention_tiles pn_attention_tiles_of(const pn_attention_attr *a);

/* Bump allocation inside the scratch: bytes of n floats, kept 64-byte aligned. */
static inline size_t pn_attention_floats(int64_t n) {
    return ((size_t)n * sizeof(float) + 63) / 64 * 64;
}
/* The document whose run of tasks holds task x: start[] has n + 1 entries and does not fall. */
int64_t pn_attention_find(const int64_t *start, int64_t n, int64_t x);

/* Query tiles of a document. */
static inline int64_t pn_attention_tile_count(const pn_attention_tiles *g, const pn_attention_doc *x) {
    return (x->queries + g->tokens - 1) / g->tokens;
}
/* The first key of a document that is read, down to a panel border; key tiles and panels count from there. */
static inline int64_t pn_attention_base(const pn_attention_attr *a, const pn_attention_doc *x) {
    return pn_attention_first(a, pn_attention_position(x, 0)) / PN_ATTENTION_PANEL * PN_ATTENTION_PANEL;
}
static inline int64_t pn_attention_panel_count(const pn_attention_attr *a, const pn_attention_doc *x) {
    return (x->keys - pn_attention_base(a, x) + PN_ATTENTION_PANEL - 1) / PN_ATTENTION_PANEL;
}
/* Panel: d rows of PANEL keys, zeros past the last. src is the first key's row of one head, n the number of keys. */
void pn_attention_panel(const float *src, int64_t stride, int64_t d, int64_t n, float *panel);
/* Transposes every panel of every document whose panel_start[i + 1] > panel_start[i]; to be called by all threads of a
 * parallel region, ends with a barrier. Panel p of a document and head h is at ((panel_start + p) * kv_heads + h) * d *
 * PANEL. */
void pn_attention_panels(const pn_attention_attr *a, const pn_attention_tiles *g, const int64_t *panel_start,
                         const float *src, float *panels);

/* Query rows of a tile, times `scale`, side by side. */
void pn_attention_pack(const pn_attention_tiles *g, const float *src, int64_t tokens, float scale, float *dst);

/* C[m x n] = A B, or += with `add`; element (i, l) of A is a[i * a_row + l * a_col]. */
void pn_attention_product(int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_col, const float *b,
                          int64_t ldb, float *c, int64_t ldc, bool add);

/* Columns of a key tile from key j0 with n keys that the tokens standing at position .. last see between them, from a
 * multiple of 16 to a multiple of 16 (which may lie past n); empty: begin >= end. */
typedef struct pn_attention_columns {
    int64_t begin, end;
} pn_attention_columns;
static inline pn_attention_columns pn_attention_columns_of(const pn_attention_tiles *g, int64_t position, int64_t last,
                                                           int64_t j0, int64_t n) {
    int64_t lanes = PN_ATTENTION_LANES, end = last + 1 - j0 < n ? last + 1 - j0 : n;
    int64_t begin = g->window && position - g->window + 1 > j0 ? position - g->window + 1 - j0 : 0;
    if (end <= begin) return (pn_attention_columns){ 0, 0 };
    return (pn_attention_columns){ begin / lanes * lanes, (end + lanes - 1) / lanes * lanes };
}
/* scores[rows x columns] = q K^T for the columns of a key tile whose first panel is given. */
void pn_attention_scores(const pn_attention_tiles *g, const float *q, int64_t rows, const float *panel,
                         pn_attention_columns columns, float *scores);

pn_status pn_attention_cpu_forward(const pn_op_call *c);
pn_status pn_attention_cpu_backward(const pn_op_call *c);
size_t pn_attention_cpu_forward_bytes(const pn_op_call *c);
size_t pn_attention_cpu_backward_bytes(const pn_op_call *c);

#endif
