/* Elementary functions in float that compilers vectorise: no branches, no tables, no calls.
 *
 * Each is accurate to 3e-7 relative wherever the result is a normal number (measured over the whole range by
 * tests/unit/fast_math.c); below that the error is at most two units of the smallest denormal. NaN gives NaN. The fused
 * multiply-adds are written out because ISO C mode does not contract expressions. */
#ifndef PN_KERNELS_CPU_FAST_MATH_H
#define PN_KERNELS_CPU_FAST_MATH_H

#include <stdint.h>
#include <string.h>

#include "clones.h"

PN_INLINE uint32_t pn_float_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}
PN_INLINE float pn_bits_float(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
PN_INLINE float pn_fmaf(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}

/* e^x. 0 below -104, infinity above 88.73.
 * x = n ln 2 + r with |r| <= ln 2 / 2; e^r = 1 + r + r^2 q(r), q of degree 4 (error 1.1e-8); 2^n in two factors, so
 * that results below 2^-126 and the last binade before overflow come out right. */
PN_INLINE float pn_expf(float x) {
    const float to_int = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float t = pn_fmaf(x, 1.44269504f, to_int), n = t - to_int;
    float r = pn_fmaf(n, -0.693359375f, x);
    r = pn_fmaf(n, 2.12194440e-4f, r);
    float q = pn_fmaf(1.39262134633e-3f, r, 8.36320297158e-3f);
    q = pn_fmaf(q, r, 4.16665544377e-2f);
    q = pn_fmaf(q, r, 1.6666576846e-1f);
    q = pn_fmaf(q, r, 0.5f);
    float e = pn_fmaf(r * r, q, r) + 1.0f;
    int32_t i = (int32_t)(pn_float_bits(t) - pn_float_bits(to_int)), half = i >> 1;
    float s0 = pn_bits_float((uint32_t)(half + 127) << 23), s1 = pn_bits_float((uint32_t)(i - half + 127) << 23);
    return e * s0 * s1;
}

/* e^x for x <= 0, for weights that are added to others near 1: a third fewer operations, 0 below -87.3. */
PN_INLINE float pn_exp_nonposf(float x) {
    const float to_exponent = 12583039.0f; /* 1.5 * 2^23 + 127: the low bits are the exponent of 2^n */
    float t = pn_fmaf(x, 1.44269504f, to_exponent), n = t - to_exponent;
    float r = pn_fmaf(n, -0.693359375f, x);
    r = pn_fmaf(n, 2.12194440e-4f, r);
    float q = pn_fmaf(1.39262134633e-3f, r, 8.36320297158e-3f);
    q = pn_fmaf(q, r, 4.16665544377e-2f);
    q = pn_fmaf(q, r, 1.6666576846e-1f);
    q = pn_fmaf(q, r, 0.5f);
    float e = pn_fmaf(r * r, q, r) + 1.0f;
    return x < -87.3f ? 0.0f : e * pn_bits_float(pn_float_bits(t) << 23);
}

/* 1 / (1 + e^-x), from e^-|x| so that neither tail overflows. */
PN_INLINE float pn_sigmoidf(float x) {
    float z = pn_expf(-__builtin_fabsf(x));
    return (x < 0.0f ? z : 1.0f) / (1.0f + z);
}

/* tanh: x + x^3 p(x^2) below 0.6, p of degree 4 (error 9.6e-9), so that small x keep their accuracy; (1 - z) / (1 + z),
 * z = e^-2|x|, from there on. */
PN_INLINE float pn_tanhf(float x) {
    float a = __builtin_fabsf(x), z = pn_expf(-2.0f * a), far = (1.0f - z) / (1.0f + z), u = x * x;
    float p = pn_fmaf(-6.2691197e-3f, u, 2.11109590e-2f);
    p = pn_fmaf(p, u, -5.38739488e-2f);
    p = pn_fmaf(p, u, 0.133329154f);
    p = pn_fmaf(p, u, -0.333333303f);
    far = x < 0.0f ? -far : far;
    return a < 0.6f ? pn_fmaf(x * u, p, x) : far;
}

/* x sig(x); -0 at minus infinity. */
PN_INLINE float pn_siluf(float x) {
    float factor = x < -128.0f ? -128.0f : x; /* sig is 0 there; keeps -infinity * 0 away */
    return factor * pn_sigmoidf(x);
}
/* d silu / dx = sig(x) (1 + x (1 - sig(x))). Its zero near x = -1.278 is relative to 1, as for any sum. */
PN_INLINE float pn_silu_gradf(float x) {
    float clipped = x < -128.0f ? -128.0f : x > 128.0f ? 128.0f : x;
    float z = pn_expf(-__builtin_fabsf(clipped)), d = 1.0f / (1.0f + z);
    float s = (clipped < 0.0f ? z : 1.0f) * d, not_s = (clipped < 0.0f ? 1.0f : z) * d;
    return s * pn_fmaf(clipped, not_s, 1.0f);
}

/* log(1 + e^x) = max(x, 0) + log1p(z), z = e^-|x|; log1p(z) = 2 atanh(s), s = z / (2 + z) <= 1/3, by a polynomial in
 * s^2 (error 1.6e-8). logsigmoid(x) = -softplus(-x). */
PN_INLINE float pn_softplusf(float x) {
    float z = pn_expf(-__builtin_fabsf(x)), s = z / (2.0f + z), u = s * s;
    float g = pn_fmaf(0.134257490114f, u, 0.141183099027f);
    g = pn_fmaf(g, u, 0.200037803225f);
    g = pn_fmaf(g, u, 0.333333201683f);
    float log1p_z = pn_fmaf(2.0f * s * u, g, 2.0f * s);
    return (x < 0.0f ? 0.0f : x) + log1p_z;
}

#endif
