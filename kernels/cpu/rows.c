#include "rows.h"

#include <string.h>

#include "clones.h"
#include "vec.h"

/* By 16 floats: rows are short, and a call of memcpy for each costs as much as the copy. */
static PN_CLONES void copy_rows(int64_t n, int64_t cols, const float *src, int64_t ld_src, float *dst, int64_t ld_dst) {
    for (int64_t i = 0; i < n; i++) {
        int64_t x = 0;
        for (; x + 16 <= cols; x += 16) *(pn_vec16 *)(dst + i * ld_dst + x) = *(const pn_vec16 *)(src + i * ld_src + x);
        for (; x < cols; x++) dst[i * ld_dst + x] = src[i * ld_src + x];
    }
}

void pn_copy_rows(int64_t n, int64_t cols, const float *src, int64_t ld_src, float *dst, int64_t ld_dst) {
    if (src) {
        copy_rows(n, cols, src, ld_src, dst, ld_dst);
        return;
    }
    for (int64_t i = 0; i < n; i++) memset(dst + i * ld_dst, 0, sizeof(float) * (size_t)cols);
}

PN_CLONES void pn_scale_rows(int64_t n, int64_t cols, float factor, const float *row_factor, const float *src,
                             int64_t ld, float *dst) {
    for (int64_t i = 0; i < n; i++) {
        float f = factor * row_factor[i];
        for (int64_t x = 0; x < cols; x++) dst[i * cols + x] = f * src[i * ld + x];
    }
}

PN_CLONES void pn_add_rows(int64_t n, int64_t cols, float factor, const float *src, int64_t ld_src, float *dst,
                           int64_t ld_dst) {
    for (int64_t i = 0; dst && i < n; i++)
        for (int64_t x = 0; x < cols; x++) dst[i * ld_dst + x] += factor * src[i * ld_src + x];
}

PN_CLONES double pn_long_dot(int64_t n, const float *x, const float *y) {
    double sum = 0;
    while (n > 0) {
        int64_t run = n < 512 ? n : 512;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t i = 0; i < run; i++) part += x[i] * y[i];
        sum += (double)part;
        x += run;
        y += run;
        n -= run;
    }
    return sum;
}
