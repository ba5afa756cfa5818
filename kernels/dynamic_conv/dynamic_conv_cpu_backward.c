/* Backward on the CPU. A thread owns the dc, dw2 and db2 of its channels and walks the tokens in order. dh is a sum
 * over all channels: the blocks are cut into SHARES runs, whatever the number of threads, each with a dh of its own,
 * and these are added in order after every STRETCH of tokens.
 *
 * dh is made transposed, [R, tokens]: its columns then fill the register tile, as R rarely would.
 *
 * What bounds it: the taps made again are a third product beside the useful two, so it can come to two thirds of sgemm;
 * a fifth of the time is not products (elementwise gradients, turning the gradients of taps for dh), which leaves 0.53
 * at R = 72. Keeping the taps instead would take 4 V numbers per token. */
#include <omp.h>
#include <string.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/rows.h"
#include "dynamic_conv_cpu.h"

enum { VALUES, HIDDEN, W2, B2, STATE };
enum { LANES = PN_DCONV_LANES, TILE = PN_DCONV_TILE, STRETCH = PN_DCONV_STRETCH, SHARES = 16 };

typedef struct grad {
    const float *dv;
    float *dc, *dw2, *db2; /* NULL: not wanted */
    float *dh;             /* [shares, tiles, R, TILE] of a stretch */
    float *dhistory;       /* W rows of V per document */
    bool wants_h, wants_history;
    int64_t shares, dh_stride; /* floats from share to share */
} grad;

typedef struct group_grad { /* in a thread's own memory */
    pn_dconv_group g;
    float *dbias;  /* [blocks, W, LANES] */
    float *dw2;    /* [blocks, R, W, LANES] */
    float *turned; /* [W, LANES, TILE] gradients of taps; [W, LANES, R] dw2 of a block; [TILE, R] dh */
    float *sink;   /* [LANES]: for what is not wanted */
} group_grad;

static int64_t shares_of(const pn_dconv *d) {
    return pn_dconv_smaller(SHARES, d->blocks);
}
static int64_t dh_floats(const pn_dconv *d) {
    return (pn_dconv_smaller(STRETCH, d->tokens) + TILE - 1) / TILE * TILE * d->rank;
}
static int64_t turned_floats(const pn_dconv *d) {
    return (d->cols > TILE ? d->cols : TILE) * (d->rank > TILE ? d->rank : TILE);
}
static int64_t own_floats(const pn_dconv *d) {
    return pn_dconv_group_floats(d) + d->group_blocks * (1 + d->rank) * d->cols + LANES +
           pn_whole_lines(turned_floats(d));
}

size_t pn_dconv_backward_bytes(const pn_op_call *c) {
    pn_dconv d = pn_dconv_sizes(c);
    return (size_t)(2 * pn_dconv_history_floats(c) + shares_of(&d) * dh_floats(&d) +
                    omp_get_max_threads() * own_floats(&d)) *
           sizeof(float);
}

static group_grad group_grad_take(const pn_dconv *d, float *mine) {
    group_grad x = { .g = pn_dconv_group_take(d, &mine) };
    x.dbias = pn_take(&mine, d->group_blocks * d->cols);
    x.dw2 = pn_take(&mine, d->group_blocks * d->rank * d->cols);
    x.sink = pn_take(&mine, LANES);
    x.turned = pn_take(&mine, turned_floats(d));
    memset(x.sink, 0, LANES * sizeof *x.sink);
    return x;
}

/* n channels of one token: p = dv silu'(y); the gradients dx of the window's rows += p taps; taps become dK = p x;
 * dbias += dK. x and dx: the oldest row, ld to the next. */
PN_INLINE void token_four(const float *dv, float *taps, const float *x, float *dx, int64_t ld, float *dbias,
                          int64_t n) {
    const float *x1 = x + ld, *x2 = x1 + ld, *x3 = x2 + ld;
    float *d1 = dx + ld, *d2 = d1 + ld, *d3 = d2 + ld;
    float *t1 = taps + LANES, *t2 = t1 + LANES, *t3 = t2 + LANES;
    float *b1 = dbias + LANES, *b2 = b1 + LANES, *b3 = b2 + LANES;
#pragma omp simd
    for (int64_t k = 0; k < n; k++) {
        float k0 = taps[k], k1 = t1[k], k2 = t2[k], k3 = t3[k], c0 = x[k], c1 = x1[k], c2 = x2[k], c3 = x3[k];
        float p = dv[k] * pn_silu_gradf(pn_fmaf(k1, c1, k0 * c0) + pn_fmaf(k3, c3, k2 * c2));
        dx[k] = pn_fmaf(p, k0, dx[k]);
        d1[k] = pn_fmaf(p, k1, d1[k]);
        d2[k] = pn_fmaf(p, k2, d2[k]);
        d3[k] = pn_fmaf(p, k3, d3[k]);
        taps[k] = c0 *= p;
        t1[k] = c1 *= p;
        t2[k] = c2 *= p;
        t3[k] = c3 *= p;
        dbias[k] += c0;
        b1[k] += c1;
        b2[k] += c2;
        b3[k] += c3;
    }
}

/* The same for any width, and a window that may reach before the document: from position `oldest` on. */
PN_INLINE void token_any(const pn_dconv *d, const grad *g, int64_t doc, int64_t oldest, int64_t ch, int64_t n,
                         const float *dv, float *taps, float *dbias, float *sink) {
    const pn_docs *docs = &d->attr->docs;
    float p[LANES] = { 0 };
    for (int64_t w = 0; w < d->width; w++) {
        const float *x = pn_window_row(&d->c, docs, doc, oldest + w) + ch;
        for (int64_t k = 0; k < n; k++) p[k] = pn_fmaf(taps[w * LANES + k], x[k], p[k]);
    }
    for (int64_t k = 0; k < n; k++) p[k] = dv[k] * pn_silu_gradf(p[k]);
    for (int64_t w = 0; w < d->width; w++, taps += LANES, dbias += LANES) {
        int64_t from = oldest + w;
        const float *x = pn_window_row(&d->c, docs, doc, from) + ch;
        float *restrict dx = sink, *restrict dk = taps, *restrict db = dbias;
        if (from >= 0 && g->dc) dx = g->dc + (docs->offset[doc] + from) * d->channels + ch;
        if (from < 0 && g->wants_history)
            dx = g->dhistory + doc * d->c.history_stride + (d->width + from) * d->channels + ch;
        for (int64_t k = 0; k < n; k++) {
            dx[k] = pn_fmaf(p[k], dk[k], dx[k]);
            dk[k] = p[k] * x[k];
            db[k] += dk[k];
        }
    }
}

/* A block of n channels from ch for the tokens t .. end - 1. */
PN_CLONES static void backward_tile(const pn_dconv *d, const grad *g, int64_t ch, int64_t n, int64_t t, int64_t end,
                                    float *taps, float *dbias, float *sink) {
    const pn_docs *docs = &d->attr->docs;
    int64_t doc = pn_window_doc(docs, 0, t), width = d->width, channels = d->channels;
    for (; t < end; t++, taps += width * LANES) {
        doc = pn_window_doc(docs, doc, t);
        int64_t oldest = t - docs->offset[doc] - (width - 1), at = t * channels + ch, first = at - 3 * channels;
        if (width == 4 && oldest >= 0 && n == LANES && g->dc)
            token_four(g->dv + at, taps, d->c.tokens + first, g->dc + first, channels, dbias, LANES);
        else
            token_any(d, g, doc, oldest, ch, n, g->dv + at, taps, dbias, sink);
    }
}

/* Block i of the group for n tokens from t; dh: the tile's, in the block's share. */
static void block_task(const pn_dconv *d, const grad *g, const group_grad *x, int64_t i, int64_t t, int64_t n,
                       float *dh, pn_ahead *ahead) {
    int64_t block = x->g.first + i, rank = d->rank, cols = d->cols;
    float *dk = x->g.taps, *dw2 = x->dw2 + i * rank * cols;
    pn_dconv_taps(d, &x->g, i, t, n, ahead);
    backward_tile(d, g, block * LANES, pn_dconv_lanes(d, block), t, t + n, dk, x->dbias + i * cols, x->sink);
    if (g->dw2) {
        pn_mm p = pn_mm_transposed_of(rank, cols, n, d->h + t * rank, rank, dk, cols, dw2, cols);
        pn_mm_keep(&p, 1, dw2, cols);
        p.ahead = ahead;
        pn_tile_mm(&p);
    }
    if (g->wants_h) {
        pn_tile_transpose(x->turned, TILE, dk, cols, n, cols);
        pn_mm p = pn_mm_of(rank, n, cols, x->g.w2 + i * rank * cols, cols, x->turned, TILE, dh, TILE);
        pn_mm_keep(&p, 1, dh, TILE);
        p.ahead = ahead;
        pn_tile_mm(&p);
    }
}

/* db2 and dw2 += those of the group's block i. */
static void add_block(const pn_dconv *d, const grad *g, const group_grad *x, int64_t i) {
    int64_t width = d->width, rank = d->rank, block = x->g.first + i, ch = block * LANES, n = pn_dconv_lanes(d, block);
    for (int64_t w = 0; g->db2 && w < width; w++)
        for (int64_t k = 0; k < n; k++) g->db2[(ch + k) * width + w] += x->dbias[i * d->cols + w * LANES + k];
    if (!g->dw2) return;
    pn_tile_transpose(x->turned, rank, x->dw2 + i * rank * d->cols, d->cols, rank, d->cols);
    for (int64_t w = 0; w < width; w++)
        pn_add_rows(n, rank, 1, x->turned + w * LANES * rank, rank, g->dw2 + (ch * width + w) * rank, width * rank);
}

/* Shares first .. end - 1 for the tokens from t0 to t1. */
static void shares_task(const pn_dconv *d, const grad *g, group_grad *x, int64_t first, int64_t end, int64_t t0,
                        int64_t t1) {
    int64_t last = d->blocks * end / g->shares;
    if (g->wants_h) memset(g->dh + first * g->dh_stride, 0, (size_t)((end - first) * g->dh_stride) * sizeof *g->dh);
    for (int64_t b = d->blocks * first / g->shares; b < last; b += x->g.n) {
        pn_dconv_group_turn(d, b, last, &x->g);
        memset(x->dbias, 0, (size_t)(x->g.n * d->cols) * sizeof *x->dbias);
        memset(x->dw2, 0, (size_t)(x->g.n * d->rank * d->cols) * sizeof *x->dw2);
        for (int64_t t = t0; t < t1; t += TILE) {
            pn_ahead ahead = { 0 };
            pn_dconv_ahead(d, &x->g, t + TILE, t1, d->c.tokens, &ahead);
            pn_dconv_ahead(d, &x->g, t + TILE, t1, g->dv, &ahead);
            pn_dconv_ahead(d, &x->g, t + TILE, t1, g->dc, &ahead);
            for (int64_t i = 0, share = first; i < x->g.n; i++) {
                while (d->blocks * (share + 1) / g->shares <= b + i) share++;
                block_task(d, g, x, i, t, pn_dconv_smaller(TILE, t1 - t),
                           g->dh + share * g->dh_stride + (t - t0) * d->rank, &ahead);
            }
        }
        for (int64_t i = 0; i < x->g.n; i++) add_block(d, g, x, i);
    }
}

/* dh of n tokens += all shares, in order; tile: of the first share, used up. */
static void add_shares(const grad *g, int64_t rank, int64_t n, float *tile, float *turned, float *dh) {
    for (int64_t s = 1; s < g->shares; s++) pn_add_rows(1, rank * TILE, 1, tile + s * g->dh_stride, 0, tile, 0);
    pn_tile_transpose(turned, rank, tile, TILE, rank, n);
    pn_add_rows(1, n * rank, 1, turned, 0, dh, 0);
}

pn_status pn_dconv_backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    int64_t histories = pn_dconv_history_floats(c);
    float *scratch = c->scratch, *dh = pn_f32_or_null(c->din[HIDDEN]), *dstate = pn_f32_or_null(c->din[STATE]);
    pn_dconv d = pn_dconv_make(c, scratch);
    grad g = { .dv = pn_f32(c->dout[0]),
               .dc = pn_f32_or_null(c->din[VALUES]),
               .dw2 = pn_f32_or_null(c->din[W2]),
               .db2 = pn_f32_or_null(c->din[B2]),
               .dh = scratch + 2 * histories,
               .dhistory = scratch + histories,
               .wants_h = dh,
               .wants_history = dstate,
               .shares = shares_of(&d),
               .dh_stride = dh_floats(&d) };
    float *own = g.dh + g.shares * g.dh_stride;
    int64_t history = d.width * d.channels, own_stride = own_floats(&d);
    if (dstate) memset(g.dhistory, 0, (size_t)(d.attr->docs.n * history) * sizeof *g.dhistory);
#pragma omp parallel if (pn_dconv_is_large(&d))
    {
        int64_t runs = omp_get_num_threads();
        group_grad x = group_grad_take(&d, own + omp_get_thread_num() * own_stride);
        for (int64_t t0 = 0; t0 < d.tokens; t0 += STRETCH) {
            int64_t t1 = pn_dconv_smaller(t0 + STRETCH, d.tokens);
#pragma omp for schedule(static)
            for (int64_t i = 0; i < runs; i++)
                shares_task(&d, &g, &x, g.shares * i / runs, g.shares * (i + 1) / runs, t0, t1);
            if (!dh) continue;
#pragma omp for schedule(static)
            for (int64_t t = t0; t < t1; t += TILE)
                add_shares(&g, d.rank, pn_dconv_smaller(TILE, t1 - t), g.dh + (t - t0) * d.rank, x.turned,
                           dh + t * d.rank);
        }
    }
    for (int64_t doc = 0; dstate && doc < d.attr->docs.n; doc++)
        pn_window_add_rows(g.dhistory + doc * history, d.channels, d.width, dstate + doc * history);
    return PN_OK;
}
