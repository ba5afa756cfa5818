#include "gated_linear_chunk.h"

#include <string.h>

#include "cpu/clones.h"

enum { C = PN_GLIN_C, B = PN_GLIN_B };

static int64_t common_divisor(int64_t a, int64_t b) {
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

pn_glin_dims pn_glin_dims_of(const pn_op_call *c) {
    const pn_gated_linear_attr *a = c->attr;
    int64_t g_heads = c->in[3] ? a->g_heads : a->heads;
    bool vector = c->in[3] && a->vector_gate;
    pn_glin_dims d = { .heads = a->heads,
                       .q_share = a->heads / a->q_heads,
                       .k_share = a->heads / a->k_heads,
                       .v_share = a->heads / a->v_heads,
                       .g_share = a->heads / g_heads,
                       .dk = a->dk,
                       .dv = a->dv,
                       .size = (int64_t)a->dk * a->dv,
                       .row = pn_whole_lines(a->dk),
                       .ldq = (int64_t)a->q_heads * a->dk,
                       .ldk = (int64_t)a->k_heads * a->dk,
                       .ldv = (int64_t)a->v_heads * a->dv,
                       .ldg = g_heads * (vector ? a->dk : 1),
                       .ldo = (int64_t)a->heads * a->dv,
                       .scale = (float)a->scale,
                       .vector = vector };
    d.groups = common_divisor(common_divisor(a->q_heads, a->k_heads), common_divisor(a->v_heads, g_heads));
    return d;
}

enum { BLOCKS = C / B };

size_t pn_glin_tiles_floats(const pn_glin_dims *d) {
    int64_t own = d->vector ? 3 * C * d->row + 3 * BLOCKS * d->row : PN_GLIN_TILE;
    return (size_t)(5 * C * d->row + PN_GLIN_TILE + d->row + own);
}
pn_glin_tiles pn_glin_tiles_at(const pn_glin_dims *d, float **at) {
    pn_glin_tiles t = { 0 };
    float **const rows[] = { &t.Q, &t.K, &t.Qin, &t.Kout, &t.work };
    for (int i = 0; i < 5; i++) *rows[i] = pn_take(at, C * d->row);
    t.A = pn_take(at, PN_GLIN_TILE);
    t.through = pn_take(at, d->row);
    if (!d->vector) {
        t.E = pn_take(at, PN_GLIN_TILE);
        return t;
    }
    t.a = pn_take(at, C * d->row);
    t.pre = pn_take(at, C * d->row);
    t.suf = pn_take(at, C * d->row);
    t.block = pn_take(at, BLOCKS * d->row);
    t.start = pn_take(at, BLOCKS * d->row);
    t.end = pn_take(at, BLOCKS * d->row);
    return t;
}

static PN_CLONES void load(const pn_glin_dims *d, int64_t n, float factor, const float *src, int64_t ld, float *dst) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t x = 0; x < d->dk; x++) dst[i * d->row + x] = factor * src[i * ld + x];
        for (int64_t x = d->dk; x < d->row; x++) dst[i * d->row + x] = 0;
    }
    int64_t whole = (n + B - 1) / B * B;
    memset(dst + n * d->row, 0, sizeof(float) * (size_t)((whole - n) * d->row));
}

void pn_glin_chunk(const pn_glin_dims *d, int64_t n, const float *q, const float *k, const float *g, pn_glin_tiles *t) {
    load(d, n, d->scale, q, d->ldq, t->Q);
    load(d, n, 1, k, d->ldk, t->K);
    if (d->vector)
        pn_glin_vector_chunk(d, n, g, t);
    else
        pn_glin_scalar_chunk(d, n, g, t);
}
