#include "attention_cpu.h"

#include "cpu/clones.h"
#include "cpu/tile_mm.h"
#include "cpu/vec.h"

enum { PANEL = PN_ATTENTION_PANEL, KEYS = PN_ATTENTION_KEYS };

pn_attention_tiles pn_attention_tiles_of(const pn_attention_attr *a) {
    pn_attention_tiles g = { .heads = a->heads,
                             .kv_heads = a->kv_heads,
                             .group = a->heads / a->kv_heads,
                             .d = a->head_dim,
                             .window = a->window,
                             .scale = (float)a->scale };
    g.q_stride = g.heads * g.d;
    g.kv_stride = g.kv_heads * g.d;
    g.tokens = 192 / g.group;
    g.tokens = g.tokens > 64 ? 64 : g.tokens < 16 ? 16 : g.tokens;
    g.rows = g.tokens * g.group;
    return g;
}

int64_t pn_attention_find(const int64_t *start, int64_t n, int64_t x) {
    int64_t lo = 0, hi = n - 1; /* the last document that starts at or before x: empty ones before it start there too */
    while (lo < hi) {
        int64_t mid = lo + (hi - lo + 1) / 2;
        if (start[mid] <= x)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

PN_CLONES void pn_attention_pack(const pn_attention_tiles *g, const float *restrict src, int64_t tokens, float scale,
                                 float *restrict dst) {
    int64_t n = g->group * g->d;
    for (int64_t i = 0; i < tokens; i++, src += g->q_stride, dst += n)
        for (int64_t k = 0; k < n; k++) dst[k] = scale * src[k];
}

/* 4 keys x 4 channels at a time. */
PN_CLONES void pn_attention_panel(const float *restrict src, int64_t stride, int64_t d, int64_t n,
                                  float *restrict panel) {
    int64_t i = 0, whole = n / 4 * 4;
    for (; i + 4 <= d; i += 4) {
        for (int64_t j = 0; j < whole; j += 4) {
            const float *s = src + j * stride + i;
            pn_vec4 a = *(const pn_vec4 *)s, b = *(const pn_vec4 *)(s + stride), c = *(const pn_vec4 *)(s + 2 * stride);
            pn_vec4 e = *(const pn_vec4 *)(s + 3 * stride);
            pn_vec4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
            pn_vec4 ce = __builtin_shufflevector(c, e, 0, 4, 1, 5), ce2 = __builtin_shufflevector(c, e, 2, 6, 3, 7);
            float *to = panel + i * PANEL + j;
            *(pn_vec4 *)to = __builtin_shufflevector(ab, ce, 0, 1, 4, 5);
            *(pn_vec4 *)(to + PANEL) = __builtin_shufflevector(ab, ce, 2, 3, 6, 7);
            *(pn_vec4 *)(to + 2 * PANEL) = __builtin_shufflevector(ab2, ce2, 0, 1, 4, 5);
            *(pn_vec4 *)(to + 3 * PANEL) = __builtin_shufflevector(ab2, ce2, 2, 3, 6, 7);
        }
    }
    for (int64_t k = 0; k < d; k++) {
        for (int64_t j = k < i ? whole : 0; j < n; j++) panel[k * PANEL + j] = src[j * stride + k];
        for (int64_t j = n; j < PANEL; j++) panel[k * PANEL + j] = 0;
    }
}

void pn_attention_panels(const pn_attention_attr *a, const pn_attention_tiles *g, const int64_t *panel_start,
                         const float *src, float *panels) {
#pragma omp for schedule(static)
    for (int64_t task = 0; task < panel_start[a->docs.n] * g->kv_heads; task++) {
        int64_t doc = pn_attention_find(panel_start, a->docs.n, task / g->kv_heads), head = task % g->kv_heads;
        pn_attention_doc x = pn_attention_doc_at(a, doc);
        int64_t j = pn_attention_base(a, &x) + (task / g->kv_heads - panel_start[doc]) * PANEL;
        pn_attention_panel(src + (x.key0 + j) * g->kv_stride + head * g->d, g->kv_stride, g->d,
                           x.keys - j < PANEL ? x.keys - j : PANEL, panels + task * g->d * PANEL);
    }
}

void pn_attention_product(int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_col, const float *b,
                          int64_t ldb, float *c, int64_t ldc, bool add) {
    pn_mm p = {
        .m = m, .n = n, .l = k, .a = a, .a_row = a_row, .a_col = a_col, .b = b, .ldb = ldb, .c = c, .ldc = ldc
    };
    p.scale = 1;
    if (add) pn_mm_keep(&p, 1, c, ldc);
    pn_tile_mm(&p);
}

void pn_attention_scores(const pn_attention_tiles *g, const float *q, int64_t rows, const float *panel,
                         pn_attention_columns columns, float *scores) {
    int64_t panel_floats = g->kv_heads * g->d * PANEL;
    for (int64_t j = columns.begin; j < columns.end;) {
        int64_t p = j / PANEL, stop = (p + 1) * PANEL < columns.end ? (p + 1) * PANEL : columns.end;
        pn_attention_product(rows, stop - j, g->d, q, g->d, 1, panel + p * panel_floats + j % PANEL, PANEL, scores + j,
                             KEYS, false);
        j = stop;
    }
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    return backward ? pn_attention_cpu_backward_bytes(c) : pn_attention_cpu_forward_bytes(c);
}

static const pn_op_impl impl = { .name = "attention/cpu-tiled",
                                 .scratch_bytes = scratch_bytes,
                                 .forward = pn_attention_cpu_forward,
                                 .backward = pn_attention_cpu_backward };
extern const pn_op_impl *const attention_cpu[];
const pn_op_impl *const attention_cpu[] = { &impl, NULL };
