#include "gated_delta_chunk.h"

#include "cpu/clones.h"
#include "cpu/unit_lower.h"

enum { C = PN_DELTA_C };

/* Half chunks multiply half as much inside themselves and go through the state twice as often: that pays while the
 * state is small (measured: up to 96 x 256; at 128 x 256 forward gains 5 % and backward loses 7 %). */
static int64_t chunk_of(int64_t dk, int64_t dv) {
    return dk * dv <= 96 * 256 ? C / 2 : C;
}

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
                            .chunk = chunk_of(a->dk, a->dv),
                            .scale = (float)a->scale };
}

size_t pn_delta_tiles_floats(const pn_delta_dims *d) {
    return (size_t)(3 * d->dk * C + 5 * PN_DELTA_TILE + C * PN_UNIT_LOWER_BLOCK);
}
pn_delta_tiles pn_delta_tiles_at(const pn_delta_dims *d, float **at) {
    pn_delta_tiles t = { 0 };
    t.Q = pn_take(at, 2 * d->dk * C);
    t.KT = pn_take(at, d->dk * C);
    t.KK = pn_take(at, PN_DELTA_TILE);
    t.QK = pn_take(at, PN_DELTA_TILE);
    t.E = pn_take(at, PN_DELTA_TILE);
    t.A = pn_take(at, PN_DELTA_TILE);
    t.P = pn_take(at, PN_DELTA_TILE);
    t.X = pn_take(at, C * PN_UNIT_LOWER_BLOCK);
    return t;
}

void pn_delta_scores(const pn_delta_dims *d, int64_t n, const float *q, const float *k, pn_delta_tiles *t) {
    t->K = t->Q + n * d->dk;
    pn_copy_rows(n, d->dk, q, d->ldk, t->Q, d->dk);
    pn_copy_rows(n, d->dk, k, d->ldk, t->K, d->dk);
    pn_tile_transpose(t->KT, C, t->K, d->dk, n, d->dk);
    pn_mm p = pn_mm_of(n, n, d->dk, t->K, d->dk, t->KT, C, t->KK, C);
    p.ahead = &t->ahead;
    p.form = PN_MM_C_LOWER;
    pn_tile_mm(&p);
    p.a = t->Q;
    p.c = t->QK;
    pn_tile_mm(&p);
}

void pn_delta_gates_of(const pn_delta_dims *d, int64_t n, const float *g, const float *beta, pn_delta_gates *gates) {
    pn_chunk_decay_of(n, g, d->v_heads, &gates->decay);
    for (int64_t i = 0; i < n; i++) {
        gates->beta[i] = beta[i * d->v_heads];
        gates->write[i] = gates->beta[i] * gates->decay.out[i];
    }
}

static PN_CLONES void masked_tiles(int64_t n, const float *row, const float *column, float scale,
                                   const pn_delta_tiles *t) {
    for (int64_t i = 0; i < n; i++) {
        int64_t end = (i & ~(int64_t)15) + 16;
        float *A = t->A + i * C, *P = t->P + i * C, factor = row[i];
        const float *E = t->E + i * C, *KK = t->KK + i * C, *QK = t->QK + i * C;
#pragma omp simd
        for (int64_t j = 0; j < end; j++) {
            float decay = column[j] * E[j], a = factor * KK[j] * decay, p = scale * QK[j] * decay;
            A[j] = j < i ? a : 0.0f;
            P[j] = j <= i ? p : 0.0f;
        }
    }
}

void pn_delta_system(const pn_delta_dims *d, int64_t n, const pn_delta_gates *gates, const float *row,
                     const float *column, pn_delta_tiles *t) {
    float ones[C];
    for (int i = 0; i < C; i++) ones[i] = 1;
    pn_chunk_decay_tile(n, &gates->decay, t->E);
    masked_tiles(n, row ? row : ones, column ? column : ones, d->scale, t);
    pn_unit_lower_prepare(n, t->A, C, t->X);
}

void pn_delta_next_state(const pn_delta_dims *d, int64_t n, int64_t cols, const pn_delta_gates *gates, const float *k,
                         int64_t ldk, const float *e, int64_t lde, const float *S, int64_t ldS, float *next,
                         int64_t ld_next, float *keys, pn_ahead *ahead) {
    pn_scale_rows(n, d->dk, 1, gates->write, k, ldk, keys);
    pn_mm s = pn_mm_transposed_of(d->dk, cols, n, keys, d->dk, e, lde, next, ld_next);
    if (S) pn_mm_keep(&s, gates->decay.through, S, ldS);
    s.ahead = ahead;
    pn_tile_mm(&s);
}
