/* One token per document, for decoding: the recurrence itself, at the speed of memory. The state is read once and
 * written once, a block of columns at a time. */
#include "gated_linear_chunk.h"

#include "cpu/clones.h"
#include "cpu/fast_math.h"

enum { COLUMNS = 64, KEYS = 256 }; /* columns of the state at a time, rows for which decays are kept at once */

static bool takes(const pn_op_call *c) {
    const pn_gated_linear_attr *a = c->attr;
    return !pn_op_wants(c) && pn_docs_one_each(&a->docs);
}

/* cols <= COLUMNS columns of some rows of a head, dv apart in S and next; adds q S to sum. S NULL: zero. */
static PN_CLONES void step(int64_t rows, int64_t dv, int64_t cols, const float *decay, const float *q, const float *k,
                           const float *v, const float *S, float *sum, float *next) {
    for (int64_t i = 0; i < rows; i++) {
        float ki = k[i], qi = q[i], e = decay[i];
        const float *row = S ? S + i * dv : NULL;
        float *out = next + i * dv;
        if (row) {
#pragma omp simd
            for (int64_t x = 0; x < cols; x++) {
                float s = pn_fmaf(e, row[x], ki * v[x]);
                out[x] = s;
                sum[x] = pn_fmaf(qi, s, sum[x]);
            }
        } else {
#pragma omp simd
            for (int64_t x = 0; x < cols; x++) {
                float s = ki * v[x];
                out[x] = s;
                sum[x] = pn_fmaf(qi, s, sum[x]);
            }
        }
    }
}

static pn_status forward(const pn_op_call *c) {
    pn_glin_dims d = pn_glin_dims_of(c);
    const pn_gated_linear_attr *a = c->attr;
    const float *q = pn_f32(c->in[0]), *k = pn_f32(c->in[1]), *v = pn_f32(c->in[2]), *g = pn_f32_or_null(c->in[3]);
    const float *S0 = pn_f32_or_null(c->in[4]);
    float *o = pn_f32(c->out[0]), *final = pn_f32(c->out[1]);
    int64_t parts = (d.dv + COLUMNS - 1) / COLUMNS, states = a->docs.n * d.heads;
#pragma omp parallel for schedule(static) if (states * d.size > 65536)
    for (int64_t task = 0; task < states * parts; task++) {
        int64_t state = task / parts, col = task % parts * COLUMNS, cols = d.dv - col < COLUMNS ? d.dv - col : COLUMNS;
        int64_t token = state / d.heads, j = state % d.heads, at = state * d.size + col;
        const float *qi = q + pn_glin_at(token, d.ldq, j, d.q_share, d.dk);
        const float *ki = k + pn_glin_at(token, d.ldk, j, d.k_share, d.dk);
        const float *vi = v + pn_glin_at(token, d.ldv, j, d.v_share, d.dv) + col;
        const float *gi = g ? g + pn_glin_at(token, d.ldg, j, d.g_share, d.vector ? d.dk : 1) : NULL;
        float *oi = o + pn_glin_at(token, d.ldo, j, 1, d.dv) + col, sum[COLUMNS] = { 0 }, decay[KEYS];
        for (int i = 0; !d.vector && i < KEYS; i++) decay[i] = gi ? pn_expf(*gi) : 1.0f;
        for (int64_t i = 0; i < d.dk; i += KEYS) {
            int64_t rows = d.dk - i < KEYS ? d.dk - i : KEYS;
            if (d.vector) pn_exp_row(rows, gi + i, decay);
            step(rows, d.dv, cols, decay, qi + i, ki + i, vi, S0 ? S0 + at + i * d.dv : NULL, sum,
                 final + at + i * d.dv);
        }
        for (int64_t x = 0; x < cols; x++) oi[x] = d.scale * sum[x];
    }
    return PN_OK;
}

const pn_op_impl pn_gated_linear_cpu_step = { .name = "gated_linear/cpu-step", .takes = takes, .forward = forward };
