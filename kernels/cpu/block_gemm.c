#include "block_gemm.h"

#include "v16.h"

/* M rows by NV vectors of C in registers; every loop over them is unrolled, so `acc` never is memory. */
#define BLOCK(M, NV)                                                                                                   \
    PN_INLINE void block_##M##x##NV(int64_t k, const float *a, int64_t a_row, int64_t a_col, const float *b,           \
                                    int64_t ldb, float *c, int64_t ldc, bool add) {                                    \
        pn_v16 acc[M][NV];                                                                                             \
        _Pragma("GCC unroll 12") for (int i = 0; i < M; i++) {                                                         \
            _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) acc[i][j] = (pn_v16){ 0 };                            \
        }                                                                                                              \
        for (int64_t p = 0; p < k; p++, a += a_col, b += ldb) {                                                        \
            pn_v16 row[NV];                                                                                            \
            _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) row[j] = *(const pn_v16 *)(b + 16 * j);               \
            _Pragma("GCC unroll 12") for (int i = 0; i < M; i++) {                                                     \
                float x = a[i * a_row];                                                                                \
                pn_v16 all = { x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x };                                       \
                _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) acc[i][j] = all * row[j] + acc[i][j];             \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("GCC unroll 12") for (int i = 0; i < M; i++) {                                                         \
            _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) {                                                     \
                pn_v16 *to = (pn_v16 *)(c + i * ldc + 16 * j);                                                         \
                if (add) acc[i][j] += *to;                                                                             \
                *to = acc[i][j];                                                                                       \
            }                                                                                                          \
        }                                                                                                              \
    }
#define BLOCKS(NV) BLOCK(1, NV) BLOCK(2, NV) BLOCK(4, NV) BLOCK(6, NV)
BLOCKS(1)
BLOCKS(2)
BLOCKS(3)
BLOCKS(4)
BLOCK(12, 1)
BLOCK(12, 2)

#define RUN(M, NV)                                                                                                     \
    for (; m - i >= M; i += M) block_##M##x##NV(k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc, add)
#define COLUMNS(NV)                                                                                                    \
    for (; n >= 16 * NV; n -= 16 * NV, b += 16 * NV, c += 16 * NV) {                                                   \
        int64_t i = 0;                                                                                                 \
        ROWS(NV)                                                                                                       \
        RUN(6, NV);                                                                                                    \
        RUN(4, NV);                                                                                                    \
        RUN(2, NV);                                                                                                    \
        RUN(1, NV);                                                                                                    \
    }
#define ARGS                                                                                                           \
    int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t ldb,        \
        float *c, int64_t ldc, bool add

/* 16 vector registers: 6 x 16 floats are 12 of them. */
static void narrow(ARGS) {
#define ROWS(NV)
    COLUMNS(1)
#undef ROWS
}

#ifdef PN_HAVE_CLONES
/* 32 registers of 16 floats: 24 of them accumulate. */
__attribute__((target("arch=x86-64-v4"))) static void wide(ARGS) {
#define ROWS(NV)
    COLUMNS(4)
    COLUMNS(3)
#undef ROWS
#define ROWS(NV) RUN(12, NV);
    COLUMNS(2)
    COLUMNS(1)
#undef ROWS
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
