#include "rng.h"

#include <math.h>
#include <string.h>

#include <xxhash.h>

static uint64_t splitmix(uint64_t *x) {
    uint64_t z = (*x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t rotl(uint64_t x, int k) {
    return (x << k) | (x >> (64 - k));
}

void pn_rng_stream(uint64_t seed, const char *name, uint64_t index, pn_rng *out) {
    uint64_t x = XXH64(name, strlen(name), seed);
    x ^= splitmix(&index); /* index is ours by value */
    for (int i = 0; i < 4; i++) out->s[i] = splitmix(&x);
}

uint64_t pn_rng_u64(pn_rng *r) {
    uint64_t *s = r->s, result = rotl(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t pn_rng_below(pn_rng *r, uint64_t n) {
    uint64_t reject = -n % n; /* 2^64 mod n: the draws that would favour small results */
    for (;;) {
        uint64_t x = pn_rng_u64(r);
        if (x >= reject) return x % n;
    }
}

double pn_rng_uniform(pn_rng *r) {
    return (double)(pn_rng_u64(r) >> 11) * 0x1p-53;
}

double pn_rng_normal(pn_rng *r) {
    double u = 1 - pn_rng_uniform(r), v = pn_rng_uniform(r);
    return sqrt(-2 * log(u)) * cos(6.283185307179586476925286766559 * v);
}
