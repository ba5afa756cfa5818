/* Backward on the CPU: one pass, five products per pair of a query tile and a key tile.
 *
 * A task owns some query tiles of one (document, key/value head) and walks the key tiles each of them sees: it
 * recomputes the weights from lse, finishes dq of its tile alone and adds to dk and dv. Two passes (dq by query tiles,
 * dk and dv by key tiles) would need no sharing either but seven products and two exponentials; this way costs memory
 * instead. When there are too few (document, head) pairs to balance, the query tiles of a document are dealt to and
 * fro (later tiles see more keys) to up to SEGMENTS tasks, each with its own dk and dv, which are added up in segment
 * order. The number of segments follows from the shapes, never from the number of threads, and no sum depends on which
 * task ran first.
 *
 * What bounds it at 512 tokens and heads of 64: three quarters of the time is products at the speed of sgemm, of which
 * one in five makes the scores again and up to a tenth is spent on columns that the diagonal hides; the rest is packing
 * tiles, exponentials, and adding dk and dv up. That leaves 0.6 of sgemm on one thread.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "attention_cpu.h"
#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/vec.h"

enum {
    KEYS = PN_ATTENTION_KEYS,
    PANEL = PN_ATTENTION_PANEL,
    BLOCK = PN_ATTENTION_BLOCK,
    KEY_BLOCK = 24, /* keys whose dk and dv are summed together */
    SEGMENTS = 8,
    WANTED_TASKS = 16,
};

typedef struct layout {
    pn_attention_tiles g;
    int64_t segments, threads, kv_elems; /* kv_elems: floats of dk */
    bool shared;                         /* key ranges of documents may overlap: one document at a time */
    size_t segment_bytes;                /* per segment: dk, then dv; none for a single segment */
    size_t panel_start, k_panels, v_panels;
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
    int64_t longest = 0, key_end = 0, panels = 0;
    for (int64_t i = 0; i < a->docs.n; i++) {
        pn_attention_doc x = pn_attention_doc_at(a, i);
        double w = work(a, &x);
        total += w;
        most = w > most ? w : most;
        longest = x.queries > longest ? x.queries : longest;
        if (!x.queries) continue;
        panels += pn_attention_panel_count(a, &x);
        l.shared = l.shared || x.key0 < key_end;
        key_end = x.key0 + x.keys;
    }
    /* Tasks as even as the largest document allows; when documents run one by one, each must be split. */
    double even = most > 0 && !l.shared ? total / most * (double)l.g.kv_heads : (double)l.g.kv_heads;
    int64_t tiles = (longest + l.g.tokens - 1) / l.g.tokens;
    l.segments = (int64_t)ceil(WANTED_TASKS / even);
    l.segments = l.segments > SEGMENTS ? SEGMENTS : l.segments;
    l.segments = l.segments > tiles / 2 ? tiles / 2 : l.segments; /* clearing and adding one costs most of a tile */
    l.segments = l.segments < 1 ? 1 : l.segments;
    l.segment_bytes = l.segments > 1 ? 2 * pn_attention_floats(l.kv_elems) : 0;
    size_t panel_bytes = pn_attention_floats(panels * l.g.kv_heads * l.g.d * PANEL);
    l.panel_start = (size_t)l.segments * l.segment_bytes;
    l.k_panels = l.panel_start + ((size_t)(a->docs.n + 1) * sizeof(int64_t) + 63) / 64 * 64;
    l.v_panels = l.k_panels + panel_bytes;
    l.thread = l.v_panels + panel_bytes;
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
            delta[row] = pn_dotf(d_o + row * d, o + i * g->q_stride + h * d, d);
            row_lse[row] = lse[i * g->heads + h];
        }
    }
}

/* Rows row .. row_end of a tile of n keys: scores become p = exp(s - lse), dp becomes ds = p (dp - delta); 0 in columns
 * that a row does not see, also where nothing was computed. p and dp start at this block's first row. */
PN_CLONES static void weights_block(const pn_attention_tiles *g, int64_t row, int64_t row_end, int64_t position,
                                    int64_t j0, int64_t n, pn_attention_columns columns, const float *restrict lse,
                                    const float *restrict delta, float *restrict p, float *restrict dp) {
    for (; row < row_end; row++, p += KEYS, dp += KEYS) {
        int64_t stands = position + row / g->group - j0; /* column of the row's own key */
        int64_t begin = g->window && stands - g->window + 1 > columns.begin ? stands - g->window + 1 : columns.begin;
        int64_t end = stands + 1 < columns.end ? stands + 1 : columns.end;
        float m = lse[row], mean = delta[row];
        for (int64_t j = columns.begin; j < columns.end; j++) {
            float weight = pn_exp_nonposf(p[j] - m);
            p[j] = weight;
            dp[j] = weight * (dp[j] - mean);
        }
        if (end <= begin) begin = end = n;
        for (int64_t j = 0; j < begin; j++) p[j] = dp[j] = 0;
        for (int64_t j = end; j < n; j++) p[j] = dp[j] = 0;
    }
}

PN_CLONES static void add_dq(const pn_attention_tiles *g, int64_t tokens, const float *restrict dq,
                             float *restrict out) {
    int64_t n = g->group * g->d;
    for (int64_t i = 0; i < tokens; i++)
        for (int64_t k = 0; k < n; k++)
            out[i * g->q_stride + k] = pn_fmaf(g->scale, dq[i * n + k], out[i * g->q_stride + k]);
}

/* d_keys += W^T X for the keys of a tile, W = p or ds [rows x KEYS], X = do or q. Blocks of keys skip the rows that see
 * none of them. */
static void add_to_keys(const pn_attention_tiles *g, int64_t rows, int64_t position, int64_t j0, int64_t n,
                        const float *weights, const float *x, float *d_keys) {
    for (int64_t j = 0; j < n; j += KEY_BLOCK) {
        int64_t m = n - j < KEY_BLOCK ? n - j : KEY_BLOCK, first = (j0 + j - position) * g->group;
        int64_t end = g->window ? (j0 + j + m - 1 + g->window - position) * g->group : rows;
        first = first > 0 ? first : 0;
        end = end < rows ? end : rows;
        if (first >= end) continue;
        pn_attention_product(m, g->d, end - first, weights + first * KEYS + j, 1, KEYS, x + first * g->d, g->d,
                             d_keys + (j0 + j) * g->kv_stride, g->kv_stride, true);
    }
}

typedef struct head_task {
    pn_attention_doc doc;
    int64_t kv_head;
    const float *k_panel, *v_panel; /* the document's first, of this head */
    float *dk, *dv;                 /* the document's first key, this head; NULL: not wanted */
} head_task;

static void tile_task(const pn_op_call *c, const layout *l, const head_task *t, int64_t tile, char *mine) {
    const pn_attention_tiles *g = &l->g;
    const pn_attention_doc *x = &t->doc;
    int64_t i0 = tile * g->tokens, tokens = x->queries - i0 < g->tokens ? x->queries - i0 : g->tokens;
    int64_t d = g->d, position = pn_attention_position(x, i0), rows = tokens * g->group;
    int64_t token = x->query0 + i0, at = token * g->q_stride + t->kv_head * g->group * d;
    const float *k = pn_f32(c->in[1]) + x->key0 * g->kv_stride + t->kv_head * d;
    float *q = (float *)mine, *d_o = (float *)(mine + l->d_o), *dq = (float *)(mine + l->dq);
    float *p = (float *)(mine + l->p), *dp = (float *)(mine + l->dp);
    float *lse = (float *)(mine + l->lse), *delta = (float *)(mine + l->delta);
    pn_attention_pack(g, pn_f32(c->in[0]) + at, tokens, g->scale, q);
    pn_attention_pack(g, pn_f32(c->dout[0]) + at, tokens, 1.0f, d_o);
    row_statistics(g, tokens, d_o, pn_f32(c->out[0]) + at, pn_f32(c->out[1]) + token * g->heads + t->kv_head * g->group,
                   lse, delta);
    memset(dq, 0, (size_t)(rows * d) * sizeof *dq);
    int64_t end = position + tokens, base = pn_attention_base(c->attr, x);
    int64_t j0 = base + (pn_attention_first(c->attr, position) - base) / PANEL * PANEL;
    for (; j0 < end; j0 += KEYS) {
        int64_t n = end - j0 < KEYS ? end - j0 : KEYS, panel = (j0 - base) / PANEL * (g->kv_heads * d * PANEL);
        for (int64_t r = 0; r < rows; r += BLOCK) {
            int64_t r_end = r + BLOCK < rows ? r + BLOCK : rows;
            float *block_p = p + r * KEYS, *block_dp = dp + r * KEYS;
            pn_attention_columns columns =
                pn_attention_columns_of(g, position + r / g->group, position + (r_end - 1) / g->group, j0, n);
            pn_attention_scores(g, q + r * d, r_end - r, t->k_panel + panel, columns, block_p);
            pn_attention_scores(g, d_o + r * d, r_end - r, t->v_panel + panel, columns, block_dp);
            weights_block(g, r, r_end, position, j0, n, columns, lse, delta, block_p, block_dp);
            int64_t keys = (columns.end < n ? columns.end : n) - columns.begin;
            if (c->din[0] && keys > 0)
                pn_attention_product(r_end - r, d, keys, block_dp + columns.begin, KEYS, 1,
                                     k + (j0 + columns.begin) * g->kv_stride, g->kv_stride, dq + r * d, d, true);
        }
        if (t->dv) add_to_keys(g, rows, position, j0, n, p, d_o, t->dv);
        if (t->dk) add_to_keys(g, rows, position, j0, n, dp, q, t->dk); /* q carries the scale */
    }
    if (c->din[0]) add_dq(g, tokens, dq, pn_f32(c->din[0]) + at);
}

static void doc_task(const pn_op_call *c, const layout *l, int64_t doc, int64_t kv_head, int64_t segment, char *mine) {
    char *base = c->scratch;
    head_task t = { .doc = pn_attention_doc_at(c->attr, doc), .kv_head = kv_head };
    int64_t panel = ((const int64_t *)(base + l->panel_start))[doc];
    panel = (panel * l->g.kv_heads + kv_head) * l->g.d * PANEL;
    t.k_panel = (const float *)(base + l->k_panels) + panel;
    t.v_panel = (const float *)(base + l->v_panels) + panel;
    float *dk = pn_f32_or_null(c->din[1]), *dv = pn_f32_or_null(c->din[2]);
    if (l->segments > 1) {
        float *own = (float *)(base + (size_t)segment * l->segment_bytes);
        dk = dk ? own : NULL;
        dv = dv ? own + pn_attention_floats(l->kv_elems) / sizeof(float) : NULL;
    }
    int64_t at = t.doc.key0 * l->g.kv_stride + kv_head * l->g.d;
    t.dk = dk ? dk + at : NULL;
    t.dv = dv ? dv + at : NULL;
    for (int64_t round = 0, tiles = pn_attention_tile_count(&l->g, &t.doc); round * l->segments < tiles; round++) {
        int64_t tile = round * l->segments + (round % 2 ? l->segments - 1 - segment : segment);
        if (tile < tiles) tile_task(c, l, &t, tile, mine);
    }
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
    int64_t at_once = l.shared ? 1 : a->docs.n, *panel_start = (int64_t *)(base + l.panel_start);
    panel_start[0] = 0;
    for (int64_t i = 0; i < a->docs.n; i++) {
        pn_attention_doc x = pn_attention_doc_at(a, i);
        panel_start[i + 1] = panel_start[i] + (x.queries ? pn_attention_panel_count(a, &x) : 0);
    }
    enum { RUN = 4096 };
#pragma omp parallel num_threads((int)l.threads)
    {
        char *mine = base + l.thread + (size_t)omp_get_thread_num() * l.thread_bytes;
        pn_attention_panels(a, &l.g, panel_start, pn_f32(c->in[1]), (float *)(base + l.k_panels));
        pn_attention_panels(a, &l.g, panel_start, pn_f32(c->in[2]), (float *)(base + l.v_panels));
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
