#include "gated_delta_chunk.h"

#include <string.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/unit_lower.h"

enum { C = PN_DELTA_C };

pn_delta_dims pn_delta_dims_of(const pn_op_call *c) {
    const pn_gated_delta_attr *a = c->attr;
    return (pn_delta_dims){ .heads = a->heads,
                            .v_heads = a->v_heads,
                            .group = a->v_heads / a->heads,
                            .dk = a->dk,
                            .dv = a->dv,
                            .size = (int64_t)a->dk * a->dv,
                            .ldk = (int64_t)a->heads * a->dk,
                            .ldv = (int64_t)a->v_heads * a->dv,
                            .scale = (float)a->scale,
                            .decay = c->in[3] != NULL };
}

static int64_t whole_lines(int64_t n) {
    return (n + 15) & ~(int64_t)15;
}
float *pn_delta_take(float **at, int64_t n) {
    float *taken = *at;
    *at += whole_lines(n);
    return taken;
}

size_t pn_delta_tiles_floats(const pn_delta_dims *d) {
    return (size_t)(3 * d->dk * C + 5 * PN_DELTA_TILE + C * PN_UNIT_LOWER_BLOCK);
}
pn_delta_tiles pn_delta_tiles_at(const pn_delta_dims *d, float **at) {
    pn_delta_tiles t = { 0 };
    t.Q = pn_delta_take(at, d->dk * C);
    t.K = pn_delta_take(at, d->dk * C);
    t.KT = pn_delta_take(at, d->dk * C);
    t.KK = pn_delta_take(at, PN_DELTA_TILE);
    t.QK = pn_delta_take(at, PN_DELTA_TILE);
    t.E = pn_delta_take(at, PN_DELTA_TILE);
    t.A = pn_delta_take(at, PN_DELTA_TILE);
    t.P = pn_delta_take(at, PN_DELTA_TILE);
    t.X = pn_delta_take(at, C * PN_UNIT_LOWER_BLOCK);
    return t;
}

void pn_delta_scores(const pn_delta_dims *d, int64_t n, const float *q, const float *k, pn_delta_tiles *t) {
    pn_delta_copy_rows(n, d->dk, q, d->ldk, t->Q, d->dk);
    pn_delta_copy_rows(n, d->dk, k, d->ldk, t->K, d->dk);
    pn_tile_transpose(t->KT, C, t->K, d->dk, n, d->dk);
    pn_mm p = pn_mm_of(n, n, d->dk, t->K, d->dk, t->KT, C, t->KK, C);
    p.ahead = &t->ahead;
    p.form = PN_MM_C_LOWER;
    pn_tile_mm(&p);
    p.a = t->Q;
    p.c = t->QK;
    pn_tile_mm(&p);
}

static PN_CLONES void gate_factors(int64_t n, pn_delta_gates *x) {
    double last = x->L[n - 1];
    for (int64_t i = 0; i < n; i++) {
        x->in[i] = pn_exp_nonposf((float)x->L[i]);
        x->out[i] = pn_exp_nonposf((float)(last - x->L[i]));
    }
    x->through = x->in[n - 1];
}

void pn_delta_gates_of(const pn_delta_dims *d, int64_t n, const float *g, const float *beta, pn_delta_gates *gates) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += g ? (double)g[i * d->v_heads] : 0;
        gates->L[i] = sum;
        gates->beta[i] = beta[i * d->v_heads];
    }
    for (int64_t i = n; i < C; i++) gates->L[i] = gates->beta[i] = 0; /* read in whole vectors, then masked */
    gate_factors(n, gates);
}

static PN_CLONES void masked_tiles(int64_t n, const pn_delta_gates *x, float scale, bool decay,
                                   const pn_delta_tiles *t) {
    for (int64_t i = 0; i < n; i++) {
        int64_t end = (i & ~(int64_t)15) + 16;
        float *E = t->E + i * C, *A = t->A + i * C, *P = t->P + i * C;
        const float *KK = t->KK + i * C, *QK = t->QK + i * C;
        float beta = x->beta[i];
        double L = x->L[i];
        if (decay) {
#pragma omp simd
            for (int64_t j = 0; j < end; j++) {
                float below = j <= i ? (float)(L - x->L[j]) : -100.0f; /* masked before the exponential */
                E[j] = pn_exp_nonposf(below);
            }
        } else {
            for (int64_t j = 0; j < end; j++) E[j] = j <= i ? 1.0f : 0.0f;
        }
#pragma omp simd
        for (int64_t j = 0; j < end; j++) {
            float a = beta * KK[j] * E[j], p = scale * QK[j] * E[j];
            A[j] = j < i ? a : 0.0f;
            P[j] = j <= i ? p : 0.0f;
        }
    }
}

void pn_delta_system(const pn_delta_dims *d, int64_t n, const pn_delta_gates *gates, pn_delta_tiles *t) {
    masked_tiles(n, gates, d->scale, d->decay, t);
    pn_unit_lower_prepare(n, t->A, C, t->X);
}

void pn_delta_copy_rows(int64_t n, int64_t cols, const float *src, int64_t ld_src, float *dst, int64_t ld_dst) {
    for (int64_t i = 0; i < n; i++) {
        if (src)
            memcpy(dst + i * ld_dst, src + i * ld_src, sizeof(float) * (size_t)cols);
        else
            memset(dst + i * ld_dst, 0, sizeof(float) * (size_t)cols);
    }
}

PN_CLONES void pn_delta_scale_rows(int64_t n, int64_t cols, float factor, const float *row_factor, const float *src,
                                   int64_t ld, float *dst) {
    for (int64_t i = 0; i < n; i++) {
        float f = factor * row_factor[i];
        for (int64_t x = 0; x < cols; x++) dst[i * cols + x] = f * src[i * ld + x];
    }
}
