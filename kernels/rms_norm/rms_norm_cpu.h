/* A row of d channels of the two ops that normalise by the root of the mean square: the same sums in the same order. */
#ifndef PN_KERNELS_RMS_NORM_CPU_H
#define PN_KERNELS_RMS_NORM_CPU_H

#include <math.h>
#include <stdint.h>

/* y = w * x r; returns r. */
static inline float pn_rms_norm_row(float *y, const float *x, const float *w, float eps, int64_t d) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < d; i++) sum += x[i] * x[i];
    float r = 1 / sqrtf(sum / (float)d + eps);
#pragma omp simd
    for (int64_t i = 0; i < d; i++) y[i] = w[i] * x[i] * r;
    return r;
}

/* dx += r (c - x r^2 mean(c * x)) with c = w * dy. */
static inline void pn_rms_norm_add_dx(float *dx, const float *x, const float *w, const float *dy, float r, int64_t d) {
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < d; i++) dot += w[i] * dy[i] * x[i];
    float k = r * r * dot / (float)d;
#pragma omp simd
    for (int64_t i = 0; i < d; i++) dx[i] += r * (w[i] * dy[i] - x[i] * k);
}

/* dw += dy * x r */
static inline void pn_rms_norm_add_dw(float *dw, const float *x, const float *dy, float r, int64_t d) {
#pragma omp simd
    for (int64_t i = 0; i < d; i++) dw[i] += dy[i] * x[i] * r;
}

#endif
