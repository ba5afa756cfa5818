/* Backward on the CPU. Memory bounds it, so threads share out runs of tokens: a thread that owned channels instead
 * would find its hardware prefetcher reading ahead into the rest of each row, which another thread is writing.
 *
 * A run owns the gradients of its tokens, and of the history of documents that begin in it. The first W - 1 tokens
 * after it, where they go on with its last document, also add to them: it computes those again. Taps and bias get
 * partial sums per run, added in order; so nothing depends on the number of threads. */
#include <string.h>

#include "causal_conv_cpu.h"
#include "cpu/rows.h"

enum { X, TAPS, BIAS, STATE };
enum { TOKENS = PN_CCONV_TOKENS, MOST = PN_CCONV_MOST };

typedef struct conv_grad {
    const float *dy;
    float *dx;                                /* NULL: not wanted */
    float *sums;                              /* per run, rows of C: d taps, then d bias */
    float *dhistory;                          /* W rows of C per document */
    bool wants_taps, wants_history, readable; /* readable: both x and the taps were saved */
} conv_grad;

typedef struct run { /* tokens t0 .. t1 - 1, n channels from ch */
    int64_t t0, t1, ch, n;
    float *sums, *sink; /* its rows of sums; [n] for what is another run's or not wanted */
} run;

static int64_t runs_of(const pn_op_call *c) {
    return (c->in[X]->shape[0] + TOKENS - 1) / TOKENS;
}

size_t pn_cconv_backward_bytes(const pn_op_call *c) {
    const pn_causal_conv_attr *a = c->attr;
    int64_t channels = c->in[X]->shape[1], histories = c->in[STATE] ? a->docs.n : 0;
    return (size_t)(pn_cconv_floats(c) + channels * (histories * a->width + runs_of(c) * (a->width + 1))) *
           sizeof(float);
}

/* Where a run puts the gradient of position `from` of a document. */
PN_INLINE float *dx_row(const pn_cconv *v, const conv_grad *g, const run *r, int64_t doc, int64_t from) {
    int64_t start = v->attr->docs.offset[doc], token = from < 0 ? start : start + from, channels = v->x.channels;
    if (token < r->t0 || token >= r->t1) return r->sink;
    if (from >= 0) return g->dx ? g->dx + token * channels + r->ch : r->sink;
    return g->wants_history ? g->dhistory + (doc * v->x.width + v->x.width + from) * channels + r->ch : r->sink;
}

/* One token and a window of 4 in one loop: every sum of a channel stays in its place, so all rows are independent. Rows
 * that go to the sink may be the same one; what is in it does not matter. own: the token is the run's. */
PN_INLINE void token_four(const pn_cconv *v, const conv_grad *g, const run *r, int64_t doc, int64_t s, bool silu,
                          bool own) {
    const pn_docs *docs = &v->attr->docs;
    int64_t channels = v->x.channels, ch = r->ch;
    const float *dy = g->dy + (docs->offset[doc] + s) * channels + ch, *bias = v->bias + ch;
    const float *t0 = v->taps + ch, *t1 = t0 + channels, *t2 = t1 + channels, *t3 = t2 + channels;
    const float *x0 = pn_window_row(&v->x, docs, doc, s - 3) + ch, *x1 = pn_window_row(&v->x, docs, doc, s - 2) + ch;
    const float *x2 = pn_window_row(&v->x, docs, doc, s - 1) + ch, *x3 = pn_window_row(&v->x, docs, doc, s) + ch;
    float *dx0 = dx_row(v, g, r, doc, s - 3), *dx1 = dx_row(v, g, r, doc, s - 2);
    float *dx2 = dx_row(v, g, r, doc, s - 1), *dx3 = dx_row(v, g, r, doc, s);
    float *dt0 = r->sums + ch, *dt1 = dt0 + channels, *dt2 = dt1 + channels, *dt3 = dt2 + channels;
    float *dbias = dt3 + channels;
#pragma omp simd
    for (int64_t i = 0; i < r->n; i++) {
        float p = dy[i];
        if (silu) {
            float u = pn_fmaf(t0[i], x0[i], bias[i]);
            u = pn_fmaf(t1[i], x1[i], u);
            u = pn_fmaf(t2[i], x2[i], u);
            p *= pn_silu_gradf(pn_fmaf(t3[i], x3[i], u));
        }
        if (own) {
            dbias[i] += p;
            dt0[i] = pn_fmaf(p, x0[i], dt0[i]);
            dt1[i] = pn_fmaf(p, x1[i], dt1[i]);
            dt2[i] = pn_fmaf(p, x2[i], dt2[i]);
            dt3[i] = pn_fmaf(p, x3[i], dt3[i]);
        }
        dx0[i] = pn_fmaf(p, t0[i], dx0[i]);
        dx1[i] = pn_fmaf(p, t1[i], dx1[i]);
        dx2[i] = pn_fmaf(p, t2[i], dx2[i]);
        dx3[i] = pn_fmaf(p, t3[i], dx3[i]);
    }
}

/* The same for any width, and when x or the taps are not at hand: p = dy act', then taps, bias and inputs. */
PN_INLINE void token_any(const pn_cconv *v, const conv_grad *g, const run *r, int64_t doc, int64_t s, bool own) {
    const pn_docs *docs = &v->attr->docs;
    int64_t width = v->x.width, channels = v->x.channels, ch = r->ch, n = r->n;
    const float *dy = g->dy + (docs->offset[doc] + s) * channels + ch;
    float p[MOST], *restrict dbias = r->sums + width * channels + ch;
    if (v->attr->silu) {
        pn_cconv_row(v, doc, s, ch, n, p);
        for (int64_t i = 0; i < n; i++) p[i] = dy[i] * pn_silu_gradf(p[i]);
    } else {
        for (int64_t i = 0; i < n; i++) p[i] = dy[i];
    }
    for (int64_t i = 0; own && i < n; i++) dbias[i] += p[i];
    for (int64_t w = 0; w < width; w++) {
        int64_t from = s - (width - 1) + w;
        if (own && g->wants_taps) {
            const float *x = pn_window_row(&v->x, docs, doc, from) + ch;
            float *restrict dtaps = r->sums + w * channels + ch;
            for (int64_t i = 0; i < n; i++) dtaps[i] = pn_fmaf(p[i], x[i], dtaps[i]);
        }
        float *restrict dx = dx_row(v, g, r, doc, from);
        if (dx == r->sink) continue;
        const float *taps = v->taps + w * channels + ch;
        for (int64_t i = 0; i < n; i++) dx[i] = pn_fmaf(p[i], taps[i], dx[i]);
    }
}

PN_CLONES static void backward_run(const pn_cconv *v, const conv_grad *g, const run *r) {
    const pn_docs *docs = &v->attr->docs;
    bool four = v->x.width == 4 && g->readable, silu = v->attr->silu;
    int64_t doc = pn_window_doc(docs, 0, r->t0), t = r->t0;
    for (; t < r->t1; t++) {
        doc = pn_window_doc(docs, doc, t);
        int64_t s = t - docs->offset[doc];
        if (four && silu)
            token_four(v, g, r, doc, s, true, true);
        else if (four)
            token_four(v, g, r, doc, s, false, true);
        else
            token_any(v, g, r, doc, s, true);
    }
    int64_t end = pn_cconv_smaller(docs->offset[doc + 1], t + v->x.width - 1);
    for (; t < end; t++) token_any(v, g, r, doc, t - docs->offset[doc], false);
}

/* d taps and d bias += n channels of all runs' sums, in order; used up. */
static void add_sums(const pn_op_call *c, const pn_cconv *v, float *sums, int64_t ch, int64_t n) {
    float *dtaps = pn_f32_or_null(c->din[TAPS]), *dbias = pn_f32_or_null(c->din[BIAS]);
    int64_t width = v->x.width, channels = v->x.channels, runs = runs_of(c);
    for (int64_t r = 1; r < runs; r++)
        pn_add_rows(width + 1, n, 1, sums + r * (width + 1) * channels + ch, channels, sums + ch, channels);
    for (int64_t i = ch; i < ch + n; i++) {
        for (int64_t w = 0; dtaps && w < width; w++) dtaps[i * width + w] += sums[w * channels + i];
        if (dbias) dbias[i] += sums[width * channels + i];
    }
}

pn_status pn_cconv_backward(const pn_op_call *c) {
    int64_t tokens = c->in[X]->shape[0];
    if (!c->dout[0] || !tokens) return PN_OK;
    pn_cconv v = pn_cconv_make(c, c->scratch);
    int64_t width = v.x.width, channels = v.x.channels, docs = v.attr->docs.n;
    int64_t block = pn_cconv_block(tokens, channels);
    float *dstate = pn_f32_or_null(c->din[STATE]), *dhistory = (float *)c->scratch + pn_cconv_floats(c);
    conv_grad g = { .dy = pn_f32(c->dout[0]),
                    .dx = pn_f32_or_null(c->din[X]),
                    .dhistory = dhistory,
                    .sums = dhistory + (c->in[STATE] ? docs * width * channels : 0),
                    .wants_taps = c->din[TAPS],
                    .wants_history = dstate,
                    .readable = c->in[X]->storage && c->in[TAPS]->storage };
    if (dstate) memset(dhistory, 0, (size_t)(docs * width * channels) * sizeof *dhistory);
#pragma omp parallel if (tokens * channels > 16384)
    {
        float sink[MOST] = { 0 };
#pragma omp for collapse(2) schedule(static)
        for (int64_t t = 0; t < tokens; t += TOKENS)
            for (int64_t ch = 0; ch < channels; ch += block) {
                run r = { t,
                          pn_cconv_smaller(t + TOKENS, tokens),
                          ch,
                          pn_cconv_smaller(block, channels - ch),
                          g.sums + t / TOKENS * (width + 1) * channels,
                          sink };
                for (int64_t w = 0; w <= width; w++)
                    memset(r.sums + w * channels + ch, 0, (size_t)r.n * sizeof *r.sums);
                backward_run(&v, &g, &r);
            }
#pragma omp for schedule(static)
        for (int64_t ch = 0; ch < channels; ch += block)
            add_sums(c, &v, g.sums, ch, pn_cconv_smaller(block, channels - ch));
    }
    for (int64_t doc = 0; dstate && doc < docs; doc++)
        pn_window_add_rows(dhistory + doc * width * channels, channels, width, dstate + doc * width * channels);
    return PN_OK;
}
