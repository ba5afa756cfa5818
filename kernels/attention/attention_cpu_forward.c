/* Forward on the CPU.
 *
 * Documents with many query rows go through tiles. Keys are transposed once into panels, so that scores, softmax and
 * the product with the values all run along contiguous memory; a block of rows keeps its scores in the first-level
 * cache. Tasks are (document, query tile, key/value head).
 *
 * Documents with few query rows (decoding: one token, many keys) would waste such tiles. There every row takes its dot
 * products with the keys directly; a task reads all heads of a run of keys, so memory is streamed, and the keys are
 * split into chunks, so that one long document keeps all threads busy. A second pass joins the chunks' (m, l, o). */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "attention_cpu.h"
#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/vec.h"

enum {
    LANES = PN_ATTENTION_LANES,
    KEYS = PN_ATTENTION_KEYS,
    PANEL = PN_ATTENTION_PANEL,
    BLOCK = PN_ATTENTION_BLOCK,
    CHUNK = 256,
    FEW_ROWS = 8,
};

typedef struct layout {
    pn_attention_tiles g;
    int64_t n_docs, threads;
    int64_t few_rows;                            /* most rows of a document of the few-rows kind */
    int64_t tiles, chunks, panel_count;          /* tiles and panels: per key/value head */
    size_t tile_start, chunk_start, panel_start; /* byte offsets in the scratch: n_docs + 1 int64_t each */
    size_t panels, partial, partial_bytes;       /* partial: per chunk, few_rows x (m, l, o[d]) */
    size_t thread, thread_bytes, score, out, most, sum, total; /* inside a thread's part; `total` of everything */
} layout;

static bool few(const pn_attention_tiles *g, const pn_attention_doc *x) {
    return x->queries == 1 || x->queries * g->group <= FEW_ROWS;
}
/* Keys that any query of the document sees: from here to its last. */
static int64_t first_key(const pn_attention_attr *a, const pn_attention_doc *x) {
    return pn_attention_first(a, pn_attention_position(x, 0));
}
static int64_t doc_tiles(const layout *l, const pn_attention_doc *x) {
    return few(&l->g, x) ? 0 : pn_attention_tile_count(&l->g, x);
}
static int64_t doc_panels(const layout *l, const pn_attention_attr *a, const pn_attention_doc *x) {
    return few(&l->g, x) ? 0 : pn_attention_panel_count(a, x);
}
static int64_t doc_chunks(const layout *l, const pn_attention_attr *a, const pn_attention_doc *x) {
    return few(&l->g, x) && x->queries ? (x->keys - first_key(a, x) + CHUNK - 1) / CHUNK : 0;
}

static layout layout_of(const pn_attention_attr *a) {
    layout l = { .g = pn_attention_tiles_of(a), .n_docs = a->docs.n, .threads = omp_get_max_threads() };
    for (int64_t i = 0; i < l.n_docs; i++) {
        pn_attention_doc x = pn_attention_doc_at(a, i);
        l.tiles += doc_tiles(&l, &x);
        l.panel_count += doc_panels(&l, a, &x);
        l.chunks += doc_chunks(&l, a, &x);
        if (few(&l.g, &x) && x.queries * l.g.heads > l.few_rows) l.few_rows = x.queries * l.g.heads;
    }
    size_t index = ((size_t)(l.n_docs + 1) * sizeof(int64_t) + 63) / 64 * 64;
    l.chunk_start = index;
    l.panel_start = 2 * index;
    l.panels = 3 * index;
    l.partial = l.panels + pn_attention_floats(l.panel_count * l.g.kv_heads * l.g.d * PANEL);
    l.partial_bytes = pn_attention_floats(l.few_rows * (l.g.d + 2));
    l.thread = l.partial + (size_t)l.chunks * l.partial_bytes;
    int64_t rows = l.tiles ? l.g.rows : 0;
    l.score = pn_attention_floats((rows > l.few_rows ? rows : l.few_rows) * l.g.d);
    l.out = l.score + pn_attention_floats(l.few_rows * CHUNK > BLOCK * KEYS ? l.few_rows * CHUNK : BLOCK * KEYS);
    l.most = l.out + pn_attention_floats(rows * l.g.d);
    l.sum = l.most + pn_attention_floats(rows);
    l.thread_bytes = l.sum + pn_attention_floats(rows);
    l.total = l.thread + (size_t)l.threads * l.thread_bytes;
    return l;
}

size_t pn_attention_cpu_forward_bytes(const pn_op_call *c) {
    return layout_of(c->attr).total;
}

/* A row of scores, columns begin .. end (multiples of LANES), becomes weights relative to the new maximum; columns
 * outside seen_begin .. seen_end get 0. Returns the factor for what was summed before. */
PN_INLINE float softmax_row(float *restrict s, int64_t begin, int64_t end, int64_t seen_begin, int64_t seen_end,
                            float *most, float *sum) {
    for (int64_t j = begin; j < seen_begin; j++) s[j] = -INFINITY;
    for (int64_t j = seen_end; j < end; j++) s[j] = -INFINITY;
    float m = pn_vec_max(s + begin, end - begin, *most);
    if (m == -INFINITY) { /* nothing seen yet */
        for (int64_t j = begin; j < end; j++) s[j] = 0;
        return 1.0f;
    }
    for (int64_t j = begin; j < end; j++) s[j] = pn_exp_nonposf(s[j] - m);
    pn_vec sums = { 0 };
    for (int64_t j = begin; j < end; j += PN_VEC) sums += *(const pn_vec *)(s + j);
    float added = pn_vec_sum(&sums);
    float before = pn_exp_nonposf(*most - m);
    *sum = pn_fmaf(*sum, before, added);
    *most = m;
    return before;
}

/* Rows row .. row_end of a tile whose first token stands at `position`. score starts at this block's first row. */
PN_CLONES static void softmax_block(const pn_attention_tiles *g, int64_t row, int64_t row_end, int64_t position,
                                    int64_t j0, pn_attention_columns columns, float *restrict score,
                                    float *restrict out, float *restrict most, float *restrict sum) {
    int64_t d = g->d;
    for (; row < row_end; row++, score += KEYS) {
        int64_t stands = position + row / g->group - j0; /* column of the row's own key */
        int64_t begin = g->window && stands - g->window + 1 > columns.begin ? stands - g->window + 1 : columns.begin;
        int64_t end = stands + 1 < columns.end ? stands + 1 : columns.end;
        if (end <= begin) begin = end = columns.begin;
        float factor = softmax_row(score, columns.begin, columns.end, begin, end, most + row, sum + row);
        if (factor != 1.0f)
            for (int64_t k = 0; k < d; k++) out[row * d + k] *= factor;
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

/* panel: of the document's first panel and this head. */
static void tile_task(const pn_op_call *c, const layout *l, const pn_attention_doc *x, int64_t tile, int64_t kv_head,
                      const float *panel, char *mine) {
    const pn_attention_tiles *g = &l->g;
    int64_t i0 = tile * g->tokens, tokens = x->queries - i0 < g->tokens ? x->queries - i0 : g->tokens;
    int64_t rows = tokens * g->group, d = g->d, position = pn_attention_position(x, i0);
    int64_t token = x->query0 + i0, channel = kv_head * g->group * d;
    const float *v = pn_f32(c->in[2]) + x->key0 * g->kv_stride + kv_head * d;
    float *q = (float *)mine, *score = (float *)(mine + l->score), *out = (float *)(mine + l->out);
    float *most = (float *)(mine + l->most), *sum = (float *)(mine + l->sum);
    pn_attention_pack(g, pn_f32(c->in[0]) + token * g->q_stride + channel, tokens, g->scale, q);
    memset(out, 0, (size_t)(rows * d) * sizeof *out);
    for (int64_t r = 0; r < rows; r++) most[r] = -INFINITY, sum[r] = 0;
    int64_t end = position + tokens, base = pn_attention_base(c->attr, x);
    int64_t j0 = base + (pn_attention_first(c->attr, position) - base) / PANEL * PANEL;
    for (; j0 < end; j0 += KEYS) {
        int64_t n = end - j0 < KEYS ? end - j0 : KEYS;
        const float *tile_panel = panel + (j0 - base) / PANEL * (g->kv_heads * d * PANEL);
        for (int64_t r = 0; r < rows; r += BLOCK) {
            int64_t r_end = r + BLOCK < rows ? r + BLOCK : rows;
            pn_attention_columns columns =
                pn_attention_columns_of(g, position + r / g->group, position + (r_end - 1) / g->group, j0, n);
            if (columns.begin >= columns.end) continue;
            pn_attention_scores(g, q + r * d, r_end - r, tile_panel, columns, score);
            softmax_block(g, r, r_end, position, j0, columns, score, out, most, sum);
            int64_t keys = (columns.end < n ? columns.end : n) - columns.begin;
            pn_attention_product(r_end - r, d, keys, score + columns.begin, KEYS, 1,
                                 v + (j0 + columns.begin) * g->kv_stride, g->kv_stride, out + r * d, d, true);
        }
    }
    write_tile(g, tokens, out, most, sum, pn_f32(c->out[0]) + token * g->q_stride + channel,
               pn_f32(c->out[1]) + token * g->heads + kv_head * g->group);
}

/* Few rows: `rows` of every key/value head, head after head, against n keys of all heads. */
PN_CLONES static void few_scores(const pn_attention_tiles *g, int64_t rows, const float *restrict q,
                                 const float *restrict k, int64_t n, float *restrict score) {
    int64_t d = g->d, stride = g->kv_stride, j = 0;
    for (; j + 4 <= n; j += 4, k += 4 * stride) {
        for (int64_t r = 0; r < rows * g->kv_heads; r++) {
            const float *k0 = k + r / rows * d, *k1 = k0 + stride, *k2 = k1 + stride, *k3 = k2 + stride, *x = q + r * d;
            pn_vec sum[4] = { { 0 } };
            int64_t i = 0;
            for (; i + PN_VEC <= d; i += PN_VEC) {
                pn_vec all = *(const pn_vec *)(x + i);
                sum[0] += all * *(const pn_vec *)(k0 + i);
                sum[1] += all * *(const pn_vec *)(k1 + i);
                sum[2] += all * *(const pn_vec *)(k2 + i);
                sum[3] += all * *(const pn_vec *)(k3 + i);
            }
            float *s = score + r * CHUNK + j;
            pn_vec_sum4(sum, s);
            for (; i < d; i++) s[0] += x[i] * k0[i], s[1] += x[i] * k1[i], s[2] += x[i] * k2[i], s[3] += x[i] * k3[i];
        }
    }
    for (; j < n; j++, k += stride)
        for (int64_t r = 0; r < rows * g->kv_heads; r++) score[r * CHUNK + j] = pn_dotf(q + r * d, k + r / rows * d, d);
}
PN_CLONES static void few_softmax(const pn_attention_tiles *g, int64_t tokens, int64_t position, int64_t j0, int64_t n,
                                  float *restrict score, float *restrict partial) {
    int64_t end = (n + LANES - 1) / LANES * LANES, rows = tokens * g->group;
    for (int64_t r = 0; r < rows * g->kv_heads; r++) {
        int64_t stands = position + r % rows / g->group - j0;
        int64_t seen = g->window && stands - g->window + 1 > 0 ? stands - g->window + 1 : 0;
        int64_t seen_end = stands + 1 < n ? stands + 1 : n;
        if (seen_end <= seen) seen = seen_end = 0;
        float *m = partial + r * (g->d + 2);
        m[0] = -INFINITY, m[1] = 0;
        softmax_row(score + r * CHUNK, 0, end, seen, seen_end, m, m + 1);
    }
}
PN_CLONES static void few_outputs(const pn_attention_tiles *g, int64_t rows, const float *restrict score,
                                  const float *restrict v, int64_t n, float *restrict partial) {
    int64_t d = g->d, stride = g->kv_stride, all = rows * g->kv_heads, j = 0;
    for (int64_t r = 0; r < all; r++)
        for (int64_t i = 0; i < d; i++) partial[r * (d + 2) + 2 + i] = 0;
    for (; j + 4 <= n; j += 4, v += 4 * stride) {
        for (int64_t r = 0; r < all; r++) {
            const float *p = score + r * CHUNK + j, *v0 = v + r / rows * d, *v1 = v0 + stride, *v2 = v1 + stride;
            const float *v3 = v2 + stride;
            float *restrict o = partial + r * (d + 2) + 2, p0 = p[0], p1 = p[1], p2 = p[2], p3 = p[3];
            for (int64_t i = 0; i < d; i++) o[i] += p0 * v0[i] + p1 * v1[i] + (p2 * v2[i] + p3 * v3[i]);
        }
    }
    for (; j < n; j++, v += stride)
        for (int64_t r = 0; r < all; r++)
            for (int64_t i = 0; i < d; i++) partial[r * (d + 2) + 2 + i] += score[r * CHUNK + j] * v[r / rows * d + i];
}

static void chunk_task(const pn_op_call *c, const layout *l, const pn_attention_doc *x, int64_t chunk, char *mine,
                       float *partial) {
    const pn_attention_tiles *g = &l->g;
    int64_t rows = x->queries * g->group, first = first_key(c->attr, x), j0 = first + chunk * CHUNK;
    int64_t n = x->keys - j0 < CHUNK ? x->keys - j0 : CHUNK, at = (x->key0 + j0) * g->kv_stride;
    float *q = (float *)mine, *score = (float *)(mine + l->score);
    for (int64_t h = 0; h < g->kv_heads; h++)
        pn_attention_pack(g, pn_f32(c->in[0]) + x->query0 * g->q_stride + h * g->group * g->d, x->queries, g->scale,
                          q + h * rows * g->d);
    few_scores(g, rows, q, pn_f32(c->in[1]) + at, n, score);
    few_softmax(g, x->queries, pn_attention_position(x, 0), j0, n, score, partial);
    few_outputs(g, rows, score, pn_f32(c->in[2]) + at, n, partial);
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
                      const float *partial, int64_t kv_head) {
    const pn_attention_tiles *g = &l->g;
    int64_t rows = x->queries * g->group, chunk_stride = (int64_t)(l->partial_bytes / sizeof(float));
    for (int64_t row = 0; row < rows; row++) {
        int64_t at = (x->query0 + row / g->group) * g->heads + kv_head * g->group + row % g->group;
        join_row(g->d, chunks, partial + (kv_head * rows + row) * (g->d + 2), chunk_stride,
                 pn_f32(c->out[0]) + at * g->d, pn_f32(c->out[1]) + at);
    }
}

pn_status pn_attention_cpu_forward(const pn_op_call *c) {
    const pn_attention_attr *a = c->attr;
    layout l = layout_of(a);
    char *base = c->scratch;
    int64_t *tile_start = (int64_t *)base, *chunk_start = (int64_t *)(base + l.chunk_start), kv = l.g.kv_heads;
    int64_t *panel_start = (int64_t *)(base + l.panel_start);
    tile_start[0] = chunk_start[0] = panel_start[0] = 0;
    for (int64_t i = 0; i < l.n_docs; i++) {
        pn_attention_doc x = pn_attention_doc_at(a, i);
        tile_start[i + 1] = tile_start[i] + doc_tiles(&l, &x);
        chunk_start[i + 1] = chunk_start[i] + doc_chunks(&l, a, &x);
        panel_start[i + 1] = panel_start[i] + doc_panels(&l, a, &x);
    }
    float *panels = (float *)(base + l.panels);
    /* Waking threads for one chunk or two costs more than it saves. */
#pragma omp parallel num_threads((int)l.threads) if (l.tiles * kv > 1 || l.chunks > 2)
    {
        char *mine = base + l.thread + (size_t)omp_get_thread_num() * l.thread_bytes;
        if (l.tiles) pn_attention_panels(a, &l.g, panel_start, pn_f32(c->in[1]), panels);
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t task = 0; task < l.tiles * kv; task++) {
            int64_t tile = l.tiles - 1 - task / kv; /* the last tiles of a document see most keys: first */
            int64_t doc = pn_attention_find(tile_start, l.n_docs, tile), head = task % kv;
            pn_attention_doc x = pn_attention_doc_at(a, doc);
            const float *panel = panels + (panel_start[doc] * kv + head) * l.g.d * PANEL;
            tile_task(c, &l, &x, tile - tile_start[doc], head, panel, mine);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < l.chunks; task++) {
            int64_t doc = pn_attention_find(chunk_start, l.n_docs, task);
            pn_attention_doc x = pn_attention_doc_at(a, doc);
            chunk_task(c, &l, &x, task - chunk_start[doc], mine,
                       (float *)(base + l.partial + (size_t)task * l.partial_bytes));
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < l.n_docs * kv; task++) {
            int64_t doc = task / kv, chunks = chunk_start[doc + 1] - chunk_start[doc];
            if (!chunks) continue;
            pn_attention_doc x = pn_attention_doc_at(a, doc);
            join_task(c, &l, &x, chunks, (const float *)(base + l.partial + (size_t)chunk_start[doc] * l.partial_bytes),
                      task % kv);
        }
    }
    return PN_OK;
}
