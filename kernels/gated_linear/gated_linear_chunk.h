/* What forward and backward of the chunkwise form do inside one chunk of up to 64 tokens (see gated_linear_cpu.c).
 *
 * A chunk reaches the rest through four things, whatever its decays: queries decayed from the chunk's start, keys
 * decayed to its end, masked scores, and the decay of the state. Scalar and vector decays differ in how these come
 * about and in how gradients pass through them: gated_linear_scalar.c, gated_linear_vector.c. */
#ifndef PN_KERNELS_GATED_LINEAR_CHUNK_H
#define PN_KERNELS_GATED_LINEAR_CHUNK_H

#include "gated_linear.h"
#include "cpu/chunk_decay.h"
#include "cpu/rows.h"
#include "cpu/tile_mm.h"

enum { PN_GLIN_C = PN_CHUNK, PN_GLIN_TILE = PN_GLIN_C * PN_GLIN_C, PN_GLIN_B = 16 /* tokens of a sub-block */ };

/* Sizes and strides of a call. */
typedef struct pn_glin_dims {
    int64_t heads, groups;                      /* groups of neighbouring heads that share nothing with other groups */
    int64_t q_share, k_share, v_share, g_share; /* heads per head of q, k, v, g */
    int64_t dk, dv, size;                       /* size = dk dv */
    int64_t row;                                /* dk rounded up to 16: from token to token in tiles */
    int64_t ldq, ldk, ldv, ldg, ldo;            /* elements from token to token in q, k, v, g, o */
    float scale;
    bool vector; /* a decay for each channel */
} pn_glin_dims;

/* One thread's tiles: [64, row] where not said otherwise. Rows past the chunk's tokens up to a multiple of 16, and
 * channels past dk, are zeros in Q and K. */
typedef struct pn_glin_tiles {
    float *Q, *K;   /* scale * q, k */
    float *Qin;     /* e^{L_i} Q_i: asks the state at the chunk's start */
    float *Kout;    /* e^{L_C - L_i} K_i: what is left at the chunk's end */
    float *A;       /* [64, 64] sum_n Q_i[n] K_j[n] e^{L_i[n] - L_j[n]}, zeros above the diagonal */
    float *through; /* [row] e^{L_C} */
    float *work;
    pn_chunk_decay decay;       /* scalar decays */
    float *E;                   /* [64, 64] scalar: e^{L_i - L_j} */
    float *a, *pre, *suf;       /* vector: e^{g_i}; decay from the sub-block's start to i, from i to its end */
    float *block, *start, *end; /* [4, row] vector: decay of a sub-block, of what precedes it, of what follows it */
    pn_ahead ahead;             /* what the next chunk will read */
} pn_glin_tiles;

pn_glin_dims pn_glin_dims_of(const pn_op_call *c);
/* Where token t of head j starts in a tensor with `share` heads per own head of `width` channels. */
static inline int64_t pn_glin_at(int64_t t, int64_t ld, int64_t j, int64_t share, int64_t width) {
    return t * ld + j / share * width;
}

size_t pn_glin_tiles_floats(const pn_glin_dims *d);
/* Takes its memory from *at, which moves on. */
pn_glin_tiles pn_glin_tiles_at(const pn_glin_dims *d, float **at);

/* Fills Q and K, then Qin, Kout, A and through. n tokens; q, k, g: the head's elements of the first one; g NULL: no
 * decay. */
void pn_glin_chunk(const pn_glin_dims *d, int64_t n, const float *q, const float *k, const float *g, pn_glin_tiles *t);
void pn_glin_scalar_chunk(const pn_glin_dims *d, int64_t n, const float *g, pn_glin_tiles *t);
void pn_glin_vector_chunk(const pn_glin_dims *d, int64_t n, const float *g, pn_glin_tiles *t);

/* Gradients inside a chunk. S is the state at its start, G the gradient of the state at its end. */
typedef struct pn_glin_grad {
    float *dA;      /* [64, 64] dO V^T, zeros above the diagonal and from row n on; overwritten */
    float *R, *X;   /* [64, row] dO S^T and V G^T; NULL: zero */
    float *SG;      /* [row] sums of the rows of S * G; NULL: zero */
    float *dQ, *dK; /* [64, row] results, written: gradients of Q (scaled queries) and K */
    float *dL;      /* [64, row] work */
    float *dg;      /* added to: the first token's element, ldg apart; NULL: not wanted */
} pn_glin_grad;

void pn_glin_scalar_gradient(const pn_glin_dims *d, int64_t n, const pn_glin_grad *x, pn_glin_tiles *t);
void pn_glin_vector_gradient(const pn_glin_dims *d, int64_t n, const pn_glin_grad *x, pn_glin_tiles *t);

extern const pn_op_impl pn_gated_linear_cpu_step; /* decoding: gated_linear_cpu_step.c */
/* Backward of the chunkwise implementation: gated_linear_cpu_backward.c. */
pn_status pn_glin_backward(const pn_op_call *c);
size_t pn_glin_backward_floats(const pn_glin_dims *d); /* scratch of one thread */

#endif
