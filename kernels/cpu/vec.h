/* Short vectors, and the sums and maxima across their lanes that compilers do one lane at a time.
 *
 * pn_vec is one register of the baseline (8 floats with AVX2, 4 elsewhere): wider types than the baseline has would go
 * through memory there. Vectors go to functions by address, so that no calling convention depends on the instruction
 * set; everything is inlined. */
#ifndef PN_KERNELS_CPU_VEC_H
#define PN_KERNELS_CPU_VEC_H

#include <stdint.h>

#include "clones.h"

/* aligned(4), may_alias: loads and stores through a cast pointer at any address. */
typedef float pn_vec4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float pn_vec8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float pn_vec16 __attribute__((vector_size(64), aligned(4), may_alias));
#if defined(__AVX2__)
enum { PN_VEC = 8 };
typedef pn_vec8 pn_vec;
typedef int32_t pn_vec_mask __attribute__((vector_size(32), aligned(4), may_alias));
#else
enum { PN_VEC = 4 };
typedef pn_vec4 pn_vec;
typedef int32_t pn_vec_mask __attribute__((vector_size(16), aligned(4), may_alias));
#endif

/* Four lanes with the same sum. */
PN_INLINE void pn_vec_fold(const pn_vec *v, pn_vec4 *out) {
#if defined(__AVX2__)
    *out = __builtin_shufflevector(*v, *v, 0, 1, 2, 3) + __builtin_shufflevector(*v, *v, 4, 5, 6, 7);
#else
    *out = *v;
#endif
}
PN_INLINE float pn_vec_sum(const pn_vec *v) {
    pn_vec4 q;
    pn_vec_fold(v, &q);
    q += __builtin_shufflevector(q, q, 2, 3, 0, 1);
    return q[0] + q[1];
}
/* out[i] = the sum of vector i. */
PN_INLINE void pn_vec_sum4(const pn_vec v[4], float out[4]) {
    pn_vec4 a, b, c, d;
    pn_vec_fold(v, &a);
    pn_vec_fold(v + 1, &b);
    pn_vec_fold(v + 2, &c);
    pn_vec_fold(v + 3, &d);
    pn_vec4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
    pn_vec4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(pn_vec4 *)out = __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

/* a = max(a, b) lane by lane; where b is NaN, a stays. */
PN_INLINE void pn_vec_max_into(pn_vec *a, const pn_vec *b) {
    pn_vec_mask greater = *b > *a;
    *a = (pn_vec)((greater & (pn_vec_mask)*b) | (~greater & (pn_vec_mask)*a));
}
/* The largest of the n floats at x and of m; n is a multiple of PN_VEC. */
PN_INLINE float pn_vec_max(const float *x, int64_t n, float m) {
    pn_vec most = m - (pn_vec){ 0 };
    for (int64_t i = 0; i < n; i += PN_VEC) pn_vec_max_into(&most, (const pn_vec *)(x + i));
    for (int i = 0; i < PN_VEC; i++) m = most[i] > m ? most[i] : m;
    return m;
}

/* sum_i a[i] b[i] */
PN_INLINE float pn_dotf(const float *a, const float *b, int64_t n) {
    pn_vec sum = { 0 }, next = { 0 };
    int64_t i = 0;
    for (; i + 2 * PN_VEC <= n; i += 2 * PN_VEC) {
        sum += *(const pn_vec *)(a + i) * *(const pn_vec *)(b + i);
        next += *(const pn_vec *)(a + i + PN_VEC) * *(const pn_vec *)(b + i + PN_VEC);
    }
    sum += next;
    float total = pn_vec_sum(&sum);
    for (; i < n; i++) total += a[i] * b[i];
    return total;
}

#endif
