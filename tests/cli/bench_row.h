/* What every row of `postnas bench --json` must hold, on a CPU and on a GPU. */
#ifndef PN_TESTS_BENCH_ROW_H
#define PN_TESTS_BENCH_ROW_H

#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "harness.h"

static inline double number(const json_t *row, const char *key) {
    ck_assert_msg(json_is_number(json_object_get(row, key)), "no number %s", key);
    return json_number_value(json_object_get(row, key));
}

static inline void ck_positive(const json_t *row, const char *key) {
    ck_assert_msg(number(row, key) > 0 && isfinite(number(row, key)), "%s is %g", key, number(row, key));
}

/* Times in order, and rates that are those of the median; unit: "us" or "ms". */
static inline void ck_bench_row(const json_t *row, const char *unit) {
    char key[3][16];
    static const char *const names[] = { "min", "median", "max" };
    for (int i = 0; i < 3; i++) {
        snprintf(key[i], sizeof key[i], "%s_%s", names[i], unit);
        ck_positive(row, key[i]);
    }
    const double least = number(row, key[0]), median = number(row, key[1]), most = number(row, key[2]);
    const double seconds = median * (unit[0] == 'u' ? 1e-6 : 1e-3);
    ck_assert(least <= median && median <= most);
    ck_assert_double_eq_tol(number(row, "spread"), (most - least) / median, 1e-9 * (1 + most / median));
    ck_assert_double_eq_tol(number(row, "tflops"), number(row, "flops") / seconds / 1e12,
                            1e-9 * (1 + number(row, "tflops")));
    ck_assert_double_eq_tol(number(row, "gbytes_per_second"), number(row, "bytes") / seconds / 1e9,
                            1e-9 * (1 + number(row, "gbytes_per_second")));
    ck_assert(number(row, "runs") >= 1);
}

#endif
