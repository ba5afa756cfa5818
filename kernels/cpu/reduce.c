#include "reduce.h"

#include <string.h>

/* Columns are the unit of parallelism, so a column's order of addition is that of its rows. Short runs of rows are
 * summed apart before they join the total: the rounding error grows with the run's length, not with n_rows. */
enum { columns_per_task = 256 };

static void sum_columns(float *dst, const float *x, int64_t n_rows, int64_t stride, int64_t n) {
    float total[columns_per_task] = { 0 }, run[columns_per_task];
    for (int64_t r0 = 0; r0 < n_rows; r0 += PN_REDUCE_ROWS) {
        int64_t r1 = r0 + PN_REDUCE_ROWS < n_rows ? r0 + PN_REDUCE_ROWS : n_rows;
        memset(run, 0, sizeof run);
        for (int64_t r = r0; r < r1; r++)
            for (int64_t i = 0; i < n; i++) run[i] += x[r * stride + i];
        for (int64_t i = 0; i < n; i++) total[i] += run[i];
    }
    for (int64_t i = 0; i < n; i++) dst[i] += total[i];
}

void pn_add_row_sum(float *dst, const float *x, int64_t n_rows, int64_t n) {
#pragma omp parallel for schedule(static) if (n_rows * n > 65536)
    for (int64_t i = 0; i < n; i += columns_per_task)
        sum_columns(dst + i, x + i, n_rows, n, n - i < columns_per_task ? n - i : columns_per_task);
}
