/* One token per document, for decoding: the recurrence itself, at the speed of memory.
 *
 * The state is read once and written once. o needs the new state, but S_t^T q = e^g S^T q + <k, q> u, so both answers
 * of the old state, to the key and to the query, come from one pass over a block of columns, and a second pass over the
 * same block, now in the first-level cache, writes the new state. */
#include "gated_delta_chunk.h"

#include <math.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"

enum { COLUMNS = 64 }; /* of the state at a time: 256 rows of them are 64 KiB, 96 rows 24 KiB */

static bool takes(const pn_op_call *c) {
    const pn_gated_delta_attr *a = c->attr;
    return !pn_op_wants(c) && pn_docs_one_each(&a->docs);
}

/* cols <= COLUMNS columns of one head; rows of S and next are dv apart. S NULL: zero. */
static PN_CLONES void step(int64_t dk, int64_t dv, int64_t cols, float decay, float beta, float scale, float kq,
                           const float *q, const float *k, const float *v, const float *S, float *o, float *next) {
    float key[COLUMNS] = { 0 }, query[COLUMNS] = { 0 }, u[COLUMNS];
    if (S)
        for (int64_t i = 0; i < dk; i++) {
            float ki = k[i], qi = q[i];
            const float *row = S + i * dv;
#pragma omp simd
            for (int64_t x = 0; x < cols; x++) {
                key[x] = pn_fmaf(row[x], ki, key[x]);
                query[x] = pn_fmaf(row[x], qi, query[x]);
            }
        }
    for (int64_t x = 0; x < cols; x++) {
        u[x] = beta * (v[x] - decay * key[x]);
        o[x] = scale * (decay * query[x] + kq * u[x]);
    }
    for (int64_t i = 0; i < dk; i++) {
        float ki = k[i];
        float *out = next + i * dv;
        if (S) {
            const float *row = S + i * dv;
#pragma omp simd
            for (int64_t x = 0; x < cols; x++) out[x] = pn_fmaf(ki, u[x], decay * row[x]);
        } else {
#pragma omp simd
            for (int64_t x = 0; x < cols; x++) out[x] = ki * u[x];
        }
    }
}

static pn_status forward(const pn_op_call *c) {
    pn_delta_dims d = pn_delta_dims_of(c);
    const pn_gated_delta_attr *a = c->attr;
    const float *q = pn_f32(c->in[0]), *k = pn_f32(c->in[1]), *v = pn_f32(c->in[2]), *g = pn_f32_or_null(c->in[3]);
    const float *beta = pn_f32(c->in[4]), *S0 = c->n_in > 5 ? pn_f32_or_null(c->in[5]) : NULL;
    float *o = pn_f32(c->out[0]), *final = pn_f32(c->out[1]);
    int64_t parts = (d.dv + COLUMNS - 1) / COLUMNS, states = a->docs.n * d.v_heads;
#pragma omp parallel for schedule(static) if (states * d.size > 65536)
    for (int64_t task = 0; task < states * parts; task++) {
        int64_t state = task / parts, col = task % parts * COLUMNS, cols = d.dv - col < COLUMNS ? d.dv - col : COLUMNS;
        int64_t token = state / d.v_heads, j = state % d.v_heads;
        const float *qi = q + token * d.ldk + j / d.group * d.dk, *ki = k + token * d.ldk + j / d.group * d.dk;
        float kq = 0;
#pragma omp simd reduction(+ : kq)
        for (int64_t i = 0; i < d.dk; i++) kq += ki[i] * qi[i];
        int64_t at = token * d.ldv + j * d.dv + col, state_at = state * d.size + col;
        step(d.dk, d.dv, cols, g ? pn_expf(g[state]) : 1.0f, beta[state], d.scale, kq, qi, ki, v + at,
             S0 ? S0 + state_at : NULL, o + at, final + state_at);
    }
    return PN_OK;
}

const pn_op_impl pn_gated_delta_cpu_step = { .name = "gated_delta/cpu-step", .takes = takes, .forward = forward };
