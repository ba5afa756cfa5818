#include "gated_delta_chunk.h"

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/tile_mm.h"
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
    return (size_t)(d->dk * C + 5 * PN_DELTA_TILE + C * PN_UNIT_LOWER_BLOCK);
}
pn_delta_tiles pn_delta_tiles_at(const pn_delta_dims *d, float **at) {
    pn_delta_tiles t;
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
    pn_tile_transpose(t->KT, C, k, d->ldk, n, d->dk);
    pn_mm p = { .m = n,
                .n = n,
                .l = d->dk,
                .a = k,
                .a_row = d->ldk,
                .a_col = 1,
                .b = t->KT,
                .ldb = C,
                .c = t->KK,
                .ldc = C,
                .scale = 1,
                .form = PN_MM_C_LOWER };
    pn_tile_mm(&p);
    p.a = q;
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

PN_CLONES void pn_delta_scale_rows(int64_t n, int64_t cols, float factor, const float *row_factor, const float *src,
                                   int64_t ld, float *dst) {
    for (int64_t i = 0; i < n; i++) {
        float f = row_factor ? factor * row_factor[i] : factor;
        for (int64_t x = 0; x < cols; x++) dst[i * cols + x] = f * src[i * ld + x];
    }
}
