/* Tokens go in tiles, one after another; within a tile, products run on all threads of sgemm and the convolution runs
 * on all threads by channels or tokens. Tap w of every channel is row ch*W + w of w2: a matrix [V, R] with leading
 * dimension W*R. So W products give W planes [tokens, V] in which channels are contiguous, and nothing is interleaved.
 */
#include "dynamic_conv.h"

#include <cblas.h>
#include <string.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/window.h"

enum { VALUES, HIDDEN, W2, B2, STATE };
enum { TILE = 128, CHANNELS = 128 };

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

typedef struct dconv {
    const pn_dynamic_conv_attr *attr;
    pn_window c;
    const float *h, *w2;
    int64_t tokens, rank, tile; /* tile: tokens of a full tile */
    float *bias;                /* W rows of V */
    float *taps;                /* W planes of tile x V */
} dconv;

/* Floats of scratch: bias W x V, taps W x tile x V, histories; backward adds d bias W x V, d histories, p V. */
static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    const pn_dynamic_conv_attr *a = c->attr;
    int64_t rows = c->in[VALUES]->shape[1] * a->width, tile = smaller(TILE, c->in[VALUES]->shape[0]);
    int64_t histories = pn_window_histories(&a->docs, c->in[STATE]) * rows;
    int64_t n = rows + tile * rows + histories;
    if (backward) n += rows + histories + c->in[VALUES]->shape[1];
    return (size_t)n * sizeof(float);
}

static dconv dconv_make(const pn_op_call *c, float **scratch) {
    const pn_dynamic_conv_attr *a = c->attr;
    int64_t channels = c->in[VALUES]->shape[1], width = a->width;
    dconv d = { .attr = a,
                .h = pn_f32(c->in[HIDDEN]),
                .w2 = pn_f32(c->in[W2]),
                .tokens = c->in[VALUES]->shape[0],
                .rank = c->in[HIDDEN]->shape[1] };
    d.tile = smaller(TILE, d.tokens);
    d.bias = *scratch;
    d.taps = d.bias + width * channels;
    float *history = d.taps + width * d.tile * channels;
    const float *b2 = pn_f32(c->in[B2]);
    for (int64_t ch = 0; ch < channels; ch++)
        for (int64_t w = 0; w < width; w++) d.bias[w * channels + ch] = b2[ch * width + w];
    d.c = pn_window_make(&a->docs, pn_f32(c->in[VALUES]), pn_f32_or_null(c->in[STATE]), channels, width, history);
    *scratch = history + pn_window_histories(&a->docs, c->in[STATE]) * width * channels;
    return d;
}

/* Planes of w2 h_t for n tokens from t0. A single token is W matrix-vector products: nothing to pack. */
static void make_taps(const dconv *d, int64_t t0, int64_t n) {
    int64_t channels = d->c.channels, width = d->c.width, rank = d->rank;
    const float *h = d->h + t0 * rank;
    for (int64_t w = 0; w < width; w++) {
        float *plane = d->taps + w * d->tile * channels;
        const float *w2 = d->w2 + w * rank;
        if (n == 1)
            cblas_sgemv(CblasRowMajor, CblasNoTrans, (int)channels, (int)rank, 1.0f, w2, (int)(width * rank), h, 1,
                        0.0f, plane, 1);
        else
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)channels, (int)rank, 1.0f, h, (int)rank,
                        w2, (int)(width * rank), 0.0f, plane, (int)channels);
    }
}

static int64_t doc_of(const pn_docs *docs, int64_t doc, int64_t token) {
    while (docs->offset[doc + 1] <= token) doc++;
    return doc;
}

/* y = sum_w (taps_w + bias_w) c_{s-(W-1)+w}, n channels from ch; i is the token's row in the tile. */
PN_INLINE void convolve(const dconv *d, int64_t doc, int64_t s, int64_t i, int64_t ch, int64_t n, float *restrict y) {
    int64_t channels = d->c.channels, width = d->c.width;
    for (int64_t k = 0; k < n; k++) y[k] = 0;
    for (int64_t w = 0; w < width; w++) {
        const float *x = pn_window_row(&d->c, &d->attr->docs, doc, s - (width - 1) + w) + ch;
        const float *taps = d->taps + (w * d->tile + i) * channels + ch, *bias = d->bias + w * channels + ch;
        for (int64_t k = 0; k < n; k++) y[k] = pn_fmaf(taps[k] + bias[k], x[k], y[k]);
    }
}

PN_CLONES static void forward_channels(const dconv *d, int64_t t0, int64_t tokens, int64_t ch, int64_t n, float *v) {
    const pn_docs *docs = &d->attr->docs;
    int64_t doc = doc_of(docs, 0, t0);
    for (int64_t i = 0; i < tokens; i++) {
        doc = doc_of(docs, doc, t0 + i);
        float *y = v + (t0 + i) * d->c.channels + ch;
        convolve(d, doc, t0 + i - docs->offset[doc], i, ch, n, y);
        for (int64_t k = 0; k < n; k++) y[k] = pn_siluf(y[k]);
    }
}

static pn_status forward(const pn_op_call *c) {
    float *scratch = c->scratch, *v = pn_f32(c->out[0]);
    dconv d = dconv_make(c, &scratch);
    for (int64_t t = 0; t < d.tokens; t += d.tile) {
        int64_t n = smaller(d.tile, d.tokens - t);
        make_taps(&d, t, n);
#pragma omp parallel for schedule(static) if (n * d.c.channels > 16384)
        for (int64_t ch = 0; ch < d.c.channels; ch += CHANNELS)
            forward_channels(&d, t, n, ch, smaller(CHANNELS, d.c.channels - ch), v);
    }
    pn_window_new_state(&d.c, &d.attr->docs, pn_f32(c->out[1]));
    return PN_OK;
}

typedef struct dconv_grad {
    const float *dv;
    float *dc, *dbias, *dhistory, *p; /* dc NULL: not wanted */
    bool wants_history;
} dconv_grad;

/* One tile, n channels from ch: p = dv silu'(y); dc of the window; taps become dK = p c. The channels have one owner,
 * which walks the tokens in order, so a window that reaches into the tile before adds there safely. */
PN_CLONES static void backward_channels(const dconv *d, const dconv_grad *g, int64_t t0, int64_t tokens, int64_t ch,
                                        int64_t n) {
    const pn_docs *docs = &d->attr->docs;
    int64_t doc = doc_of(docs, 0, t0), width = d->c.width, channels = d->c.channels;
    float *restrict p = g->p + ch;
    for (int64_t i = 0; i < tokens; i++) {
        doc = doc_of(docs, doc, t0 + i);
        int64_t s = t0 + i - docs->offset[doc];
        const float *dv = g->dv + (t0 + i) * channels + ch;
        convolve(d, doc, s, i, ch, n, p);
        for (int64_t k = 0; k < n; k++) p[k] = dv[k] * pn_silu_gradf(p[k]);
        for (int64_t w = 0; w < width; w++) {
            int64_t from = s - (width - 1) + w;
            float *restrict taps = d->taps + (w * d->tile + i) * channels + ch;
            float *restrict dbias = g->dbias + w * channels + ch;
            const float *bias = d->bias + w * channels + ch, *x = pn_window_row(&d->c, docs, doc, from) + ch;
            if (from >= 0 ? g->dc != NULL : g->wants_history) {
                float *restrict dc = from >= 0
                                         ? g->dc + (docs->offset[doc] + from) * channels + ch
                                         : g->dhistory + doc * d->c.history_stride + (width + from) * channels + ch;
                for (int64_t k = 0; k < n; k++) dc[k] = pn_fmaf(p[k], taps[k] + bias[k], dc[k]);
            }
            for (int64_t k = 0; k < n; k++) {
                taps[k] = p[k] * x[k];
                dbias[k] += taps[k];
            }
        }
    }
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    float *scratch = c->scratch;
    dconv d = dconv_make(c, &scratch);
    int64_t channels = d.c.channels, width = d.c.width, rank = d.rank, rows = width * channels;
    int64_t histories = pn_window_histories(&d.attr->docs, c->in[STATE]);
    float *dh = pn_f32_or_null(c->din[HIDDEN]), *dw2 = pn_f32_or_null(c->din[W2]), *db2 = pn_f32_or_null(c->din[B2]);
    dconv_grad g = { .dv = pn_f32(c->dout[0]),
                     .dc = pn_f32_or_null(c->din[VALUES]),
                     .dbias = scratch,
                     .dhistory = scratch + rows,
                     .wants_history = c->din[STATE] };
    g.p = g.dhistory + histories * rows;
    memset(g.dhistory, 0, (size_t)(histories * rows) * sizeof *g.dhistory);
    for (int64_t t = 0; t < d.tokens; t += d.tile) {
        int64_t n = smaller(d.tile, d.tokens - t);
        make_taps(&d, t, n);
        memset(g.dbias, 0, (size_t)rows * sizeof *g.dbias); /* per tile: long sums stay accurate */
#pragma omp parallel for schedule(static) if (n * channels > 16384)
        for (int64_t ch = 0; ch < channels; ch += CHANNELS)
            backward_channels(&d, &g, t, n, ch, smaller(CHANNELS, channels - ch));
        for (int64_t ch = 0; db2 && ch < channels; ch++)
            for (int64_t w = 0; w < width; w++) db2[ch * width + w] += g.dbias[w * channels + ch];
        for (int64_t w = 0; w < width; w++) {
            const float *dk = d.taps + w * d.tile * channels;
            if (dw2)
                cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)channels, (int)rank, (int)n, 1.0f, dk,
                            (int)channels, d.h + t * rank, (int)rank, 1.0f, dw2 + w * rank, (int)(width * rank));
            if (dh)
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)rank, (int)channels, 1.0f, dk,
                            (int)channels, d.w2 + w * rank, (int)(width * rank), 1.0f, dh + t * rank, (int)rank);
        }
    }
    if (c->din[STATE])
        for (int64_t doc = 0; doc < d.attr->docs.n; doc++)
            pn_window_add_rows(g.dhistory + doc * rows, channels, width, pn_f32(c->din[STATE]) + doc * rows);
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = "dynamic_conv/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const dynamic_conv_cpu[];
const pn_op_impl *const dynamic_conv_cpu[] = { &impl, NULL };
