/* Conversion between element types. Narrowing rounds to nearest, ties to even; NaN stays NaN. */
#include "tensor.h"

#include <string.h>

static inline float bf16_to_f32(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint16_t f32_to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x0040u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static inline float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 0x1fu, mantissa = h & 0x3ffu, u;
    if (exponent == 31) {
        u = sign | 0x7f800000u | (mantissa << 13);
    } else if (exponent) {
        u = sign | ((exponent + 112) << 23) | (mantissa << 13);
    } else {
        float f = (float)mantissa * 0x1p-24f; /* subnormal or zero: exact */
        return sign ? -f : f;
    }
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint16_t f32_to_f16(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    uint16_t sign = (uint16_t)((u >> 16) & 0x8000u);
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return sign | 0x7e00u;
    if (u >= 0x477ff000u) return sign | 0x7c00u; /* 65520 and above round to infinity */
    if (u < 0x38800000u) {                       /* below 2^-14: adding 0.5 lines the subnormal's bits up and rounds */
        float x;
        memcpy(&x, &u, sizeof x);
        x += 0.5f;
        memcpy(&u, &x, sizeof u);
        return sign | (uint16_t)(u - 0x3f000000u);
    }
    u += 0xfffu + ((u >> 13) & 1u);
    return sign | (uint16_t)((u - 0x38000000u) >> 13);
}

/* A double rounded to float so that a second rounding to a narrower type is right: a result that is not exact gets an
 * odd last bit, which no tie of the narrower type has. */
static inline float f64_to_f32_odd(double x) {
    float f = (float)x;
    if ((double)f == x || f != f || x > 0x1.fffffep127 || x < -0x1.fffffep127) return f;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    double magnitude = x < 0 ? -x : x, rounded = f < 0 ? -(double)f : (double)f;
    if (rounded > magnitude) u--; /* toward zero, then odd */
    u |= 1u;
    memcpy(&f, &u, sizeof f);
    return f;
}

static double load(const void *p, pn_dtype type, int64_t i) {
    switch (type) {
    case PN_F32: return ((const float *)p)[i];
    case PN_F64: return ((const double *)p)[i];
    case PN_BF16: return bf16_to_f32(((const uint16_t *)p)[i]);
    case PN_F16: return f16_to_f32(((const uint16_t *)p)[i]);
    case PN_I32: return ((const int32_t *)p)[i];
    case PN_I64: return (double)((const int64_t *)p)[i];
    case PN_U8: return ((const uint8_t *)p)[i];
    case PN_DTYPES: break;
    }
    PN_ASSERT(!"a dtype");
}

static void store(void *p, pn_dtype type, int64_t i, double x) {
    switch (type) {
    case PN_F32: ((float *)p)[i] = (float)x; return;
    case PN_F64: ((double *)p)[i] = x; return;
    case PN_BF16: ((uint16_t *)p)[i] = f32_to_bf16(f64_to_f32_odd(x)); return;
    case PN_F16: ((uint16_t *)p)[i] = f32_to_f16(f64_to_f32_odd(x)); return;
    case PN_I32: ((int32_t *)p)[i] = (int32_t)x; return;
    case PN_I64: ((int64_t *)p)[i] = (int64_t)x; return;
    case PN_U8: ((uint8_t *)p)[i] = (uint8_t)x; return;
    case PN_DTYPES: break;
    }
    PN_ASSERT(!"a dtype");
}

/* The pairs that whole checkpoints and activation stores go through get loops the compiler vectorises. */
static void convert(void *dst, pn_dtype dst_type, const void *src, pn_dtype src_type, int64_t n) {
    if (dst_type == PN_F32 && src_type == PN_BF16) {
        for (int64_t i = 0; i < n; i++) ((float *)dst)[i] = bf16_to_f32(((const uint16_t *)src)[i]);
    } else if (dst_type == PN_F32 && src_type == PN_F16) {
        for (int64_t i = 0; i < n; i++) ((float *)dst)[i] = f16_to_f32(((const uint16_t *)src)[i]);
    } else if (dst_type == PN_BF16 && src_type == PN_F32) {
        for (int64_t i = 0; i < n; i++) ((uint16_t *)dst)[i] = f32_to_bf16(((const float *)src)[i]);
    } else {
        for (int64_t i = 0; i < n; i++) store(dst, dst_type, i, load(src, src_type, i));
    }
}

/* A model's weights are billions of values: all threads share them out. */
void pn_convert(void *dst, pn_dtype dst_type, const void *src, pn_dtype src_type, int64_t n) {
    enum { RUN = 1 << 16 };
    const size_t to = pn_dtype_bytes(dst_type), from = pn_dtype_bytes(src_type);
    if (dst_type == src_type) {
        memmove(dst, src, (size_t)n * from);
        return;
    }
#pragma omp parallel for schedule(static) if (n > 16 * RUN)
    for (int64_t i = 0; i < n; i += RUN)
        convert((char *)dst + (size_t)i * to, dst_type, (const char *)src + (size_t)i * from, src_type,
                n - i < RUN ? n - i : RUN);
}
