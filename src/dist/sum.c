#include "sum.h"

#include <math.h>

enum { BLOCK = 512 };

/* The type that is summed most has loops the compiler vectorises. */
static void load(double *out, const char *src, pn_dtype t, int n) {
    if (t != PN_F32)
        pn_convert(out, PN_F64, src, t, n);
    else
        for (int i = 0; i < n; i++) out[i] = ((const float *)src)[i];
}
static void store(char *dst, pn_dtype t, const double *x, int n) {
    if (t != PN_F32)
        pn_convert(dst, t, x, PN_F64, n);
    else
        for (int i = 0; i < n; i++) ((float *)dst)[i] = (float)x[i];
}

/* NaN wins. */
static double larger(double a, double b) {
    return a > b || isnan(a) ? a : b;
}

static void reduce_integers(int64_t *dst, const void *const *src, int n_src, int64_t n, pn_reduce op) {
    for (int64_t i = 0; i < n; i++) {
        int64_t x = ((const int64_t *)src[0])[i];
        for (int r = 1; r < n_src; r++) {
            const int64_t y = ((const int64_t *)src[r])[i];
            if (op == PN_SUM)
                x = (int64_t)((uint64_t)x + (uint64_t)y);
            else if (y > x)
                x = y;
        }
        dst[i] = x;
    }
}

void pn_reduce_values(void *dst, const void *const *src, int n_src, int64_t n, pn_dtype t, pn_reduce op) {
    const size_t bytes = pn_dtype_bytes(t);
    double sum[BLOCK], next[BLOCK];
    if (t == PN_I64) {
        reduce_integers(dst, src, n_src, n, op);
        return;
    }
    for (int64_t at = 0; at < n; at += BLOCK) {
        const int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        const size_t skip = (size_t)at * bytes;
        load(sum, (const char *)src[0] + skip, t, m);
        for (int r = 1; r < n_src; r++) {
            load(next, (const char *)src[r] + skip, t, m);
            if (op == PN_SUM)
                for (int i = 0; i < m; i++) sum[i] += next[i];
            else
                for (int i = 0; i < m; i++) sum[i] = larger(sum[i], next[i]);
        }
        store((char *)dst + skip, t, sum, m);
    }
}
