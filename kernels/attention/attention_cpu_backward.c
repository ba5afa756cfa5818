/* Backward on the CPU: one pass, five products per tile pair.
 *
 * A task owns some query tiles of one (document, key/value head) and walks the key tiles each of them sees: it
 * recomputes the weights from lse, finishes dq of its tile alone and adds to dk and dv. Two passes (dq by query tiles,
 * dk and dv by key tiles) would need no sharing either but seven products and two exponentials; this way costs memory
 * instead. When there are too few (document, head) pairs to balance, the query tiles of a document are dealt round
 * robin to up to SEGMENTS tasks, each with its own dk and dv, which are added up in segment order. The number of
 * segments follows from the shapes, never from the number of threads, and no sum depends on which task ran first. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "attention_cpu.h"
#include "cpu/clones.h"
#include "cpu/fast_math.h"

enum { KEYS = PN_ATTENTION_KEYS, SEGMENTS = 8, WANTED_TASKS = 16 };

typedef struct layout {
    pn_attention_tiles g;
    int64_t segments, threads, kv_elems; /* kv_elems: floats of dk */
    bool shared;                         /* key ranges of documents may overlap: one document at a time */
    size_t segment_bytes;                /* per segment: dk, then dv; none for a single segment */
    size_t thread, thread_bytes;
    size_t d_o, p, dp, dq, lse, delta, total; /* inside a thread's part; `total` of everything */
} layout;

static double work(const pn_attention_attr *a, const pn_attention_doc *x) {
    double seen = (double)x->keys - 0.5 * (double)x->queries;
    return (double)x->queries * (a->window && seen > (double)a->window ? (double)a->window : seen);
}

static layout layout_of(const pn_op_call *c) {
    const pn_attention_attr *a = c->attr;
    layout l = { .g = pn_attention_tiles_of(a), .threads = omp_get_max_threads(), .segments = 1 };
    l.kv_elems = pn_tensor_elems(c->in[1]);
    double total = 0, most = 0;
    int64_t longest = 0, key_end = 0;
    for (int64_t i = 0; i < a->docs.n; i++) {
        pn_attention_doc x = pn_attention_doc_at(a, i);
        double w = work(a, &x);
        total += w;
        most = w > most ? w : most;
        longest = x.queries > longest ? x.queries : longest;
        if (!x.queries) continue;
        l.shared = l.shared || x.key0 < key_end;
        key_end = x.key0 + x.keys;
    }
    /* Tasks as even as the largest document allows; when documents run one by one, each must be split. */
    double even = most > 0 && !l.shared ? total / most * (double)l.g.kv_heads : (double)l.g.kv_heads;
    int64_t tiles = (longest + l.g.tokens - 1) / l.g.tokens;
    l.segments = (int64_t)ceil(WANTED_TASKS / even);
    l.segments = l.segments > SEGMENTS ? SEGMENTS : l.segments;
    l.segments = l.segments > tiles ? tiles : l.segments;
    l.segments = l.segments < 1 ? 1 : l.segments;
    l.segment_bytes = l.segments > 1 ? 2 * pn_attention_floats(l.kv_elems) : 0;
    l.thread = (size_t)l.segments * l.segment_bytes;
    size_t block = pn_attention_floats(l.g.rows * l.g.d), score = pn_attention_floats(l.g.rows * KEYS);
    l.d_o = block;
    l.dq = 2 * block;
    l.p = 3 * block;
    l.dp = l.p + score;
    l.lse = l.dp + score;
    l.delta = l.lse + pn_attention_floats(l.g.rows);
    l.thread_bytes = l.delta + pn_attention_floats(l.g.rows);
    l.total = l.thread + (size_t)l.threads * l.thread_bytes;
    return l;
}

size_t pn_attention_cpu_backward_bytes(const pn_op_call *c) {
    return layout_of(c).total;
}

/* delta = <do, o> and lse of every row of a tile. */
PN_CLONES static void row_statistics(const pn_attention_tiles *g, int64_t tokens, const float *restrict d_o,
                                     const float *restrict o, const float *restrict lse, float *restrict row_lse,
                                     float *restrict delta) {
    int64_t d = g->d;
    for (int64_t i = 0, row = 0; i < tokens; i++) {
        for (int64_t h = 0; h < g->group; h++, row++) {
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t k = 0; k < d; k++) sum += d_o[row * d + k] * o[i * g->q_stride + h * d + k];
            delta[row] = sum;
            row_lse[row] = lse[i * g->heads + h];
        }
    }
}

/* Scores become p = exp(s - lse), dp becomes ds = p (dp - delta); 0 where a row does not see the key. */
PN_CLONES static void weights_tile(const pn_attention_tiles *g, int64_t tokens, int64_t position, int64_t j0, int64_t n,
                                   const float *restrict lse, const float *restrict delta, float *restrict p,
                                   float *restrict dp) {
    for (int64_t i = 0, row = 0; i < tokens; i++) {
        int64_t begin, end;
        pn_attention_visible(g, position + i, j0, n, &begin, &end);
        for (int64_t h = 0; h < g->group; h++, row++) {
            float *s = p + row * KEYS, *ds = dp + row * KEYS, m = lse[row], mean = delta[row];
            for (int64_t j = 0; j < begin; j++) s[j] = -INFINITY;
            for (int64_t j = end; j < n; j++) s[j] = -INFINITY;
            for (int64_t j = 0; j < n; j++) {
                s[j] = pn_exp_nonposf(s[j] - m);
                ds[j] = s[j] * (ds[j] - mean);
            }
        }
    }
}

PN_CLONES static void add_dq(const pn_attention_tiles *g, int64_t tokens, const float *restrict dq,
                             float *restrict out) {
    int64_t n = g->group * g->d;
    for (int64_t i = 0; i < tokens; i++)
        for (int64_t k = 0; k < n; k++)
            out[i * g->q_stride + k] = pn_fmaf(g->scale, dq[i * n + k], out[i * g->q_stride + k]);
}

/* dk and dv point at this document's first key and this head. */
static void tile_task(const pn_op_call *c, const layout *l, const pn_attention_doc *x, int64_t tile, int64_t kv_head,
                      char *mine, float *dk, float *dv) {
    const pn_attention_tiles *g = &l->g;
    int64_t i0 = tile * g->tokens, tokens = x->queries - i0 < g->tokens ? x->queries - i0 : g->tokens;
    int64_t d = g->d, position = pn_attention_position(x, i0), stride = g->kv_stride;
    int64_t token = x->query0 + i0, at = token * g->q_stride + kv_head * g->group * d;
    const float *k = pn_f32(c->in[1]) + x->key0 * stride + kv_head * d;
    const float *v = pn_f32(c->in[2]) + x->key0 * stride + kv_head * d;
    float *q = (float *)mine, *d_o = (float *)(mine + l->d_o), *dq = (float *)(mine + l->dq);
    float *p = (float *)(mine + l->p), *dp = (float *)(mine + l->dp);
    float *lse = (float *)(mine + l->lse), *delta = (float *)(mine + l->delta);
    int rows = (int)(tokens * g->group), width = (int)d, ld = (int)stride;
    pn_attention_pack(g, pn_f32(c->in[0]) + at, tokens, g->scale, q);
    pn_attention_pack(g, pn_f32(c->dout[0]) + at, tokens, 1.0f, d_o);
    row_statistics(g, tokens, d_o, pn_f32(c->out[0]) + at, pn_f32(c->out[1]) + token * g->heads + kv_head * g->group,
                   lse, delta);
    int64_t end = position + tokens, j0 = pn_attention_first(c->attr, position);
    bool first = true;
    for (; j0 < end; j0 += KEYS, first = false) {
        int n = (int)(end - j0 < KEYS ? end - j0 : KEYS);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, n, width, 1.0f, q, width, k + j0 * stride, ld, 0.0f,
                    p, KEYS);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, n, width, 1.0f, d_o, width, v + j0 * stride, ld,
                    0.0f, dp, KEYS);
        weights_tile(g, tokens, position, j0, n, lse, delta, p, dp);
        if (dv)
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, width, rows, 1.0f, p, KEYS, d_o, width, 1.0f,
                        dv + j0 * stride, ld);
        if (dk) /* q carries the scale */
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, width, rows, 1.0f, dp, KEYS, q, width, 1.0f,
                        dk + j0 * stride, ld);
        if (c->din[0])
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, width, n, 1.0f, dp, KEYS, k + j0 * stride, ld,
                        first ? 0.0f : 1.0f, dq, width);
    }
    if (c->din[0]) add_dq(g, tokens, dq, pn_f32(c->din[0]) + at);
}

static void doc_task(const pn_op_call *c, const layout *l, int64_t doc, int64_t kv_head, int64_t segment, char *mine) {
    pn_attention_doc x = pn_attention_doc_at(c->attr, doc);
    float *dk = pn_f32_or_null(c->din[1]), *dv = pn_f32_or_null(c->din[2]);
    if (l->segments > 1) {
        float *own = (float *)((char *)c->scratch + (size_t)segment * l->segment_bytes);
        dk = dk ? own : NULL;
        dv = dv ? own + pn_attention_floats(l->kv_elems) / sizeof(float) : NULL;
    }
    int64_t at = x.key0 * l->g.kv_stride + kv_head * l->g.d, tiles = (x.queries + l->g.tokens - 1) / l->g.tokens;
    for (int64_t tile = segment; tile < tiles; tile += l->segments)
        tile_task(c, l, &x, tile, kv_head, mine, dk ? dk + at : NULL, dv ? dv + at : NULL);
}

/* din += the segments' sums, in segment order. */
PN_CLONES static void add_segments(int64_t segments, const float *restrict from, int64_t stride, float *restrict to,
                                   int64_t n) {
    for (int64_t s = 0; s < segments; s++)
        for (int64_t i = 0; i < n; i++) to[i] += from[s * stride + i];
}

pn_status pn_attention_cpu_backward(const pn_op_call *c) {
    if (!c->dout[0] || (!c->din[0] && !c->din[1] && !c->din[2])) return PN_OK;
    const pn_attention_attr *a = c->attr;
    layout l = layout_of(c);
    char *base = c->scratch;
    float *part = c->scratch, *dk = pn_f32_or_null(c->din[1]), *dv = pn_f32_or_null(c->din[2]);
    int64_t stride = (int64_t)(l.segment_bytes / sizeof(float)), kv = l.g.kv_heads;
    int64_t at_once = l.shared ? 1 : a->docs.n;
    enum { RUN = 4096 };
#pragma omp parallel num_threads((int)l.threads)
    {
        char *mine = base + l.thread + (size_t)omp_get_thread_num() * l.thread_bytes;
        if (l.segments > 1) {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < l.segments * stride; i += RUN)
                memset(part + i, 0,
                       (size_t)(l.segments * stride - i < RUN ? l.segments * stride - i : RUN) * sizeof *part);
        }
        for (int64_t doc0 = 0; doc0 < a->docs.n; doc0 += at_once) {
#pragma omp for schedule(dynamic, 1)
            for (int64_t task = 0; task < at_once * l.segments * kv; task++)
                doc_task(c, &l, doc0 + task / (l.segments * kv), task % kv, task / kv % l.segments, mine);
        }
        if (l.segments > 1) {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < l.kv_elems; i += RUN) {
                int64_t n = l.kv_elems - i < RUN ? l.kv_elems - i : RUN;
                if (dk) add_segments(l.segments, part + i, stride, dk + i, n);
                if (dv) add_segments(l.segments, part + stride / 2 + i, stride, dv + i, n);
            }
        }
    }
    return PN_OK;
}
