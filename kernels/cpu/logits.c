#include "logits.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "clones.h"
#include "fast_math.h"
#include "gemm.h"

void *pn_carve_take(pn_carve *c, size_t n_bytes) {
    void *at = c->base ? c->base + c->n_bytes : NULL;
    c->n_bytes += (n_bytes + 63) / 64 * 64;
    return at;
}

void pn_gather_rows(float *dst, const float *src, const int32_t *index, int64_t n, int64_t D) {
#pragma omp parallel for schedule(static) if (n * D > 65536)
    for (int64_t i = 0; i < n; i++) memcpy(dst + i * D, src + index[i] * D, (size_t)D * sizeof *dst);
}

void pn_scatter_add_parts(float *dst, const float *src, int parts, int64_t stride, const int32_t *index, int64_t n,
                          int64_t D) {
#pragma omp parallel for schedule(static) if (n * D > 65536)
    for (int64_t i = 0; i < n; i++) {
        float *row = dst + index[i] * D;
        for (int p = 0; p < parts; p++)
            for (int64_t k = 0; k < D; k++) row[k] += src[p * stride + i * D + k];
    }
}

static int64_t tiles(int64_t V) {
    return (V + PN_LOGIT_COLS - 1) / PN_LOGIT_COLS;
}

int pn_vocab_parts(int64_t V) {
    int64_t parts = omp_get_max_threads();
    if (parts > PN_LOGIT_MAX_PARTS) parts = PN_LOGIT_MAX_PARTS;
    if (parts > tiles(V)) parts = tiles(V);
    return parts > 0 ? (int)parts : 1;
}

int64_t pn_vocab_begin(int64_t V, int parts, int p) {
    int64_t begin = tiles(V) * p / parts * PN_LOGIT_COLS;
    return begin < V ? begin : V;
}

void pn_logits_tile(float *tile, const float *h, int64_t rows, const float *W, int64_t v0, int64_t cols, int64_t D) {
    pn_sgemm(false, true, rows, cols, D, h, D, W + v0 * D, D, 0, tile, cols);
}

void pn_logits_tile_backward(const float *tile, const float *h, int64_t rows, const float *W, int64_t v0, int64_t cols,
                             int64_t D, float *dh, float *dW) {
    if (dh) pn_sgemm(false, false, rows, D, cols, tile, cols, W + v0 * D, D, 1, dh, D);
    if (dW) pn_sgemm(true, false, cols, D, rows, tile, cols, h, D, 1, dW + v0 * D, D);
}

double pn_loss_weight(const float *weight, int64_t n) {
    return weight ? (double)weight[n] : 1;
}

double pn_loss_weights(const float *weight, int64_t n) {
    double total = 0;
    for (int64_t i = 0; i < n; i++) total += pn_loss_weight(weight, i);
    return total;
}

PN_CLONES float pn_row_max(const float *x, int64_t n) {
    float max = -INFINITY;
#pragma omp simd reduction(max : max)
    for (int64_t i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
    return max;
}

void pn_choice_add(pn_first_choice *c, const float *x, int64_t v0, float max) {
    if (!(max > c->max)) return;
    int64_t v = 0;
    while (x[v] != max) v++;
    *c = (pn_first_choice){ max, (int32_t)(v0 + v) };
}

void pn_choice_merge(pn_first_choice *c, const pn_first_choice *later) {
    if (later->max > c->max) *c = *later;
}

PN_CLONES static float sum_exp(const float *x, int64_t n, float scale, float max) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += pn_exp_nonposf(pn_fmaf(scale, x[i], -max));
    return sum;
}

double pn_online_raise(pn_online_sum *s, float max) {
    if (!(max > s->max)) return 1;
    double shrink = exp((double)s->max - max);
    s->sum *= shrink;
    s->max = max;
    return shrink;
}

void pn_online_add(pn_online_sum *s, const float *x, int64_t n, float scale, float max) {
    pn_online_raise(s, scale * max);
    s->sum += sum_exp(x, n, scale, s->max);
}

void pn_online_merge(pn_online_sum *s, const pn_online_sum *other) {
    pn_online_raise(s, other->max);
    s->sum += other->sum * exp((double)other->max - s->max);
}

double pn_online_lse(const pn_online_sum *s) {
    return s->max + log(s->sum);
}
