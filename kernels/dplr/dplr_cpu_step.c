/* One token per document, for decoding: the recurrence itself, at the speed of memory.
 *
 * The state is read once and written once. o needs the new state, but S_t^T q = S^T (e^g q) + <b, q> p + <k, q> v, so
 * both answers of the old state, to a and to the decayed query, come from one pass over a block of columns, and a
 * second pass over the same block, now in the first-level cache, writes the new state. */
#include "dplr_chunk.h"

#include "cpu/clones.h"
#include "cpu/fast_math.h"

enum { COLUMNS = 64, KEYS = 256 }; /* columns of the state at a time, rows for which decays are kept at once */

static bool takes(const pn_op_call *c) {
    const pn_dplr_attr *attr = c->attr;
    return !pn_op_wants(c) && pn_docs_one_each(&attr->docs);
}

/* cols <= COLUMNS columns of some rows of a head, dv apart in S: p += S^T a, o += S^T (decay q). */
static PN_CLONES void ask(int64_t rows, int64_t dv, int64_t cols, const float *decay, const float *q, const float *a,
                          const float *S, float *p, float *o) {
    for (int64_t i = 0; i < rows; i++) {
        float ai = a[i], qi = decay[i] * q[i];
        const float *row = S + i * dv;
#pragma omp simd
        for (int64_t x = 0; x < cols; x++) {
            p[x] = pn_fmaf(ai, row[x], p[x]);
            o[x] = pn_fmaf(qi, row[x], o[x]);
        }
    }
}

/* next = decay S + b p^T + k v^T for the same columns; S NULL: zero, and p with it. */
static PN_CLONES void write(int64_t rows, int64_t dv, int64_t cols, const float *decay, const float *k, const float *b,
                            const float *v, const float *p, const float *S, float *next) {
    for (int64_t i = 0; i < rows; i++) {
        float ki = k[i], bi = b[i], e = decay[i];
        float *out = next + i * dv;
        if (S) {
            const float *row = S + i * dv;
#pragma omp simd
            for (int64_t x = 0; x < cols; x++) out[x] = pn_fmaf(e, row[x], pn_fmaf(bi, p[x], ki * v[x]));
        } else {
#pragma omp simd
            for (int64_t x = 0; x < cols; x++) out[x] = ki * v[x];
        }
    }
}

typedef struct head { /* one token's rows of one head, from the first of its columns on */
    const float *q, *k, *v, *a, *b, *g, *S;
    float *o, *next;
} head;

static void step(const pn_dplr_dims *d, int64_t cols, const head *h) {
    float decay[KEYS], p[COLUMNS] = { 0 }, sum[COLUMNS] = { 0 };
    for (int64_t i = 0; h->S && i < d->dk; i += KEYS) {
        int64_t rows = d->dk - i < KEYS ? d->dk - i : KEYS;
        pn_exp_row(rows, h->g + i, decay);
        ask(rows, d->dv, cols, decay, h->q + i, h->a + i, h->S + i * d->dv, p, sum);
    }
    float kq = (float)pn_long_dot(d->dk, h->k, h->q), bq = (float)pn_long_dot(d->dk, h->b, h->q);
    for (int64_t x = 0; x < cols; x++) h->o[x] = d->scale * (sum[x] + bq * p[x] + kq * h->v[x]);
    for (int64_t i = 0; i < d->dk; i += KEYS) {
        int64_t rows = d->dk - i < KEYS ? d->dk - i : KEYS;
        if (h->S && d->dk > KEYS) pn_exp_row(rows, h->g + i, decay);
        write(rows, d->dv, cols, decay, h->k + i, h->b + i, h->v, p, h->S ? h->S + i * d->dv : NULL,
              h->next + i * d->dv);
    }
}

static pn_status forward(const pn_op_call *c) {
    pn_dplr_dims d = pn_dplr_dims_of(c);
    const pn_dplr_attr *attr = c->attr;
    const float *S0 = pn_f32_or_null(c->in[6]);
    int64_t parts = (d.dv + COLUMNS - 1) / COLUMNS, states = attr->docs.n * d.heads;
#pragma omp parallel for schedule(static) if (states * d.size > 65536)
    for (int64_t task = 0; task < states * parts; task++) {
        int64_t state = task / parts, col = task % parts * COLUMNS, cols = d.dv - col < COLUMNS ? d.dv - col : COLUMNS;
        int64_t k_at = state * d.dk, v_at = state * d.dv + col, at = state * d.size + col; /* state = token and head */
        const head h = { .q = pn_f32(c->in[0]) + k_at,
                         .k = pn_f32(c->in[1]) + k_at,
                         .v = pn_f32(c->in[2]) + v_at,
                         .a = pn_f32(c->in[3]) + k_at,
                         .b = pn_f32(c->in[4]) + k_at,
                         .g = pn_f32(c->in[5]) + k_at,
                         .S = S0 ? S0 + at : NULL,
                         .o = pn_f32(c->out[0]) + v_at,
                         .next = pn_f32(c->out[1]) + at };
        step(&d, cols, &h);
    }
    return PN_OK;
}

const pn_op_impl pn_dplr_cpu_step = { .name = "dplr/cpu-step", .takes = takes, .forward = forward };
