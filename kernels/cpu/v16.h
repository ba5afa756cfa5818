/* Vectors of 16 floats, and the sums and maxima across their lanes that compilers do one lane at a time.
 *
 * One register of AVX-512, two of AVX2, four of NEON: operators + - * work on all of them. Vectors go to functions by
 * address, so that no calling convention depends on the instruction set; everything is inlined. */
#ifndef PN_KERNELS_CPU_V16_H
#define PN_KERNELS_CPU_V16_H

#include <stdint.h>

#include "clones.h"

typedef float pn_v16 __attribute__((vector_size(64), aligned(4), may_alias)); /* loads and stores at any address */
typedef float pn_v8 __attribute__((vector_size(32)));
typedef float pn_v4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t pn_mask16 __attribute__((vector_size(64), aligned(4), may_alias));

/* The 4 sums of halves: lanes i, i + 4, i + 8, i + 12. */
PN_INLINE void pn_v16_quarter(const pn_v16 *v, pn_v4 *out) {
    pn_v8 half = __builtin_shufflevector(*v, *v, 0, 1, 2, 3, 4, 5, 6, 7) +
                 __builtin_shufflevector(*v, *v, 8, 9, 10, 11, 12, 13, 14, 15);
    *out = __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
}
PN_INLINE float pn_v16_sum(const pn_v16 *v) {
    pn_v4 q;
    pn_v16_quarter(v, &q);
    q += __builtin_shufflevector(q, q, 2, 3, 0, 1);
    return q[0] + q[1];
}
/* out[i] = the sum of vector i. */
PN_INLINE void pn_v16_sum4(const pn_v16 v[4], float out[4]) {
    pn_v4 a, b, c, d;
    pn_v16_quarter(v, &a);
    pn_v16_quarter(v + 1, &b);
    pn_v16_quarter(v + 2, &c);
    pn_v16_quarter(v + 3, &d);
    pn_v4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
    pn_v4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(pn_v4 *)out = __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

/* a = max(a, b) lane by lane; where b is NaN, a stays. */
PN_INLINE void pn_v16_max_into(pn_v16 *a, const pn_v16 *b) {
    pn_mask16 greater = *b > *a;
    *a = (pn_v16)((greater & (pn_mask16)*b) | (~greater & (pn_mask16)*a));
}
PN_INLINE float pn_v16_max(const pn_v16 *v) {
    float m = (*v)[0];
    pn_v16 x = *v, y = __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    pn_v16_max_into(&x, &y);
    y = __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    pn_v16_max_into(&x, &y);
    for (int i = 0; i < 4; i++) m = x[i] > m ? x[i] : m;
    return m;
}

/* sum_i a[i] b[i] */
PN_INLINE float pn_dotf(const float *a, const float *b, int64_t n) {
    pn_v16 sum = { 0 };
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) sum += *(const pn_v16 *)(a + i) * *(const pn_v16 *)(b + i);
    float total = pn_v16_sum(&sum);
    for (; i < n; i++) total += a[i] * b[i];
    return total;
}

#endif
