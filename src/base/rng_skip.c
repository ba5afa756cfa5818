/* A step of the generator is linear over bits, so n of them are the n-th power of a matrix: products of its powers of
 * two, which are squared once. */
#include "rng.h"

#include <pthread.h>
#include <string.h>

enum { BITS = 256, WORDS = BITS / 64, POWERS = 64 };

/* column[b]: what becomes of a state with bit b alone. */
typedef struct steps {
    pn_rng column[BITS];
} steps;

static steps power[POWERS]; /* power[k]: 2^k steps */

static void apply(const steps *m, pn_rng *r) {
    pn_rng sum = { { 0 } };
    for (int b = 0; b < BITS; b++) {
        const uint64_t all = -(r->s[b / 64] >> (b % 64) & 1);
        for (int w = 0; w < WORDS; w++) sum.s[w] ^= m->column[b].s[w] & all;
    }
    *r = sum;
}

static void make_powers(void) {
    for (int b = 0; b < BITS; b++) {
        pn_rng *r = &power[0].column[b];
        r->s[b / 64] = UINT64_C(1) << (b % 64);
        (void)pn_rng_u64(r);
    }
    for (int k = 1; k < POWERS; k++) {
        power[k] = power[k - 1];
        for (int b = 0; b < BITS; b++) apply(&power[k - 1], &power[k].column[b]);
    }
}

void pn_rng_skip(pn_rng *r, uint64_t n) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, make_powers);
    for (int k = 0; n; k++, n >>= 1)
        if (n & 1) apply(&power[k], r);
}
