/* Scalar decays inside a chunk of up to 64 tokens, from a head's log decays g_1 .. g_n (blocks.md 1.9).
 *
 * L_i = g_1 + .. + g_i in double: only differences are ever exponentiated, and after a few strong decays float has lost
 * the digits of the small ones. All exponents are <= 0, so no decay, however strong, can overflow. */
#ifndef PN_KERNELS_CPU_CHUNK_DECAY_H
#define PN_KERNELS_CPU_CHUNK_DECAY_H

#include <stdint.h>

#include "docs.h"

typedef struct pn_chunk_decay {
    double L[PN_CHUNK];
    float in[PN_CHUNK];  /* e^{L_i}: from the chunk's start state to token i */
    float out[PN_CHUNK]; /* e^{L_C - L_i}: from token i to the chunk's end */
    float through;       /* e^{L_C} */
} pn_chunk_decay;

/* 1 <= n <= 64 tokens. g: the first one's, ld elements from token to token; NULL: no decay. */
void pn_chunk_decay_of(int64_t n, const float *g, int64_t ld, pn_chunk_decay *x);
/* E [n, 64]: e^{L_i - L_j} for j <= i, zeros above the diagonal up to a multiple of 16; beyond that untouched. */
void pn_chunk_decay_tile(int64_t n, const pn_chunk_decay *x, float *E);

#endif
