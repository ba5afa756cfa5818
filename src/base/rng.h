/* Random streams: the same (seed, name, index) gives the same numbers on every machine, whatever ran before.
 *
 * xoshiro256++ seeded by hashing the three; the state is a plain struct that can be copied and stored. */
#ifndef PN_BASE_RNG_H
#define PN_BASE_RNG_H

#include <stdint.h>

typedef struct pn_rng {
    uint64_t s[4];
} pn_rng;

void pn_rng_stream(uint64_t seed, const char *name, uint64_t index, pn_rng *out);
uint64_t pn_rng_u64(pn_rng *r);
/* As n calls of pn_rng_u64 would leave it, in microseconds: threads can draw parts of one stream. */
void pn_rng_skip(pn_rng *r, uint64_t n);
/* Unbiased in 0 .. n - 1; n >= 1. */
uint64_t pn_rng_below(pn_rng *r, uint64_t n);
/* [0, 1) with 53 bits. */
double pn_rng_uniform(pn_rng *r);
/* Mean 0, variance 1: Box-Muller, one value per call (two uniforms, two calls of pn_rng_u64), so the stream position is
 * plain to see. */
double pn_rng_normal(pn_rng *r);

#endif
