/* What forward and backward of the chunkwise form do inside one chunk of up to 64 tokens (see gated_delta_cpu.c). */
#ifndef PN_KERNELS_GATED_DELTA_CHUNK_H
#define PN_KERNELS_GATED_DELTA_CHUNK_H

#include "gated_delta.h"
#include "cpu/chunk_decay.h"
#include "cpu/rows.h"
#include "cpu/tile_mm.h"

enum { PN_DELTA_C = PN_CHUNK, PN_DELTA_TILE = PN_DELTA_C * PN_DELTA_C };

/* Sizes and strides of a call. */
typedef struct pn_delta_dims {
    int64_t heads, v_heads, group; /* group: value heads per query/key head */
    int64_t dk, dv, size;          /* size = dk dv */
    int64_t ldk, ldv;              /* elements from token to token in q, k; in v, o, e */
    int64_t chunk;                 /* tokens taken at once: 64 or 32 */
    float scale;
} pn_delta_dims;

/* The gates of a chunk and value head. */
typedef struct pn_delta_gates {
    pn_chunk_decay decay;
    float beta[PN_DELTA_C];
    float write[PN_DELTA_C]; /* beta e^{L_C - L_i}: from e_i to the chunk's end */
} pn_delta_gates;

/* One thread's tiles: [64, 64] where not said otherwise, row stride 64. */
typedef struct pn_delta_tiles {
    float *Q, *K;     /* copies of the head's queries and keys, rows next to each other: [2 n, dk], first the queries */
    float *KT;        /* [dk, 64] keys transposed */
    float *KK, *QK;   /* K K^T, Q K^T; the lower triangles */
    float *E, *A, *P; /* decays, strictly lower system, scaled masked scores; zero above the diagonal */
    float *X;         /* inverses of the diagonal blocks of I + A */
    pn_ahead ahead;   /* what the next chunk will read: 64 short runs far apart for each of q, k, v .. */
} pn_delta_tiles;

pn_delta_dims pn_delta_dims_of(const pn_op_call *c);

size_t pn_delta_tiles_floats(const pn_delta_dims *d);
/* Takes its memory from *at, which moves on. */
pn_delta_tiles pn_delta_tiles_at(const pn_delta_dims *d, float **at);

/* Fills Q, K, KT, KK and QK. n tokens. q, k: the head's first element of the chunk. */
void pn_delta_scores(const pn_delta_dims *d, int64_t n, const float *q, const float *k, pn_delta_tiles *t);
/* g (NULL: no decay) and beta: the value head's element of the chunk's first token, v_heads apart from token to token.
 */
void pn_delta_gates_of(const pn_delta_dims *d, int64_t n, const float *g, const float *beta, pn_delta_gates *gates);
/* E, A, P, X of a value head from its gates and the scores: A = row_i column_j <k_i, k_j> E_ij below the diagonal,
 * P = scale column_j <q_i, k_j> E_ij down from it. row, column: NULL for ones. */
void pn_delta_system(const pn_delta_dims *d, int64_t n, const pn_delta_gates *gates, const float *row,
                     const float *column, pn_delta_tiles *t);
/* next = e^{L_C} S + (write K)^T e, `cols` columns of the state at a chunk's end. S NULL: zero; it may be next itself.
 * keys: [n, dk] work. */
void pn_delta_next_state(const pn_delta_dims *d, int64_t n, int64_t cols, const pn_delta_gates *gates, const float *k,
                         int64_t ldk, const float *e, int64_t lde, const float *S, int64_t ldS, float *next,
                         int64_t ld_next, float *keys, pn_ahead *ahead);

extern const pn_op_impl pn_gated_delta_cpu_step; /* decoding: gated_delta_cpu_step.c */
/* Backward of the chunkwise implementation: gated_delta_cpu_backward.c. */
pn_status pn_delta_backward(const pn_op_call *c);
size_t pn_delta_backward_floats(const pn_delta_dims *d); /* scratch of one thread */

#endif
