/* First values of a weight. */
#ifndef PN_BLOCKS_INIT_H
#define PN_BLOCKS_INIT_H

#include "rng.h"
#include "tensor.h"

/* Element i of n in row-major order, for the kinds that depend on it. */
typedef enum pn_init_kind {
    PN_INIT_ZEROS,
    PN_INIT_ONES,
    PN_INIT_NORMAL,        /* mean 0, standard deviation a */
    PN_INIT_UNIFORM,       /* a .. b */
    PN_INIT_LOG_UNIFORM,   /* log of a uniform draw in (a, b): A_log (blocks.md 8.1) */
    PN_INIT_DT_BIAS,       /* inverse softplus of dt, dt log-uniform in a .. b, at least 1e-4 (blocks.md 6.1) */
    PN_INIT_IDENTITY_TAPS, /* every group of a values: 0, ..., 0, 1: a causal convolution that passes its input through
                            */
    PN_INIT_CONSTANT,      /* a */
    PN_INIT_ORTHOGONAL,    /* a times a uniformly random matrix of orthonormal rows, or columns when those are fewer */
    PN_INIT_LINE,          /* from a, the first, to b, the last */
    PN_INIT_TOKEN_SHIFT,   /* 1 - (i/n)^a: RWKV-7 (blocks.md 9.2), as the next two */
    PN_INIT_RWKV_DECAY, /* 6 (i/(n-1))^a - 5.5 + 2.5 z, z the signed square of a ramp from -1 to 1 over each b values */
    PN_INIT_RWKV_RATE   /* 0.4 (i/(n-1) - 1/2) - 0.19 + 0.3 z likewise */
} pn_init_kind;

typedef struct pn_init {
    pn_init_kind kind;
    double a, b;
} pn_init;

/* Fills an F32 or F64 tensor; the same draws for both, whatever the number of threads. PN_MEMORY: an orthogonal matrix
 * needs room of its own. */
pn_status pn_init_fill(const pn_init *init, pn_rng *rng, pn_tensor *value);

#endif
