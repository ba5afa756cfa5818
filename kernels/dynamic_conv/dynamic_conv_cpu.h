/* What the CPU forward and backward share: blocks of channels, and their taps for a tile of tokens.
 *
 * Lanes are channels. The taps of a block for a tile of tokens are one product, [tokens, R] times [R, W * LANES], for
 * which the block's part of w2 is turned once; with W = 4 its columns fill the widest register tile. A thread works on
 * a group of neighbouring blocks whose turned parts stay in its level-2 cache: tile after tile, and within a tile block
 * after block, so that rows of c, v and their gradients are touched in long runs. The products ask for those of the
 * next tile. */
#ifndef PN_KERNELS_DYNAMIC_CONV_CPU_H
#define PN_KERNELS_DYNAMIC_CONV_CPU_H

#include "cpu/tile_mm.h"
#include "cpu/window.h"
#include "dynamic_conv.h"

enum {
    PN_DCONV_LANES = 16,    /* channels of a block; the last may have fewer, its other lanes are zeros */
    PN_DCONV_TILE = 64,     /* tokens */
    PN_DCONV_STRETCH = 512, /* tokens that a turned group serves: a multiple of TILE */
};

typedef struct pn_dconv {
    const pn_dynamic_conv_attr *attr;
    pn_window c;
    const float *h, *w2, *b2;
    int64_t tokens, channels, width, rank, cols; /* cols = W * LANES */
    int64_t blocks, group_blocks;                /* all, and at most in a group */
} pn_dconv;

/* The sizes alone. */
pn_dconv pn_dconv_sizes(const pn_op_call *c);
/* Floats of the histories, which all threads share. */
int64_t pn_dconv_history_floats(const pn_op_call *c);
pn_dconv pn_dconv_make(const pn_op_call *c, float *history);
/* Whether it is worth several threads. */
bool pn_dconv_is_large(const pn_dconv *d);

typedef struct pn_dconv_group { /* in a thread's own memory */
    int64_t first, n;           /* blocks */
    float *bias;                /* [blocks, W, LANES] */
    float *w2;                  /* [blocks, R, W, LANES] */
    float *taps;                /* [TILE, W, LANES] of the block at hand */
} pn_dconv_group;

int64_t pn_dconv_group_floats(const pn_dconv *d);
pn_dconv_group pn_dconv_group_take(const pn_dconv *d, float **at);
/* Makes it the group of blocks first .. end - 1, as many as it has room for. */
void pn_dconv_group_turn(const pn_dconv *d, int64_t first, int64_t end, pn_dconv_group *g);
/* The taps, with bias, of the group's block i for n tokens from t. */
void pn_dconv_taps(const pn_dconv *d, const pn_dconv_group *g, int64_t i, int64_t t, int64_t n, pn_ahead *ahead);
/* Adds to the list the group's part of tokens t .. t1, but at most a tile, of x [tokens, channels]. */
void pn_dconv_ahead(const pn_dconv *d, const pn_dconv_group *g, int64_t t, int64_t t1, const float *x, pn_ahead *ahead);

static inline int64_t pn_dconv_smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}
/* Channels of a block. */
static inline int64_t pn_dconv_lanes(const pn_dconv *d, int64_t block) {
    return pn_dconv_smaller(PN_DCONV_LANES, d->channels - block * PN_DCONV_LANES);
}
pn_status pn_dconv_backward(const pn_op_call *c);
size_t pn_dconv_backward_bytes(const pn_op_call *c);

#endif
