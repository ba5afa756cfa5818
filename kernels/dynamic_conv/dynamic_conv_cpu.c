#include "dynamic_conv_cpu.h"

#include <omp.h>
#include <string.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/rows.h"

enum { VALUES, HIDDEN, W2, B2, STATE };
enum { LANES = PN_DCONV_LANES, TILE = PN_DCONV_TILE, STRETCH = PN_DCONV_STRETCH };
enum { GROUP_FLOATS = 65536 }; /* of turned w2: a quarter of a MB */

pn_dconv pn_dconv_sizes(const pn_op_call *c) {
    const pn_dynamic_conv_attr *a = c->attr;
    pn_dconv d = { .attr = a,
                   .tokens = c->in[VALUES]->shape[0],
                   .channels = c->in[VALUES]->shape[1],
                   .width = a->width,
                   .rank = c->in[HIDDEN]->shape[1],
                   .cols = a->width * LANES };
    d.blocks = (d.channels + LANES - 1) / LANES;
    d.group_blocks = GROUP_FLOATS / (d.rank * d.cols);
    d.group_blocks = d.group_blocks < 1 ? 1 : pn_dconv_smaller(d.group_blocks, d.blocks);
    return d;
}

int64_t pn_dconv_history_floats(const pn_op_call *c) {
    const pn_dynamic_conv_attr *a = c->attr;
    return pn_whole_lines(pn_window_histories(&a->docs, c->in[STATE]) * a->width * c->in[VALUES]->shape[1]);
}

pn_dconv pn_dconv_make(const pn_op_call *c, float *history) {
    pn_dconv d = pn_dconv_sizes(c);
    d.h = pn_f32(c->in[HIDDEN]);
    d.w2 = pn_f32(c->in[W2]);
    d.b2 = pn_f32(c->in[B2]);
    d.c = pn_window_make(&d.attr->docs, pn_f32(c->in[VALUES]), pn_f32_or_null(c->in[STATE]), d.channels, d.width,
                         history);
    return d;
}

bool pn_dconv_is_large(const pn_dconv *d) {
    return (d->tokens + d->rank * d->width) * d->channels > 16384;
}

int64_t pn_dconv_group_floats(const pn_dconv *d) {
    return (d->group_blocks * (1 + d->rank) + TILE) * d->cols;
}

pn_dconv_group pn_dconv_group_take(const pn_dconv *d, float **at) {
    pn_dconv_group g = { 0 };
    g.bias = pn_take(at, d->group_blocks * d->cols);
    g.w2 = pn_take(at, d->group_blocks * d->rank * d->cols);
    g.taps = pn_take(at, TILE * d->cols);
    return g;
}

void pn_dconv_group_turn(const pn_dconv *d, int64_t first, int64_t end, pn_dconv_group *g) {
    int64_t width = d->width, rank = d->rank, cols = d->cols;
    g->first = first;
    g->n = pn_dconv_smaller(end - first, d->group_blocks);
    for (int64_t i = 0; i < g->n; i++) {
        int64_t ch = (first + i) * LANES, n = pn_dconv_lanes(d, first + i);
        float *bias = g->bias + i * cols, *w2 = g->w2 + i * rank * cols;
        if (n < LANES) {
            memset(bias, 0, (size_t)cols * sizeof *bias);
            memset(w2, 0, (size_t)(rank * cols) * sizeof *w2);
        }
        for (int64_t w = 0; w < width; w++) {
            for (int64_t k = 0; k < n; k++) bias[w * LANES + k] = d->b2[(ch + k) * width + w];
            pn_tile_transpose(w2 + w * LANES, cols, d->w2 + (ch * width + w) * rank, width * rank, n, rank);
        }
    }
}

void pn_dconv_taps(const pn_dconv *d, const pn_dconv_group *g, int64_t i, int64_t t, int64_t n, pn_ahead *ahead) {
    int64_t rank = d->rank, cols = d->cols;
    pn_mm p = pn_mm_of(n, cols, rank, d->h + t * rank, rank, g->w2 + i * rank * cols, cols, g->taps, cols);
    pn_mm_keep(&p, 1, g->bias + i * cols, 0); /* the same row for all */
    p.ahead = ahead;
    pn_tile_mm(&p);
}

void pn_dconv_ahead(const pn_dconv *d, const pn_dconv_group *g, int64_t t, int64_t t1, const float *x,
                    pn_ahead *ahead) {
    int64_t ch = g->first * LANES, rows = pn_dconv_smaller(TILE, t1 - t);
    if (x && rows > 0)
        pn_ahead_add(ahead, rows, pn_dconv_smaller(g->n * LANES, d->channels - ch), x + t * d->channels + ch,
                     d->channels);
}

/* v = silu(sum_w taps_w x_w), n channels of one token; x: the oldest row of its window, ld to the next. */
PN_INLINE void token_four(const float *taps, const float *x, int64_t ld, int64_t n, float *restrict v) {
    const float *x1 = x + ld, *x2 = x1 + ld, *x3 = x2 + ld;
#pragma omp simd
    for (int64_t k = 0; k < n; k++) {
        float y = pn_fmaf(taps[LANES + k], x1[k], taps[k] * x[k]);
        float z = pn_fmaf(taps[3 * LANES + k], x3[k], taps[2 * LANES + k] * x2[k]);
        v[k] = pn_siluf(y + z);
    }
}

/* The same for any width, and a window that may reach before the document: from position `oldest` on. */
PN_INLINE void token_any(const pn_dconv *d, int64_t doc, int64_t oldest, int64_t ch, int64_t n, const float *taps,
                         float *restrict v) {
    for (int64_t k = 0; k < n; k++) v[k] = 0;
    for (int64_t w = 0; w < d->width; w++, taps += LANES) {
        const float *x = pn_window_row(&d->c, &d->attr->docs, doc, oldest + w) + ch;
        for (int64_t k = 0; k < n; k++) v[k] = pn_fmaf(taps[k], x[k], v[k]);
    }
    for (int64_t k = 0; k < n; k++) v[k] = pn_siluf(v[k]);
}

/* A block of n channels from ch for the tokens t .. end - 1. */
PN_CLONES static void forward_tile(const pn_dconv *d, int64_t ch, int64_t n, int64_t t, int64_t end, const float *taps,
                                   float *v) {
    const pn_docs *docs = &d->attr->docs;
    int64_t doc = pn_window_doc(docs, 0, t), width = d->width, channels = d->channels;
    for (; t < end; t++, taps += width * LANES) {
        doc = pn_window_doc(docs, doc, t);
        int64_t oldest = t - docs->offset[doc] - (width - 1), at = t * channels + ch;
        if (width == 4 && oldest >= 0 && n == LANES)
            token_four(taps, d->c.tokens + at - 3 * channels, channels, LANES, v + at);
        else
            token_any(d, doc, oldest, ch, n, taps, v + at);
    }
}

/* Blocks first .. end - 1 for the tokens from t0 to t1. */
static void forward_task(const pn_dconv *d, pn_dconv_group *g, int64_t first, int64_t end, int64_t t0, int64_t t1,
                         float *v) {
    for (; first < end; first += g->n) {
        pn_dconv_group_turn(d, first, end, g);
        for (int64_t t = t0; t < t1; t += TILE) {
            int64_t n = pn_dconv_smaller(TILE, t1 - t);
            pn_ahead ahead = { 0 };
            pn_dconv_ahead(d, g, t + TILE, t1, d->c.tokens, &ahead);
            pn_dconv_ahead(d, g, t + TILE, t1, v, &ahead);
            for (int64_t i = 0; i < g->n; i++) {
                pn_dconv_taps(d, g, i, t, n, &ahead);
                forward_tile(d, (first + i) * LANES, pn_dconv_lanes(d, first + i), t, t + n, g->taps, v);
            }
        }
    }
}

static pn_status forward(const pn_op_call *c) {
    float *own = (float *)c->scratch + pn_dconv_history_floats(c), *v = pn_f32(c->out[0]);
    pn_dconv d = pn_dconv_make(c, c->scratch);
    int64_t own_floats = pn_dconv_group_floats(&d);
#pragma omp parallel if (pn_dconv_is_large(&d))
    {
        int64_t runs = omp_get_num_threads();
        float *mine = own + omp_get_thread_num() * own_floats;
        pn_dconv_group g = pn_dconv_group_take(&d, &mine);
#pragma omp for collapse(2) schedule(static)
        for (int64_t t = 0; t < d.tokens; t += STRETCH)
            for (int64_t i = 0; i < runs; i++)
                forward_task(&d, &g, d.blocks * i / runs, d.blocks * (i + 1) / runs, t,
                             pn_dconv_smaller(t + STRETCH, d.tokens), v);
    }
    pn_window_new_state(&d.c, &d.attr->docs, pn_f32(c->out[1]));
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    if (backward) return pn_dconv_backward_bytes(c);
    pn_dconv d = pn_dconv_sizes(c);
    return (size_t)(pn_dconv_history_floats(c) + omp_get_max_threads() * pn_dconv_group_floats(&d)) * sizeof(float);
}

static const pn_op_impl impl = {
    .name = "dynamic_conv/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = pn_dconv_backward
};
extern const pn_op_impl *const dynamic_conv_cpu[];
const pn_op_impl *const dynamic_conv_cpu[] = { &impl, NULL };
