/* Which weights of a linear block play the parts of softmax attention's: what it takes to start the block from the
 * attention it stands beside (blocks.md 11.2). A type says so in its `attention_map`; src/supernet/from_attention.h
 * does the rest.
 *
 * Every output head reads one head of each part: output head h reads head floor(h n / out_heads) of a part with n
 * heads. The heads of k divide those of q, and those of v the output heads. */
#ifndef PN_BLOCKS_ATTENTION_MAP_H
#define PN_BLOCKS_ATTENTION_MAP_H

#include "block.h"

enum { PN_MAP_Q, PN_MAP_K, PN_MAP_V, PN_MAP_PARTS, PN_MAP_VALUES = 4 };

/* Heads as rows of a projection: channel i of head h is row first + h width + i of w [rows, D], and of bias [rows]. */
typedef struct pn_head_rows {
    pn_tensor *w, *bias; /* bias NULL: none */
    int64_t first, heads, width;
} pn_head_rows;

struct pn_attention_map { /* tensors are the block's own, borrowed */
    pn_head_rows part[PN_MAP_PARTS];
    pn_tensor *out; /* [D, out_heads * width of v]: the last thing the block does */
    int64_t out_heads;
    pn_tensor *conv[3]; /* [channels, 1, W]: become the identity; NULL: none */
    /* Rows of the matrix that makes an output gate out of something constant, at first: those with a sum below 0 are
     * negated, so that the gate starts positive. NULL: none. */
    pn_tensor *gate_rows;
    struct { /* every element becomes this value */
        pn_tensor *weight;
        double value;
    } value[PN_MAP_VALUES];
    int n_values;
};

static inline void pn_attention_map_value(pn_attention_map *map, pn_tensor *weight, double value) {
    PN_ASSERT(map->n_values < PN_MAP_VALUES);
    map->value[map->n_values].weight = weight;
    map->value[map->n_values++].value = value;
}

/* Decays e^(-A dt), A = e^a_log, at the low end of A: they start slow. dt stays as drawn: where all of it is small, so
 * is the slope of its softplus, and the gates hardly learn. */
static inline void pn_attention_map_slow(pn_attention_map *map, pn_tensor *a_log) {
    pn_attention_map_value(map, a_log, 0);
}

#endif
