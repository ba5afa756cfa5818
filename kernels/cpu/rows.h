/* Rows of floats in and out of a thread's own tiles. Single-threaded. */
#ifndef PN_KERNELS_CPU_ROWS_H
#define PN_KERNELS_CPU_ROWS_H

#include <stdint.h>

/* n floats of scratch from *at, rounded up to whole cache lines; *at moves on. */
static inline int64_t pn_whole_lines(int64_t n) {
    return (n + 15) & ~(int64_t)15;
}
static inline float *pn_take(float **at, int64_t n) {
    float *taken = *at;
    *at += pn_whole_lines(n);
    return taken;
}

/* dst_i = src_i, or zeros when src is NULL. */
void pn_copy_rows(int64_t n, int64_t cols, const float *src, int64_t ld_src, float *dst, int64_t ld_dst);
/* dst [n, cols] (contiguous) = factor * row_factor_i * src_i. */
void pn_scale_rows(int64_t n, int64_t cols, float factor, const float *row_factor, const float *src, int64_t ld,
                   float *dst);
/* dst_i += factor * src_i; dst NULL: nothing. */
void pn_add_rows(int64_t n, int64_t cols, float factor, const float *src, int64_t ld_src, float *dst, int64_t ld_dst);
/* e_i = e^{x_i} */
void pn_exp_row(int64_t n, const float *x, float *e);
/* <x, y>: float inside runs of 512, double across them. */
double pn_long_dot(int64_t n, const float *x, const float *y);

#endif
