/* Matrix products of one tile: operands that fit the level-2 cache and are used right away (chunks of 64 tokens, head
 * widths up to a few hundred). A BLAS call spends its time there on packing for reuse that never comes, cannot skip the
 * zero half of a triangle, and needs extra passes to scale rows. Single-threaded: call it inside parallel regions.
 *
 *     C_i = keep_i C0_i + scale_i (A B)_i          for every row i
 *
 * A is given by two strides, so a transposed A costs nothing; B and C are row-major. AVX-512 is chosen at run time. */
#ifndef PN_KERNELS_CPU_TILE_MM_H
#define PN_KERNELS_CPU_TILE_MM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Memory that the next chunk will need, fetched into the level-2 cache line by line while products run. Many at once,
 * the requests would fill the core's miss buffers and it would wait for them; rows far apart are not followed by
 * the hardware's own prefetcher. Zeroed: nothing to fetch. */
enum { PN_AHEAD_PARTS = 14 };
typedef struct pn_ahead {
    int n, part; /* parts in the list, the one at hand */
    int64_t row, col;
    struct {
        const float *x;
        int64_t rows, cols, ld;
    } parts[PN_AHEAD_PARTS];
} pn_ahead;

/* Adds rows of cols floats, ld apart, to the list. Nothing happens when the list is full or x is NULL. */
static inline void pn_ahead_add(pn_ahead *a, int64_t rows, int64_t cols, const float *x, int64_t ld) {
    if (!x || rows <= 0 || cols <= 0 || a->n == PN_AHEAD_PARTS) return;
    a->parts[a->n].x = x;
    a->parts[a->n].rows = rows;
    a->parts[a->n].cols = cols;
    a->parts[a->n++].ld = ld;
}
/* Forgets what is left. */
static inline void pn_ahead_reset(pn_ahead *a) {
    a->n = a->part = 0;
    a->row = a->col = 0;
}

typedef enum pn_mm_form {
    PN_MM_DENSE,
    PN_MM_A_LOWER, /* A(i,l) = 0 for l > i: stored as zeros up to 7 past the diagonal, not looked at beyond */
    PN_MM_A_UPPER, /* A(i,l) = 0 for l < i: likewise */
    PN_MM_C_LOWER  /* only C(i,j), j <= i, is wanted; above the diagonal C is unspecified */
} pn_mm_form;

typedef struct pn_mm {
    int64_t m, n, l; /* C is m x n, A is m x l, B is l x n */
    const float *a;
    int64_t a_row, a_col; /* A(i,l) = a[i * a_row + l * a_col] */
    const float *b;
    int64_t ldb;
    float *c;
    int64_t ldc;
    const float *c0; /* NULL: nothing is kept; may be c itself */
    int64_t ldc0;
    float keep, scale;
    const float *keep_row, *scale_row; /* m factors multiplying keep and scale; NULL: ones */
    pn_ahead *ahead;                   /* fetched from while this runs; NULL: none */
    pn_mm_form form;                   /* A_LOWER and A_UPPER: l <= PN_MM_TRIANGLE */
} pn_mm;
enum { PN_MM_TRIANGLE = 256 };

/* C = A B, the usual case; set the other fields after. a: [m, l], or [l, m] when A is stored transposed. */
static inline pn_mm pn_mm_of(int64_t m, int64_t n, int64_t l, const float *a, int64_t lda, const float *b, int64_t ldb,
                             float *c, int64_t ldc) {
    return (pn_mm){ m, n, l, a, lda, 1, b, ldb, c, ldc, NULL, 0, 0.0f, 1.0f, NULL, NULL, NULL, PN_MM_DENSE };
}
static inline pn_mm pn_mm_transposed_of(int64_t m, int64_t n, int64_t l, const float *a, int64_t lda, const float *b,
                                        int64_t ldb, float *c, int64_t ldc) {
    return (pn_mm){ m, n, l, a, 1, lda, b, ldb, c, ldc, NULL, 0, 0.0f, 1.0f, NULL, NULL, NULL, PN_MM_DENSE };
}
/* Adds keep C0 to the product. */
static inline void pn_mm_keep(pn_mm *p, float keep, const float *c0, int64_t ldc0) {
    p->keep = keep;
    p->c0 = c0;
    p->ldc0 = ldc0;
}

/* C must not overlap A or B. Every element of A and B that is multiplied is read once per tile, none beyond them. */
void pn_tile_mm(const pn_mm *p);
/* The same by the build's baseline instructions: what runs where AVX-512 is missing. */
void pn_tile_mm_baseline(const pn_mm *p);
/* p in this form, added to what C holds if `adds`, fetching ahead (NULL: nothing) as it runs. */
static inline void pn_mm_run(pn_mm p, pn_mm_form form, bool adds, pn_ahead *ahead) {
    p.form = form;
    p.ahead = ahead;
    if (adds) pn_mm_keep(&p, 1, p.c, p.ldc);
    pn_tile_mm(&p);
}

/* dst[j * ld_dst + i] = src[i * ld_src + j] for i < rows, j < cols. */
void pn_tile_transpose(float *dst, int64_t ld_dst, const float *src, int64_t ld_src, int64_t rows, int64_t cols);

#endif
