#include "tile_mm.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "status.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    MAX_INNER = PN_MM_TRIANGLE, /* longest inner dimension handled at once: what a packed panel has room for */
    PACK_ROWS = 32,             /* packing pays from this many rows of A on ... */
    PACK_STRIDE = 128,          /* ... and this many elements from row to row of B */
    AHEAD_STEPS = 2             /* inner steps of a register tile for each line that is fetched ahead */
};

/* The next lines of the list, at most `most`; returns how many. */
static int ahead_take(pn_ahead *a, int most, const float *line[]) {
    int n = 0;
    while (n < most && a->part < a->n) {
        const int part = a->part;
        const int64_t cols = a->parts[part].cols, end = a->col + 16 * (int64_t)(most - n);
        const float *row = a->parts[part].x + a->row * a->parts[part].ld;
        for (; a->col < cols && a->col < end; a->col += 16) line[n++] = row + a->col;
        if (a->col < cols) return n;
        a->col = 0;
        if (++a->row < a->parts[part].rows) continue;
        a->row = 0;
        a->part++;
    }
    return n;
}

#if defined(__x86_64__) && defined(__AVX2__) && defined(__FMA__)
static inline __m256i first8(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#define TILE_NAME          avx2
#define TILE_TARGET        /* the baseline of the build */
#define TILE_ROWS          6
#define TILE_TRIANGLE_ROWS 4
#define TILE_WIDE          2
#define TILE_WIDE_ROWS     4
#define TILE_LANES         8
#define tile_vec           __m256
#define tile_mask          __m256i
#define tile_first         first8
#define tile_load          _mm256_loadu_ps
#define tile_load_part     _mm256_maskload_ps
#define tile_store         _mm256_storeu_ps
#define tile_store_part    _mm256_maskstore_ps
#define tile_set1          _mm256_set1_ps
#define tile_mul           _mm256_mul_ps
#define tile_fma           _mm256_fmadd_ps
#define mm_baseline        mm_avx2
#else
typedef float f4v __attribute__((vector_size(16)));
static inline int64_t first4(int64_t n) {
    return n;
}
static inline f4v load4(const float *x) {
    return (f4v){ x[0], x[1], x[2], x[3] };
}
static inline f4v load4_part(const float *x, int64_t n) {
    f4v v = { 0, 0, 0, 0 };
    memcpy(&v, x, sizeof(float) * (size_t)n);
    return v;
}
static inline void store4(float *x, f4v v) {
    memcpy(x, &v, sizeof v);
}
static inline void store4_part(float *x, int64_t n, f4v v) {
    memcpy(x, &v, sizeof(float) * (size_t)n);
}
static inline f4v set4(float x) {
    return (f4v){ x, x, x, x };
}
static inline f4v mul4(f4v a, f4v b) {
    return a * b;
}
static inline f4v fma4(f4v a, f4v b, f4v c) {
    return a * b + c;
}
#define TILE_NAME portable
#define TILE_TARGET
#define TILE_ROWS          4
#define TILE_TRIANGLE_ROWS 4
#define TILE_WIDE          2
#define TILE_WIDE_ROWS     4
#define TILE_LANES         4
#define tile_vec           f4v
#define tile_mask          int64_t
#define tile_first         first4
#define tile_load          load4
#define tile_load_part     load4_part
#define tile_store         store4
#define tile_store_part    store4_part
#define tile_set1          set4
#define tile_mul           mul4
#define tile_fma           fma4
#define mm_baseline        mm_portable
#endif
#include "tile_mm_body.h"
#undef TILE_NAME
#undef TILE_TARGET
#undef TILE_ROWS
#undef TILE_TRIANGLE_ROWS
#undef TILE_WIDE
#undef TILE_WIDE_ROWS
#undef TILE_LANES
#undef tile_vec
#undef tile_mask
#undef tile_first
#undef tile_load
#undef tile_load_part
#undef tile_store
#undef tile_store_part
#undef tile_set1
#undef tile_mul
#undef tile_fma

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_AVX512 1
#define TILE_TARGET __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")))
static inline TILE_TARGET __mmask16 first16(int64_t n) {
    return (__mmask16)((1u << n) - 1);
}
static inline TILE_TARGET __m512 load16_part(const float *x, __mmask16 mask) {
    return _mm512_maskz_loadu_ps(mask, x);
}
#define TILE_NAME          avx512
#define TILE_ROWS          8
#define TILE_TRIANGLE_ROWS 8
#define TILE_WIDE          4
#define TILE_WIDE_ROWS     6
#define TILE_LANES         16
#define tile_vec           __m512
#define tile_mask          __mmask16
#define tile_first         first16
#define tile_load          _mm512_loadu_ps
#define tile_load_part     load16_part
#define tile_store         _mm512_storeu_ps
#define tile_store_part    _mm512_mask_storeu_ps
#define tile_set1          _mm512_set1_ps
#define tile_mul           _mm512_mul_ps
#define tile_fma           _mm512_fmadd_ps
#include "tile_mm_body.h"
#endif

static void split(const pn_mm *p, void (*run)(const pn_mm *)) {
    if (p->l <= MAX_INNER) {
        run(p);
        return;
    }
    PN_ASSERT(p->form == PN_MM_DENSE || p->form == PN_MM_C_LOWER);
    pn_mm part = *p;
    for (int64_t l = 0; l < p->l; l += MAX_INNER) {
        part.l = p->l - l < MAX_INNER ? p->l - l : MAX_INNER;
        part.a = p->a + l * p->a_col;
        part.b = p->b + l * p->ldb;
        if (l > 0) {
            part.c0 = p->c;
            part.ldc0 = p->ldc;
            part.keep = 1.0f;
            part.keep_row = NULL;
        }
        run(&part);
    }
}

void pn_tile_mm_baseline(const pn_mm *p) {
    split(p, mm_baseline);
}

void pn_tile_mm(const pn_mm *p) {
#ifdef HAVE_AVX512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw")) {
        split(p, mm_avx512);
        return;
    }
#endif
    split(p, mm_baseline);
}

/* 8 x 8 in three stages; the first is done by loading half rows, which shuffles nothing. */
typedef float f4 __attribute__((vector_size(16)));
typedef float f8 __attribute__((vector_size(32)));

static inline __attribute__((always_inline)) void transpose_8x8(float *dst, int64_t ld_dst, const float *src,
                                                                int64_t ld_src) {
    f8 x[8], y[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) { /* rows i % 4 and i % 4 + 4, columns 4 (i / 4) .. */
        f4 low, high;
        memcpy(&low, src + (i % 4) * ld_src + 4 * (i / 4), sizeof low);
        memcpy(&high, src + (i % 4 + 4) * ld_src + 4 * (i / 4), sizeof high);
        x[i] = __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        y[i] = __builtin_shufflevector(x[i], x[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        y[i + 1] = __builtin_shufflevector(x[i], x[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
#pragma GCC unroll 2
        for (int s = 0; s < 2; s++) {
            f8 a = y[4 * h + s], b = y[4 * h + 2 + s];
            f8 even = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
            f8 odd = __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
            memcpy(dst + (4 * h + 2 * s) * ld_dst, &even, sizeof even);
            memcpy(dst + (4 * h + 2 * s + 1) * ld_dst, &odd, sizeof odd);
        }
    }
}

void pn_tile_transpose(float *dst, int64_t ld_dst, const float *src, int64_t ld_src, int64_t rows, int64_t cols) {
    int64_t rows8 = rows & ~(int64_t)7, cols8 = cols & ~(int64_t)7;
    for (int64_t i = 0; i < rows8; i += 8) {
        for (int64_t j = 0; j < cols8; j += 8)
            transpose_8x8(dst + j * ld_dst + i, ld_dst, src + i * ld_src + j, ld_src);
        for (int64_t r = i; r < i + 8; r++)
            for (int64_t j = cols8; j < cols; j++) dst[j * ld_dst + r] = src[r * ld_src + j];
    }
    for (int64_t i = rows8; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) dst[j * ld_dst + i] = src[i * ld_src + j];
}
