#include "block_gemm.h"

#include "clones.h"
#include "vec.h"

/* M rows by NV vectors of type V of C in registers; every loop over them is unrolled, so `acc` never is memory. The
 * vectors must be registers of the function that a block is inlined into. */
#define BLOCK(M, NV, V)                                                                                                \
    PN_INLINE void block_##M##x##NV##_##V(int64_t k, const float *a, int64_t a_row, int64_t a_col, const float *b,     \
                                          int64_t ldb, float *c, int64_t ldc, bool add) {                              \
        enum { L = (int)(sizeof(V) / sizeof(float)) };                                                                 \
        V acc[M][NV];                                                                                                  \
        _Pragma("GCC unroll 12") for (int i = 0; i < M; i++) {                                                         \
            _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) acc[i][j] = (V){ 0 };                                 \
        }                                                                                                              \
        for (int64_t p = 0; p < k; p++, a += a_col, b += ldb) {                                                        \
            V row[NV];                                                                                                 \
            _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) row[j] = *(const V *)(b + L * j);                     \
            _Pragma("GCC unroll 12") for (int i = 0; i < M; i++) {                                                     \
                V all = a[i * a_row] - (V){ 0 };                                                                       \
                _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) acc[i][j] = all * row[j] + acc[i][j];             \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("GCC unroll 12") for (int i = 0; i < M; i++) {                                                         \
            _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) {                                                     \
                V *to = (V *)(c + i * ldc + L * j);                                                                    \
                if (add) acc[i][j] += *to;                                                                             \
                *to = acc[i][j];                                                                                       \
            }                                                                                                          \
        }                                                                                                              \
    }
#define BLOCKS(NV, V) BLOCK(1, NV, V) BLOCK(2, NV, V) BLOCK(4, NV, V) BLOCK(6, NV, V)

#define RUN(M, NV, V)                                                                                                  \
    for (; m - i >= M; i += M) block_##M##x##NV##_##V(k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc, add)
/* All rows of columns of NV vectors; FIRST runs the blocks of more than 6 rows. */
#define COLUMNS(NV, V, WIDTH, FIRST)                                                                                   \
    for (; n >= WIDTH; n -= WIDTH, b += WIDTH, c += WIDTH) {                                                           \
        int64_t i = 0;                                                                                                 \
        FIRST;                                                                                                         \
        RUN(6, NV, V);                                                                                                 \
        RUN(4, NV, V);                                                                                                 \
        RUN(2, NV, V);                                                                                                 \
        RUN(1, NV, V);                                                                                                 \
    }
#define ARGS                                                                                                           \
    int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t ldb,        \
        float *c, int64_t ldc, bool add

#if defined(__AVX2__)
/* 16 registers of 8: 12 of them accumulate. */
BLOCKS(2, pn_vec8)
static void narrow(ARGS) {
    COLUMNS(2, pn_vec8, 16, )
}
#else
/* 32 registers of 4 (NEON): 24 of them accumulate. */
BLOCKS(4, pn_vec4)
static void narrow(ARGS) {
    COLUMNS(4, pn_vec4, 16, )
}
#endif

#ifdef PN_HAVE_CLONES
/* 32 registers of 16: 24 of them accumulate. */
BLOCKS(1, pn_vec16)
BLOCKS(2, pn_vec16)
BLOCKS(3, pn_vec16)
BLOCKS(4, pn_vec16)
BLOCK(12, 1, pn_vec16)
BLOCK(12, 2, pn_vec16)
__attribute__((target("arch=x86-64-v4"))) static void wide(ARGS) {
    COLUMNS(4, pn_vec16, 64, )
    COLUMNS(3, pn_vec16, 48, )
    COLUMNS(2, pn_vec16, 32, RUN(12, 2, pn_vec16))
    COLUMNS(1, pn_vec16, 16, RUN(12, 1, pn_vec16))
}
#endif

void pn_block_gemm(ARGS) {
#ifdef PN_HAVE_CLONES
    if (pn_cpu_is_v4()) {
        wide(m, n, k, a, a_row, a_col, b, ldb, c, ldc, add);
        return;
    }
#endif
    narrow(m, n, k, a, a_row, a_col, b, ldb, c, ldc, add);
}
