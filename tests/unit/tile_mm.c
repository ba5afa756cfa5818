/* Tile products and transposes against plain loops in double, on sizes around every register-tile border. */
#include "harness.h"
#include "cpu/tile_mm.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SPAN = 400 * 400 };
static float a[SPAN], b[SPAN], c[SPAN], before[SPAN], row1[512], row2[512];

static uint32_t seed = 7;
static float uniform(void) {
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) * 0x1p-23f - 1.0f;
}

static double a_at(const pn_mm *p, int64_t i, int64_t l) {
    if (p->form == PN_MM_A_LOWER && l > i) return 0;
    if (p->form == PN_MM_A_UPPER && l < i) return 0;
    return p->a[i * p->a_row + l * p->a_col];
}

static void check(const pn_mm *p, void (*mm)(const pn_mm *)) {
    memcpy(c, before, sizeof c);
    mm(p);
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t j = 0; j < p->ldc; j++) {
            float got = c[i * p->ldc + j];
            if (j >= p->n) { /* padding between rows stays */
                ck_assert_float_eq(got, before[i * p->ldc + j]);
                continue;
            }
            if (p->form == PN_MM_C_LOWER && j > i) continue;
            double sum = 0, size = 1;
            for (int64_t l = 0; l < p->l; l++) {
                sum += a_at(p, i, l) * b[l * p->ldb + j];
                size += fabs(a_at(p, i, l) * b[l * p->ldb + j]);
            }
            double want = (double)p->scale * (p->scale_row ? p->scale_row[i] : 1) * sum;
            if (p->c0)
                want += (double)p->keep * (p->keep_row ? p->keep_row[i] : 1) *
                        (p->c0 == c ? before[i * p->ldc + j] : p->c0[i * p->ldc0 + j]);
            ck_assert_msg(fabs(got - want) <= 1e-6 * size, "%dx%dx%d form %d at %d,%d: %g, not %g", (int)p->m,
                          (int)p->n, (int)p->l, (int)p->form, (int)i, (int)j, (double)got, want);
        }
    }
}

static void check_sizes(void (*mm)(const pn_mm *)) {
    static const int64_t sizes[] = { 0,  1,  2,  3,  5,  7,  8,  11, 12,  13,  14, 15,
                                     16, 17, 24, 31, 33, 40, 64, 96, 130, 257, 300 };
    const int n_sizes = sizeof sizes / sizeof *sizes;
    for (int i = 0; i < SPAN; i++) a[i] = uniform(), b[i] = uniform(), before[i] = uniform();
    for (int i = 0; i < 512; i++) row1[i] = uniform(), row2[i] = uniform();
    for (int round = 0; round < 600; round++) {
        int64_t m = sizes[(round * 7) % n_sizes], n = sizes[(round * 11 + round / 19) % n_sizes],
                l = sizes[(round * 5 + round / 31) % n_sizes];
        pn_mm p = { .m = m, .n = n, .l = l, .a = a, .b = b, .c = c, .ldb = n + round % 3 * 20, .ldc = n + round % 4 };
        p.form = l <= PN_MM_TRIANGLE ? (pn_mm_form)(round % 4) : PN_MM_DENSE;
        p.a_row = round & 1 ? 1 : l + 3;
        p.a_col = round & 1 ? m + 2 : 1;
        for (int64_t i = 0; i < m && p.form != PN_MM_DENSE && p.form != PN_MM_C_LOWER; i++)
            for (int64_t x = 0; x < l; x++) { /* zeros close to the diagonal, what nobody may read beyond */
                int64_t past = p.form == PN_MM_A_LOWER ? x - i : i - x;
                if (past > 0) a[i * p.a_row + x * p.a_col] = past < 8 ? 0.0f : NAN;
            }
        p.scale = round & 2 ? -0.75f : 1.0f;
        p.scale_row = round & 4 ? row1 : NULL;
        if (round & 8) {
            p.keep = 0.5f;
            p.keep_row = round & 16 ? row2 : NULL;
            p.c0 = round & 32 ? b : c;
            p.ldc0 = round & 32 ? p.ldb : p.ldc;
        }
        check(&p, mm);
        for (int i = 0; i < SPAN && p.form != PN_MM_DENSE; i++) a[i] = uniform();
    }
}

START_TEST(best_instructions) {
    check_sizes(pn_tile_mm);
}
END_TEST
START_TEST(baseline_instructions) {
    check_sizes(pn_tile_mm_baseline);
}
END_TEST

START_TEST(transpose) {
    static const int64_t sizes[][2] = { { 1, 1 }, { 8, 8 }, { 7, 16 }, { 24, 3 }, { 65, 33 }, { 96, 128 } };
    for (int s = 0; s < 6; s++) {
        int64_t rows = sizes[s][0], cols = sizes[s][1], ld_src = cols + 5, ld_dst = rows + 3;
        memcpy(c, before, sizeof c);
        pn_tile_transpose(c, ld_dst, a, ld_src, rows, cols);
        for (int64_t j = 0; j < cols; j++)
            for (int64_t i = 0; i < ld_dst; i++)
                ck_assert_float_eq(c[j * ld_dst + i], i < rows ? a[i * ld_src + j] : before[j * ld_dst + i]);
    }
}
END_TEST

TEST_MAIN("tile_mm", best_instructions, baseline_instructions, transpose)
