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

PN_CLONES void pn_chunk_decay_tile(int64_t n, const pn_chunk_decay *x, float *E) {
    for (int64_t i = 0; i < n; i++) {
        int64_t end = (i & ~(int64_t)15) + 16;
        double L = x->L[i];
#pragma omp simd
        for (int64_t j = 0; j < end; j++) {
            float below = j <= i ? (float)(L - x->L[j]) : -100.0f; /* masked before the exponential */
            E[i * PN_CHUNK + j] = pn_exp_nonposf(below);
        }
    }
}
