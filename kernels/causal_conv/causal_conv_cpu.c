#include "causal_conv.h"

#include <omp.h>
#include <string.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/window.h"

/* Forward runs over blocks of tokens and channels. Backward gives every task a block of channels and all tokens in
 * order: each gradient then has one owner, and its sum one order. */
enum { TOKENS = 128, CHANNELS = 256, GRAD_LEAST = 128, GRAD_MOST = 512 };

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}
/* The document of a token; documents are few next to channels, so a scan per block costs nothing. */
static int64_t doc_of(const pn_docs *docs, int64_t doc, int64_t token) {
    while (docs->offset[doc + 1] <= token) doc++;
    return doc;
}

/* Scratch, in floats: taps W x C, bias C, history; backward adds d taps W x C, d bias C, d history W x C (one document
 * at a time), p and sink C each. */
static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    const pn_causal_conv_attr *a = c->attr;
    int64_t channels = c->in[0]->shape[1], block = channels * a->width;
    int64_t n = block + channels + pn_window_histories(&a->docs, c->in[3]) * block;
    if (backward) n += 2 * block + 3 * channels;
    return (size_t)n * sizeof(float);
}

/* [C, W] -> W rows of C */
static void taps_to_rows(const float *taps, int64_t channels, int64_t width, float *rows) {
    for (int64_t ch = 0; ch < channels; ch++)
        for (int64_t w = 0; w < width; w++) rows[w * channels + ch] = taps[ch * width + w];
}

typedef struct conv {
    const pn_causal_conv_attr *attr;
    pn_window x;
    const float *taps, *bias; /* rows of C; bias 0 where there is none */
} conv;

/* u = b + sum_w taps_w x_{s-(W-1)+w} for n channels from ch. */
PN_INLINE void convolve(const conv *v, int64_t doc, int64_t s, int64_t ch, int64_t n, float *restrict u) {
    int64_t width = v->x.width, channels = v->x.channels;
    const pn_docs *docs = &v->attr->docs;
    const float *bias = v->bias + ch, *taps = v->taps + ch;
    if (width == 4) {
        const float *x0 = pn_window_row(&v->x, docs, doc, s - 3) + ch,
                    *x1 = pn_window_row(&v->x, docs, doc, s - 2) + ch;
        const float *x2 = pn_window_row(&v->x, docs, doc, s - 1) + ch, *x3 = pn_window_row(&v->x, docs, doc, s) + ch;
        const float *t1 = taps + channels, *t2 = t1 + channels, *t3 = t2 + channels;
        for (int64_t i = 0; i < n; i++) {
            float sum = pn_fmaf(taps[i], x0[i], bias[i]);
            sum = pn_fmaf(t1[i], x1[i], sum);
            sum = pn_fmaf(t2[i], x2[i], sum);
            u[i] = pn_fmaf(t3[i], x3[i], sum);
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) u[i] = bias[i];
    for (int64_t w = 0; w < width; w++, taps += channels) {
        const float *x = pn_window_row(&v->x, docs, doc, s - (width - 1) + w) + ch;
        for (int64_t i = 0; i < n; i++) u[i] = pn_fmaf(taps[i], x[i], u[i]);
    }
}

static conv conv_make(const pn_op_call *c, float **scratch) {
    conv v = { .attr = c->attr };
    int64_t width = v.attr->width;
    int64_t channels = c->in[0]->shape[1];
    float *taps = *scratch, *bias = taps + width * channels, *history = bias + channels;
    if (c->in[1]->storage) taps_to_rows(pn_f32(c->in[1]), channels, width, taps);
    v.taps = taps;
    if (c->in[2] && c->in[2]->storage)
        memcpy(bias, pn_f32(c->in[2]), (size_t)channels * sizeof *bias);
    else
        memset(bias, 0, (size_t)channels * sizeof *bias);
    v.bias = bias;
    bool have_x = c->in[0]->storage;
    v.x = pn_window_make(&v.attr->docs, have_x ? pn_f32(c->in[0]) : NULL, have_x && c->in[3] ? pn_f32(c->in[3]) : NULL,
                         channels, width, history);
    *scratch = history + pn_window_histories(&v.attr->docs, c->in[3]) * width * channels;
    return v;
}

PN_CLONES static void forward_block(const conv *v, int64_t token0, int64_t token1, int64_t ch, int64_t n, float *y) {
    const pn_docs *docs = &v->attr->docs;
    int64_t doc = doc_of(docs, 0, token0);
    for (int64_t t = token0; t < token1; t++) {
        doc = doc_of(docs, doc, t);
        float *u = y + t * v->x.channels + ch;
        convolve(v, doc, t - docs->offset[doc], ch, n, u);
        if (v->attr->silu)
            for (int64_t i = 0; i < n; i++) u[i] = pn_siluf(u[i]);
    }
}

static pn_status forward(const pn_op_call *c) {
    float *scratch = c->scratch, *y = pn_f32(c->out[0]);
    conv v = conv_make(c, &scratch);
    int64_t tokens = c->in[0]->shape[0], channels = v.x.channels;
#pragma omp parallel for collapse(2) schedule(static) if (tokens * channels > 16384)
    for (int64_t t = 0; t < tokens; t += TOKENS)
        for (int64_t ch = 0; ch < channels; ch += CHANNELS)
            forward_block(&v, t, smaller(t + TOKENS, tokens), ch, smaller(CHANNELS, channels - ch), y);
    pn_window_new_state(&v.x, &v.attr->docs, pn_f32(c->out[1]));
    return PN_OK;
}

typedef struct conv_grad {
    const float *dy;
    float *dx, *dtaps, *dbias, *dhistory, *p, *sink; /* rows of C; dx NULL: not wanted; sink: never read */
    bool wants_taps, wants_history, readable;        /* readable: both x and the taps were saved */
} conv_grad;

/* Where the gradient of position `from` of a document goes. */
PN_INLINE float *dx_row(const conv *v, const conv_grad *g, int64_t doc, int64_t from) {
    if (from >= 0) return g->dx ? g->dx + (v->attr->docs.offset[doc] + from) * v->x.channels : g->sink;
    return g->wants_history ? g->dhistory + (v->x.width + from) * v->x.channels : g->sink;
}

/* A window of 4 in one loop: every sum of a channel stays in its place, so all rows are independent. Rows that go to
 * the sink may be the same one; what is in it does not matter. */
PN_INLINE void backward_four(const conv *v, const conv_grad *g, int64_t doc, int64_t s, int64_t ch, int64_t n,
                             bool silu) {
    const pn_docs *docs = &v->attr->docs;
    int64_t channels = v->x.channels;
    const float *dy = g->dy + (docs->offset[doc] + s) * channels + ch, *bias = v->bias + ch;
    const float *t0 = v->taps + ch, *t1 = t0 + channels, *t2 = t1 + channels, *t3 = t2 + channels;
    const float *x0 = pn_window_row(&v->x, docs, doc, s - 3) + ch, *x1 = pn_window_row(&v->x, docs, doc, s - 2) + ch;
    const float *x2 = pn_window_row(&v->x, docs, doc, s - 1) + ch, *x3 = pn_window_row(&v->x, docs, doc, s) + ch;
    float *dx0 = dx_row(v, g, doc, s - 3) + ch, *dx1 = dx_row(v, g, doc, s - 2) + ch;
    float *dx2 = dx_row(v, g, doc, s - 1) + ch, *dx3 = dx_row(v, g, doc, s) + ch, *dbias = g->dbias + ch;
    float *dt0 = g->dtaps + ch, *dt1 = dt0 + channels, *dt2 = dt1 + channels, *dt3 = dt2 + channels;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float p = dy[i];
        if (silu) {
            float u = pn_fmaf(t0[i], x0[i], bias[i]);
            u = pn_fmaf(t1[i], x1[i], u);
            u = pn_fmaf(t2[i], x2[i], u);
            p *= pn_silu_gradf(pn_fmaf(t3[i], x3[i], u));
        }
        dbias[i] += p;
        dt0[i] = pn_fmaf(p, x0[i], dt0[i]);
        dt1[i] = pn_fmaf(p, x1[i], dt1[i]);
        dt2[i] = pn_fmaf(p, x2[i], dt2[i]);
        dt3[i] = pn_fmaf(p, x3[i], dt3[i]);
        dx0[i] = pn_fmaf(p, t0[i], dx0[i]);
        dx1[i] = pn_fmaf(p, t1[i], dx1[i]);
        dx2[i] = pn_fmaf(p, t2[i], dx2[i]);
        dx3[i] = pn_fmaf(p, t3[i], dx3[i]);
    }
}

/* Tokens of one document, n channels from ch: p = dy act', then taps, bias and inputs. */
PN_CLONES static void backward_run(const conv *v, const conv_grad *g, int64_t doc, int64_t s0, int64_t s1, int64_t ch,
                                   int64_t n) {
    const pn_docs *docs = &v->attr->docs;
    int64_t width = v->x.width, channels = v->x.channels;
    float *restrict p = g->p + ch, *restrict dbias = g->dbias + ch;
    if (width == 4 && g->readable) {
        for (int64_t s = s0; s < s1; s++) {
            if (v->attr->silu)
                backward_four(v, g, doc, s, ch, n, true);
            else
                backward_four(v, g, doc, s, ch, n, false);
        }
        return;
    }
    for (int64_t s = s0; s < s1; s++) {
        const float *dy = g->dy + (docs->offset[doc] + s) * channels + ch;
        if (v->attr->silu) {
            convolve(v, doc, s, ch, n, p);
            for (int64_t i = 0; i < n; i++) p[i] = dy[i] * pn_silu_gradf(p[i]);
        } else {
            for (int64_t i = 0; i < n; i++) p[i] = dy[i];
        }
        for (int64_t i = 0; i < n; i++) dbias[i] += p[i];
        for (int64_t w = 0; w < width; w++) {
            int64_t from = s - (width - 1) + w;
            if (g->wants_taps) {
                const float *x = pn_window_row(&v->x, docs, doc, from) + ch;
                float *restrict dtaps = g->dtaps + w * channels + ch;
                for (int64_t i = 0; i < n; i++) dtaps[i] = pn_fmaf(p[i], x[i], dtaps[i]);
            }
            if (from >= 0 ? !g->dx : !g->wants_history) continue;
            float *restrict dx = from >= 0 ? g->dx + (docs->offset[doc] + from) * channels + ch
                                           : g->dhistory + (width + from) * channels + ch;
            const float *taps = v->taps + w * channels + ch;
            for (int64_t i = 0; i < n; i++) dx[i] = pn_fmaf(p[i], taps[i], dx[i]);
        }
    }
}

static void clear(float *rows, int64_t n_rows, int64_t stride, int64_t ch, int64_t n) {
    for (int64_t r = 0; r < n_rows; r++) memset(rows + r * stride + ch, 0, (size_t)n * sizeof *rows);
}

static void backward_channels(const pn_op_call *c, const conv *v, const conv_grad *g, int64_t ch, int64_t n) {
    const pn_docs *docs = &v->attr->docs;
    int64_t width = v->x.width, channels = v->x.channels;
    float *dtaps = pn_f32_or_null(c->din[1]), *dbias = pn_f32_or_null(c->din[2]), *dstate = pn_f32_or_null(c->din[3]);
    for (int64_t doc = 0; doc < docs->n; doc++) {
        int64_t length = docs->offset[doc + 1] - docs->offset[doc];
        clear(g->dhistory, width, channels, ch, n);
        for (int64_t s = 0; s < length; s += TOKENS) { /* partial sums over TOKENS: long sums stay accurate */
            clear(g->dtaps, width, channels, ch, n);
            clear(g->dbias, 1, channels, ch, n);
            backward_run(v, g, doc, s, smaller(s + TOKENS, length), ch, n);
            for (int64_t i = ch; i < ch + n; i++) {
                for (int64_t w = 0; dtaps && w < width; w++) dtaps[i * width + w] += g->dtaps[w * channels + i];
                if (dbias) dbias[i] += g->dbias[i];
            }
        }
        for (int64_t i = ch; dstate && i < ch + n; i++)
            for (int64_t w = 0; w < width; w++)
                dstate[(doc * channels + i) * width + w] += g->dhistory[w * channels + i];
    }
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    float *scratch = c->scratch;
    conv v = conv_make(c, &scratch);
    int64_t channels = v.x.channels, tokens = c->in[0]->shape[0];
    conv_grad g = { .dy = pn_f32(c->dout[0]),
                    .dx = pn_f32_or_null(c->din[0]),
                    .dtaps = scratch,
                    .dbias = scratch + v.x.width * channels,
                    .wants_taps = c->din[1],
                    .wants_history = c->din[3],
                    .readable = c->in[0]->storage && c->in[1]->storage };
    g.dhistory = g.dbias + channels;
    g.p = g.dhistory + v.x.width * channels;
    g.sink = g.p + channels;
    memset(g.sink, 0, (size_t)channels * sizeof *g.sink);
    /* Long rows stream better, more blocks keep more threads busy; no sum depends on where a block ends. */
    int64_t share = (channels / omp_get_max_threads() + 15) / 16 * 16;
    int64_t block = share < GRAD_LEAST ? GRAD_LEAST : smaller(share, GRAD_MOST);
#pragma omp parallel for schedule(dynamic, 1) if (tokens * channels > 16384)
    for (int64_t ch = 0; ch < channels; ch += block) backward_channels(c, &v, &g, ch, smaller(block, channels - ch));
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = "causal_conv/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const causal_conv_cpu[];
const pn_op_impl *const causal_conv_cpu[] = { &impl, NULL };
