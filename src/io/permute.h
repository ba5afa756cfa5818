/* A random order of 0 .. n - 1 that can be asked for one place at a time, without a table.
 *
 * A Feistel network over the smallest even number of bits that holds n, walked again while it lands outside (Black and
 * Rogaway, "Ciphers with arbitrary finite domains", 2002). */
#ifndef PN_IO_PERMUTE_H
#define PN_IO_PERMUTE_H

#include <stdint.h>

/* Where place `at` of the order goes: a bijection of 0 .. n - 1 for every (seed, round). n >= 1, 0 <= at < n. */
int64_t pn_permute(uint64_t seed, uint64_t round, int64_t n, int64_t at);

#endif
