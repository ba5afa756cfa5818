#include "chunk_decay.h"

#include "clones.h"
#include "fast_math.h"

static PN_CLONES void factors(int64_t n, pn_chunk_decay *x) {
    double last = x->L[n - 1];
    for (int64_t i = 0; i < n; i++) {
        x->in[i] = pn_exp_nonposf((float)x->L[i]);
        x->out[i] = pn_exp_nonposf((float)(last - x->L[i]));
    }
    x->through = x->in[n - 1];
}

void pn_chunk_decay_of(int64_t n, const float *g, int64_t ld, pn_chunk_decay *x) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += g ? (double)g[i * ld] : 0;
        x->L[i] = sum;
    }
    for (int64_t i = n; i < PN_CHUNK; i++) x->L[i] = 0; /* read in whole vectors, then masked */
    factors(n, x);
}

/* Blocks of 16 x 16. On the diagonal every element is an exponential of its own. Before it, the decay from j to i is
 * that from j to the end of the block before i's, times that from there to i, which all columns and all rows share. */
PN_CLONES void pn_chunk_decay_tile(int64_t n, const pn_chunk_decay *x, float *E) {
    float to_block[PN_CHUNK];
    for (int64_t first = 0; first < n; first += 16) {
        double start = first > 0 ? x->L[first - 1] : 0;
#pragma omp simd
        for (int64_t j = 0; j < first; j++) to_block[j] = pn_exp_nonposf((float)(start - x->L[j]));
        for (int64_t i = first; i < n && i < first + 16; i++) {
            double L = x->L[i];
            float *row = E + i * PN_CHUNK, from_block = pn_exp_nonposf((float)(L - start));
#pragma omp simd
            for (int64_t j = 0; j < first; j++) row[j] = from_block * to_block[j];
#pragma omp simd
            for (int64_t j = first; j < first + 16; j++) {
                float below = j <= i ? (float)(L - x->L[j]) : -100.0f; /* masked before the exponential */
                row[j] = pn_exp_nonposf(below);
            }
        }
    }
}
