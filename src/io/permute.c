#include "permute.h"

#include <xxhash.h>

static uint64_t mix(uint64_t seed, uint64_t round, uint64_t turn, uint64_t half) {
    const uint64_t words[] = { round, turn, half };
    return XXH3_64bits_withSeed(words, sizeof words, seed);
}

int64_t pn_permute(uint64_t seed, uint64_t round, int64_t n, int64_t at) {
    enum { TURNS = 4 };
    int half_bits = 1;
    while (half_bits < 31 && (INT64_C(1) << (2 * half_bits)) < n) half_bits++;
    const uint64_t mask = (UINT64_C(1) << half_bits) - 1;
    uint64_t x = (uint64_t)at;
    do {
        uint64_t left = x >> half_bits, right = x & mask;
        for (uint64_t turn = 0; turn < TURNS; turn++) {
            const uint64_t next = left ^ (mix(seed, round, turn, right) & mask);
            left = right;
            right = next;
        }
        x = left << half_bits | right;
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}
