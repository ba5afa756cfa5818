/* Forward on the CPU.
 *
 * Documents with many query rows go through tiles: scores of a query tile against a key tile by sgemm, online softmax
 * (running maximum m and sum l per row), output by sgemm. Tasks are (document, query tile, key/value head).
 *
 * Documents with few query rows (decoding: one token, many keys) would waste such tiles. There every row takes its dot
 * products with the keys directly, and the keys are split into chunks, so that one long document keeps all threads
 * busy; a second pass joins the chunks' (m, l, o). Tasks are (document, key chunk, key/value head). */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "attention_cpu.h"
#include "cpu/clones.h"
#include "cpu/fast_math.h"

enum { LANES = PN_ATTENTION_LANES, KEYS = PN_ATTENTION_KEYS, CHUNK = 512, FEW_ROWS = 8 };

typedef struct layout {
    pn_attention_tiles g;
    int64_t n_docs, threads;
    int64_t few_rows;                       /* most rows of a task of the few-rows kind */
    int64_t tiles, chunks;                  /* tasks per key/value head */
    size_t tile_start, chunk_start;         /* byte offsets in the scratch: n_docs + 1 int64_t each */
    size_t partial, partial_bytes;          /* per (chunk, key/value head): few_rows x (m, l, o[d]) */
    size_t thread, thread_bytes;            /* per thread */
    size_t q, score, out, most, sum, total; /* inside a thread's part; `total` of everything */
} layout;

static bool few(const pn_attention_tiles *g, const pn_attention_doc *x) {
    return x->queries == 1 || x->queries * g->group <= FEW_ROWS;
}
/* Keys that any query of the document sees: from here to its last. */
static int64_t first_key(const pn_attention_attr *a, const pn_attention_doc *x) {
    return pn_attention_first(a, pn_attention_position(x, 0));
}
static int64_t doc_tiles(const layout *l, const pn_attention_doc *x) {
    return few(&l->g, x) ? 0 : (x->queries + l->g.tokens - 1) / l->g.tokens;
}
static int64_t doc_chunks(const layout *l, const pn_attention_attr *a, const pn_attention_doc *x) {
    return few(&l->g, x) && x->queries ? (x->keys - first_key(a, x) + CHUNK - 1) / CHUNK : 0;
}

static layout layout_of(const pn_attention_attr *a) {
    layout l = { .g = pn_attention_tiles_of(a), .n_docs = a->docs.n, .threads = omp_get_max_threads() };
    for (int64_t i = 0; i < l.n_docs; i++) {
        pn_attention_doc x = pn_attention_doc_at(a, i);
        l.tiles += doc_tiles(&l, &x);
        l.chunks += doc_chunks(&l, a, &x);
    }
    l.few_rows = l.g.group > FEW_ROWS ? l.g.group : FEW_ROWS;
    size_t index = ((size_t)(l.n_docs + 1) * sizeof(int64_t) + 63) / 64 * 64;
    l.chunk_start = index;
    l.partial = 2 * index;
    l.partial_bytes = pn_attention_floats(l.few_rows * (l.g.d + 2));
    l.thread = l.partial + (size_t)(l.chunks * l.g.kv_heads) * l.partial_bytes;
    int64_t rows = l.tiles ? l.g.rows : 0, few_rows = l.chunks ? l.few_rows : 0;
    int64_t scores = rows * KEYS > few_rows * CHUNK ? rows * KEYS : few_rows * CHUNK;
    l.score = pn_attention_floats((rows > few_rows ? rows : few_rows) * l.g.d);
    l.out = l.score + pn_attention_floats(scores);
    l.most = l.out + pn_attention_floats(rows * l.g.d);
    l.sum = l.most + pn_attention_floats(rows);
    l.thread_bytes = l.sum + pn_attention_floats(rows);
    l.total = l.thread + (size_t)l.threads * l.thread_bytes;
    return l;
}

size_t pn_attention_cpu_forward_bytes(const pn_op_call *c) {
    return layout_of(c->attr).total;
}

/* One row of scores becomes weights relative to the new maximum. Keys outside begin .. end get 0; the row is readable
 * up to the next multiple of LANES after n. Returns the factor for what was summed before. */
static inline float softmax_row(float *restrict s, int64_t n, int64_t begin, int64_t end, float *most, float *sum) {
    int64_t padded = (n + LANES - 1) / LANES * LANES;
    for (int64_t j = 0; j < begin; j++) s[j] = -INFINITY;
    for (int64_t j = end; j < padded; j++) s[j] = -INFINITY;
    float lane[LANES], m = *most;
    for (int i = 0; i < LANES; i++) lane[i] = m;
    for (int64_t j = 0; j < padded; j += LANES)
        for (int i = 0; i < LANES; i++) lane[i] = s[j + i] > lane[i] ? s[j + i] : lane[i];
    for (int i = 0; i < LANES; i++) m = lane[i] > m ? lane[i] : m;
    if (m == -INFINITY) { /* nothing seen yet */
        memset(s, 0, (size_t)padded * sizeof *s);
        return 1.0f;
    }
    for (int i = 0; i < LANES; i++) lane[i] = 0;
    for (int64_t j = 0; j < padded; j += LANES)
        for (int i = 0; i < LANES; i++) {
            float p = pn_exp_nonposf(s[j + i] - m);
            s[j + i] = p;
            lane[i] += p;
        }
    float before = pn_exp_nonposf(*most - m), added = 0;
    for (int i = 0; i < LANES; i++) added += lane[i];
    *sum = pn_fmaf(*sum, before, added);
    *most = m;
    return before;
}

PN_CLONES static void softmax_tile(const pn_attention_tiles *g, int64_t tokens, int64_t position, int64_t j0, int64_t n,
                                   float *restrict score, float *restrict out, float *restrict most,
                                   float *restrict sum) {
    int64_t d = g->d;
    for (int64_t i = 0, row = 0; i < tokens; i++) {
        int64_t begin, end;
        pn_attention_visible(g, position + i, j0, n, &begin, &end);
        for (int64_t h = 0; h < g->group; h++, row++) {
            float factor = softmax_row(score + row * KEYS, n, begin, end, most + row, sum + row);
            if (factor != 1.0f)
                for (int64_t k = 0; k < d; k++) out[row * d + k] *= factor;
        }
    }
}

PN_CLONES static void write_tile(const pn_attention_tiles *g, int64_t tokens, const float *restrict out,
                                 const float *restrict most, const float *restrict sum, float *restrict o,
                                 float *restrict lse) {
    int64_t d = g->d;
    for (int64_t i = 0, row = 0; i < tokens; i++) {
        for (int64_t h = 0; h < g->group; h++, row++) {
            float inverse = 1.0f / sum[row];
            for (int64_t k = 0; k < d; k++) o[i * g->q_stride + h * d + k] = out[row * d + k] * inverse;
            lse[i * g->heads + h] = most[row] + logf(sum[row]);
        }
    }
}

static void tile_task(const pn_op_call *c, const layout *l, const pn_attention_doc *x, int64_t tile, int64_t kv_head,
                      char *mine) {
    const pn_attention_tiles *g = &l->g;
    int64_t i0 = tile * g->tokens, tokens = x->queries - i0 < g->tokens ? x->queries - i0 : g->tokens;
    int64_t rows = tokens * g->group, d = g->d, position = pn_attention_position(x, i0);
    int64_t token = x->query0 + i0, channel = kv_head * g->group * d;
    const float *k = pn_f32(c->in[1]) + x->key0 * g->kv_stride + kv_head * d;
    const float *v = pn_f32(c->in[2]) + x->key0 * g->kv_stride + kv_head * d;
    float *q = (float *)mine, *score = (float *)(mine + l->score), *out = (float *)(mine + l->out);
    float *most = (float *)(mine + l->most), *sum = (float *)(mine + l->sum);
    pn_attention_pack(g, pn_f32(c->in[0]) + token * g->q_stride + channel, tokens, g->scale, q);
    memset(out, 0, (size_t)(rows * d) * sizeof *out);
    for (int64_t r = 0; r < rows; r++) most[r] = -INFINITY, sum[r] = 0;
    int64_t end = position + tokens, j0 = pn_attention_first(c->attr, position);
    for (; j0 < end; j0 += KEYS) {
        int64_t n = end - j0 < KEYS ? end - j0 : KEYS;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)n, (int)d, 1.0f, q, (int)d,
                    k + j0 * g->kv_stride, (int)g->kv_stride, 0.0f, score, KEYS);
        softmax_tile(g, tokens, position, j0, n, score, out, most, sum);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)d, (int)n, 1.0f, score, KEYS,
                    v + j0 * g->kv_stride, (int)g->kv_stride, 1.0f, out, (int)d);
    }
    write_tile(g, tokens, out, most, sum, pn_f32(c->out[0]) + token * g->q_stride + channel,
               pn_f32(c->out[1]) + token * g->heads + kv_head * g->group);
}

/* Scores of a few rows against keys j0 .. j0+n-1, then their weighted sum of the values. */
PN_CLONES static void few_scores(int64_t rows, int64_t d, const float *restrict q, const float *restrict k,
                                 int64_t stride, int64_t n, float *restrict score) {
    for (int64_t j = 0; j < n; j++, k += stride) {
        for (int64_t r = 0; r < rows; r++) {
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < d; i++) sum += q[r * d + i] * k[i];
            score[r * CHUNK + j] = sum;
        }
    }
}
PN_CLONES static void few_outputs(int64_t rows, int64_t d, const float *restrict score, const float *restrict v,
                                  int64_t stride, int64_t n, float *restrict out, int64_t out_stride) {
    int64_t j = 0;
    for (; j + 4 <= n; j += 4, v += 4 * stride) {
        for (int64_t r = 0; r < rows; r++) {
            const float *p = score + r * CHUNK + j;
            float *o = out + r * out_stride;
            for (int64_t i = 0; i < d; i++) {
                float near = pn_fmaf(p[0], v[i], p[1] * v[stride + i]);
                o[i] += pn_fmaf(p[2], v[2 * stride + i], pn_fmaf(p[3], v[3 * stride + i], near));
            }
        }
    }
    for (; j < n; j++, v += stride)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < d; i++)
                out[r * out_stride + i] = pn_fmaf(score[r * CHUNK + j], v[i], out[r * out_stride + i]);
}
PN_CLONES static void few_softmax(const pn_attention_tiles *g, int64_t tokens, int64_t position, int64_t j0, int64_t n,
                                  float *restrict score, float *restrict partial, int64_t stride) {
    for (int64_t i = 0, row = 0; i < tokens; i++) {
        int64_t begin, end;
        pn_attention_visible(g, position + i, j0, n, &begin, &end);
        for (int64_t h = 0; h < g->group; h++, row++) {
            float *m = partial + row * stride;
            m[0] = -INFINITY, m[1] = 0;
            softmax_row(score + row * CHUNK, n, begin, end, m, m + 1);
        }
    }
}

static void chunk_task(const pn_op_call *c, const layout *l, const pn_attention_doc *x, int64_t chunk, int64_t kv_head,
                       char *mine, float *partial) {
    const pn_attention_tiles *g = &l->g;
    int64_t d = g->d, rows = x->queries * g->group, j0 = first_key(c->attr, x) + chunk * CHUNK;
    int64_t n = x->keys - j0 < CHUNK ? x->keys - j0 : CHUNK, at = (x->key0 + j0) * g->kv_stride + kv_head * d;
    float *q = (float *)mine, *score = (float *)(mine + l->score);
    pn_attention_pack(g, pn_f32(c->in[0]) + x->query0 * g->q_stride + kv_head * g->group * d, x->queries, g->scale, q);
    few_scores(rows, d, q, pn_f32(c->in[1]) + at, g->kv_stride, n, score);
    few_softmax(g, x->queries, pn_attention_position(x, 0), j0, n, score, partial, d + 2);
    for (int64_t r = 0; r < rows; r++) memset(partial + r * (d + 2) + 2, 0, (size_t)d * sizeof(float));
    few_outputs(rows, d, score, pn_f32(c->in[2]) + at, g->kv_stride, n, partial + 2, d + 2);
}

/* o = sum_c e^{m_c - m} o_c / sum_c e^{m_c - m} l_c over the chunks of a document, in their order. */
PN_CLONES static void join_row(int64_t d, int64_t chunks, const float *restrict partial, int64_t chunk_stride,
                               float *restrict o, float *restrict lse) {
    float m = -INFINITY, sum = 0;
    for (int64_t i = 0; i < chunks; i++) m = partial[i * chunk_stride] > m ? partial[i * chunk_stride] : m;
    for (int64_t k = 0; k < d; k++) o[k] = 0;
    for (int64_t i = 0; i < chunks; i++) {
        const float *p = partial + i * chunk_stride;
        float factor = pn_exp_nonposf(p[0] - m);
        sum = pn_fmaf(factor, p[1], sum);
        for (int64_t k = 0; k < d; k++) o[k] = pn_fmaf(factor, p[2 + k], o[k]);
    }
    float inverse = 1.0f / sum;
    for (int64_t k = 0; k < d; k++) o[k] *= inverse;
    *lse = m + logf(sum);
}

static void join_task(const pn_op_call *c, const layout *l, const pn_attention_doc *x, int64_t chunks,
                      const float *partial, int64_t chunk_stride, int64_t kv_head) {
    const pn_attention_tiles *g = &l->g;
    for (int64_t i = 0, row = 0; i < x->queries; i++) {
        for (int64_t h = 0; h < g->group; h++, row++) {
            int64_t at = (x->query0 + i) * g->heads + kv_head * g->group + h;
            join_row(g->d, chunks, partial + row * (g->d + 2), chunk_stride, pn_f32(c->out[0]) + at * g->d,
                     pn_f32(c->out[1]) + at);
        }
    }
}

pn_status pn_attention_cpu_forward(const pn_op_call *c) {
    const pn_attention_attr *a = c->attr;
    layout l = layout_of(a);
    char *base = c->scratch;
    int64_t *tile_start = (int64_t *)base, *chunk_start = (int64_t *)(base + l.chunk_start), kv = l.g.kv_heads;
    tile_start[0] = chunk_start[0] = 0;
    for (int64_t i = 0; i < l.n_docs; i++) {
        pn_attention_doc x = pn_attention_doc_at(a, i);
        tile_start[i + 1] = tile_start[i] + doc_tiles(&l, &x);
        chunk_start[i + 1] = chunk_start[i] + doc_chunks(&l, a, &x);
    }
    int64_t chunk_stride = (int64_t)(l.partial_bytes / sizeof(float)) * kv;
#pragma omp parallel num_threads((int)l.threads)
    {
        char *mine = base + l.thread + (size_t)omp_get_thread_num() * l.thread_bytes;
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t task = 0; task < l.tiles * kv; task++) {
            int64_t tile = l.tiles - 1 - task / kv; /* the last tiles of a document see most keys: first */
            int64_t doc = pn_attention_find(tile_start, l.n_docs, tile);
            pn_attention_doc x = pn_attention_doc_at(a, doc);
            tile_task(c, &l, &x, tile - tile_start[doc], task % kv, mine);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < l.chunks * kv; task++) {
            int64_t doc = pn_attention_find(chunk_start, l.n_docs, task / kv);
            pn_attention_doc x = pn_attention_doc_at(a, doc);
            chunk_task(c, &l, &x, task / kv - chunk_start[doc], task % kv, mine,
                       (float *)(base + l.partial + (size_t)task * l.partial_bytes));
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < l.n_docs * kv; task++) {
            int64_t doc = task / kv, chunks = chunk_start[doc + 1] - chunk_start[doc];
            if (!chunks) continue;
            pn_attention_doc x = pn_attention_doc_at(a, doc);
            size_t first = (size_t)(chunk_start[doc] * kv + task % kv);
            join_task(c, &l, &x, chunks, (const float *)(base + l.partial + first * l.partial_bytes), chunk_stride,
                      task % kv);
        }
    }
    return PN_OK;
}
