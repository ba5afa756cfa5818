#include "rope.h"

#include <math.h>
#include <stdlib.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"

/* The table holds cos and sin for every position in use: positions that documents share are computed once. When the
 * documents stand far apart (decoding), there is a row per token instead, so it never has more rows than tokens.
 *
 * Angles reach 1e5 radians and more, so they are formed in double. A row every STRIDE positions comes from libm, those
 * between by turning in double, which loses 1e-14 at most. */
enum { STRIDE = 32 };

typedef struct table {
    int64_t rows, first; /* row r is position first + r, unless per_token */
    bool per_token;
    double *turn;  /* 2 x half: cos f_i, then sin f_i */
    double *angle; /* half: f_i */
    float *row;    /* rows x 2 half: cos, then sin */
} table;

static table table_shape(const pn_rope_attr *a) {
    int64_t lo = INT64_MAX, hi = 0, tokens = pn_docs_tokens(&a->docs);
    for (int64_t i = 0; i < a->docs.n; i++) {
        int64_t length = a->docs.offset[i + 1] - a->docs.offset[i], past = pn_docs_past(&a->docs, i);
        if (!length) continue;
        lo = past < lo ? past : lo;
        hi = past + length > hi ? past + length : hi;
    }
    if (!tokens) return (table){ 0 };
    return hi - lo <= tokens ? (table){ .rows = hi - lo, .first = lo } : (table){ .rows = tokens, .per_token = true };
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    (void)backward;
    const pn_rope_attr *a = c->attr;
    size_t half = (size_t)a->head_dim / 2;
    return 3 * half * sizeof(double) + (size_t)table_shape(a).rows * 2 * half * sizeof(float);
}

/* Rows 0 .. n-1 of consecutive positions starting at `position`. */
static void fill_rows(const table *t, int64_t half, int64_t position, int64_t n, float *row) {
    for (int64_t i = 0; i < half; i++) {
        double c = cos((double)position * t->angle[i]), s = sin((double)position * t->angle[i]);
        double turn_c = t->turn[i], turn_s = t->turn[half + i];
        for (int64_t r = 0; r < n; r++) {
            row[r * 2 * half + i] = (float)c;
            row[r * 2 * half + half + i] = (float)s;
            double next = c * turn_c - s * turn_s;
            s = s * turn_c + c * turn_s;
            c = next;
        }
    }
}

static void fill_range(const table *t, int64_t half, int64_t position, int64_t n, float *row) {
#pragma omp parallel for schedule(static) if (n * half > 8192)
    for (int64_t r = 0; r < n; r += STRIDE)
        fill_rows(t, half, position + r, n - r < STRIDE ? n - r : STRIDE, row + r * 2 * half);
}

static table table_make(const pn_rope_attr *a, void *scratch) {
    table t = table_shape(a);
    int64_t half = a->head_dim / 2;
    t.turn = scratch;
    t.angle = t.turn + 2 * half;
    t.row = (float *)(t.angle + half);
    for (int64_t i = 0; i < half; i++) {
        t.angle[i] = pow(a->theta, -2.0 * (double)i / a->head_dim);
        t.turn[i] = cos(t.angle[i]);
        t.turn[half + i] = sin(t.angle[i]);
    }
    if (!t.per_token) {
        fill_range(&t, half, t.first, t.rows, t.row);
        return t;
    }
    for (int64_t i = 0; i < a->docs.n; i++)
        fill_range(&t, half, pn_docs_past(&a->docs, i), a->docs.offset[i + 1] - a->docs.offset[i],
                   t.row + a->docs.offset[i] * 2 * half);
    return t;
}

PN_CLONES static void rotate_token(const float *restrict cosine, const float *restrict sine, float direction,
                                   const float *restrict x, float *restrict y, int64_t heads, int64_t half, int add) {
    for (int64_t h = 0; h < heads; h++, x += 2 * half, y += 2 * half) {
        if (add) {
            for (int64_t i = 0; i < half; i++) {
                float s = direction * sine[i];
                y[i] += pn_fmaf(x[i], cosine[i], -x[i + half] * s);
                y[i + half] += pn_fmaf(x[i + half], cosine[i], x[i] * s);
            }
        } else {
            for (int64_t i = 0; i < half; i++) {
                float s = direction * sine[i];
                y[i] = pn_fmaf(x[i], cosine[i], -x[i + half] * s);
                y[i + half] = pn_fmaf(x[i + half], cosine[i], x[i] * s);
            }
        }
    }
}

static void rotate(const pn_op_call *c, float direction, const float *x, float *y, bool add) {
    const pn_rope_attr *a = c->attr;
    int64_t half = a->head_dim / 2, heads = a->heads, width = heads * a->head_dim;
    table t = table_make(a, c->scratch);
    for (int64_t doc = 0; doc < a->docs.n; doc++) {
        int64_t begin = a->docs.offset[doc], end = a->docs.offset[doc + 1];
        int64_t row0 = t.per_token ? begin : pn_docs_past(&a->docs, doc) - t.first;
#pragma omp parallel for schedule(static) if ((end - begin) * width > 65536)
        for (int64_t i = begin; i < end; i++) {
            const float *row = t.row + (row0 + i - begin) * 2 * half;
            rotate_token(row, row + half, direction, x + i * width, y + i * width, heads, half, add);
        }
    }
}

static pn_status forward(const pn_op_call *c) {
    rotate(c, 1.0f, pn_f32(c->in[0]), pn_f32(c->out[0]), false);
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (c->dout[0] && c->din[0]) rotate(c, -1.0f, pn_f32(c->dout[0]), pn_f32(c->din[0]), true);
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = "rope/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const rope_cpu[];
const pn_op_impl *const rope_cpu[] = { &impl, NULL };
