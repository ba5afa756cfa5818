/* What forward and backward of the chunkwise form do inside one chunk of up to 64 tokens (see dplr_cpu.c).
 *
 * Scores of pairs i >= j decay by e^{L_i - L_j}, channel by channel. They are a matrix product when each side carries
 * its share of the decay, x_i e^{L_i - R} and y_j e^{R - L_j} with one reference R for all pairs. R is the L of the
 * first token: a later one would make every result depend on it, if only by its rounding. Both exponents then stay
 * within the decay of the whole stretch, so a chunk is cut into blocks over which no channel decays by more than e^-40:
 * in RWKV-7, whose decay is bounded by e^-0.6065 per token, a chunk is always one block; with arbitrarily strong decays
 * a block is at least one token, over which nothing decays. The rows of a block see earlier blocks through the same
 * reference, to which their columns only decay further.
 *
 * a_i asks the state before token i has decayed it: its pairs are those of a query of token i - 1. */
#ifndef PN_KERNELS_DPLR_CHUNK_H
#define PN_KERNELS_DPLR_CHUNK_H

#include "dplr.h"
#include "cpu/rows.h"
#include "cpu/tile_mm.h"

enum { PN_DPLR_C = PN_CHUNK, PN_DPLR_TILE = PN_DPLR_C * PN_DPLR_C };

/* Sizes and strides of a call. */
typedef struct pn_dplr_dims {
    int64_t heads, dk, dv, size; /* size = dk dv */
    int64_t row;                 /* dk rounded up to 16: from token to token in tiles */
    int64_t ldk, ldv;            /* elements from token to token in q, k, a, b, g; in v, o */
    float scale;
} pn_dplr_dims;

/* A head's rows in a call from some token on, ldk apart. */
typedef struct pn_dplr_rows {
    const float *q, *k, *a, *b, *g;
} pn_dplr_rows;

/* One thread's tiles: [64, row] where not said otherwise. L_i = g_1 + .. + g_i in the chunk; R: of token i's block, for
 * a_i of that of token i - 1. */
typedef struct pn_dplr_tiles {
    int64_t n, blocks, first[PN_DPLR_C + 1]; /* tokens; blocks; their first tokens, and n after the last */
    float *up, *down;                        /* e^{L_i - R}, e^{R - L_i} */
    float *start, *end, *step;               /* of every block: e^R; e^{L_C - R}; e^{R - R of the block before} */
    float *through;                          /* [row] e^{L_C} */
    float *Q, *A;                            /* scale e^{L_i - R} q_i; e^{L_{i-1} - R} a_i, and a_0 as it is */
    float *K, *B;                            /* e^{R - L_i} k_i, b_i */
    float *Qin, *Ain;    /* scale e^{L_i} q_i, e^{L_{i-1}} a_i: ask the state at the chunk's start */
    float *Kout, *Bout;  /* e^{L_C - L_i} k_i, b_i: what is left at the chunk's end */
    float *QK, *QB, *AK; /* [64, 64] scores; zeros above the diagonal, in AK also on it */
    float *N;            /* [64, 64] minus the scores of a and b: (I + N) P = R; likewise */
    float *X;            /* inverses of the diagonal blocks of I + N */
    float *work[2];      /* K and B [dk, 64] transposed; rows that move from block to block */
    double *sums;        /* [2, row] and the L of references [64, row] */
    pn_ahead ahead;      /* what the next chunk will read */
} pn_dplr_tiles;

pn_dplr_dims pn_dplr_dims_of(const pn_op_call *c);
pn_dplr_rows pn_dplr_rows_of(const pn_op_call *c, int64_t k_at); /* of the first inputs' elements from k_at on */

size_t pn_dplr_tiles_floats(const pn_dplr_dims *d);
/* Takes its memory from *at, which moves on. */
pn_dplr_tiles pn_dplr_tiles_at(const pn_dplr_dims *d, float **at);

/* Blocks, decays, and q, k, a, b decayed by them. 1 <= n <= 64 tokens from x on. */
void pn_dplr_decays(const pn_dplr_dims *d, int64_t n, const pn_dplr_rows *x, pn_dplr_tiles *t);
/* Everything of a chunk that does not depend on values and states: the decays, then scores, N and X. */
void pn_dplr_chunk(const pn_dplr_dims *d, int64_t n, const pn_dplr_rows *x, pn_dplr_tiles *t);
/* P = (I + N)^-1 (AK V + Ain S): all p of the chunk for `cols` columns. V, P, R [n, cols], R is work; S [dk, cols];
 * NULL: zero. */
void pn_dplr_answers(const pn_dplr_dims *d, int64_t cols, const float *V, const float *S, float *R, float *P,
                     pn_dplr_tiles *t);

/* Gradients inside a chunk: tiles of one thread, S the state at the chunk's start, G the gradient of that at its end.
 */
typedef struct pn_dplr_grad {
    float *QK, *QB, *AK, *AB; /* [64, 64] gradients of scores, lower triangles (below the diagonal for a); destroyed */
    float *inQ, *inA;         /* [64, row] dO S^T, dR S^T */
    float *outK, *outB;       /* [64, row] V G^T, P G^T */
    float *SG;                /* [row] sums of the rows of S * G */
    float *dQ, *dA, *dK, *dB, *dL; /* [64, row] results: gradients of q, a, k, b, g */
    float *left;                   /* [64, row] work */
} pn_dplr_grad;

void pn_dplr_gradient(const pn_dplr_dims *d, const pn_dplr_rows *x, const pn_dplr_grad *grad, pn_dplr_tiles *t);

extern const pn_op_impl pn_dplr_cpu_step; /* decoding: dplr_cpu_step.c */
/* Backward of the chunkwise implementation: dplr_cpu_backward.c. */
pn_status pn_dplr_backward(const pn_op_call *c);
size_t pn_dplr_backward_floats(const pn_dplr_dims *d); /* scratch of one thread */

#endif
