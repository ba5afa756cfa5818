/* pn_block_gemm against sums in double, over shapes that reach every block size, with A as it is and transposed. */
#include "harness.h"
#include "cpu/block_gemm.h"

#include <math.h>
#include <string.h>

enum { MOST = 160 };
static float a[MOST * MOST], b[MOST * MOST], c[MOST * MOST], start[MOST * MOST];

static void fill(float *x, unsigned seed) {
    for (int i = 0; i < MOST * MOST; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(int)(seed >> 8) * 0x1p-23f - 1.0f;
    }
}

static void check(int64_t m, int64_t n, int64_t k, bool transposed, bool add) {
    int64_t a_row = transposed ? 1 : k + 3, a_col = transposed ? m + 1 : 1, ldb = n + 5, ldc = n + 7;
    fill(start, 3);
    memcpy(c, start, sizeof c);
    pn_block_gemm(m, n, k, a, a_row, a_col, b, ldb, c, ldc, add);
    for (int64_t i = 0; i < m; i++)
        ck_assert(!memcmp(c + i * ldc + n, start + i * ldc + n, 7 * sizeof *c)); /* between the rows */
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = add ? start[i * ldc + j] : 0, size = 1;
            for (int64_t p = 0; p < k; p++) {
                double term = (double)a[i * a_row + p * a_col] * b[p * ldb + j];
                sum += term;
                size += fabs(term);
            }
            ck_assert_msg(fabs(c[i * ldc + j] - sum) <= 1e-6 * size, "%lld x %lld x %lld: [%lld, %lld] is %g, want %g",
                          (long long)m, (long long)n, (long long)k, (long long)i, (long long)j, (double)c[i * ldc + j],
                          sum);
        }
    }
}

START_TEST(every_block_size) {
    fill(a, 1);
    fill(b, 2);
    for (int64_t m = 1; m <= 27; m++)
        for (int64_t n = 16; n <= 144; n += 16)
            for (int transposed = 0; transposed < 2; transposed++) {
                check(m, n, 1 + (m * n) % 37, transposed, m % 2);
            }
    check(100, 64, 100, false, true);
    check(100, 80, 100, true, false);
}
END_TEST

START_TEST(no_terms) {
    fill(c, 3);
    pn_block_gemm(3, 16, 0, a, 1, 1, b, 16, c, 16, false);
    for (int i = 0; i < 48; i++) ck_assert(c[i] == 0);
}
END_TEST

TEST_MAIN("block_gemm", every_block_size, no_terms)
