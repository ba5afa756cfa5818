#include "attention_cpu.h"

#include <math.h>

#include "cpu/clones.h"

pn_attention_tiles pn_attention_tiles_of(const pn_attention_attr *a) {
    pn_attention_tiles g = { .heads = a->heads,
                             .kv_heads = a->kv_heads,
                             .group = a->heads / a->kv_heads,
                             .d = a->head_dim,
                             .window = a->window,
                             .scale = (float)a->scale };
    g.q_stride = g.heads * g.d;
    g.kv_stride = g.kv_heads * g.d;
    /* About 192 rows keep a tile of scores in the second-level cache; more than 64 tokens would waste products above
     * the diagonal. */
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

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    return backward ? pn_attention_cpu_backward_bytes(c) : pn_attention_cpu_forward_bytes(c);
}

static const pn_op_impl impl = { .name = "attention/cpu-tiled",
                                 .scratch_bytes = scratch_bytes,
                                 .forward = pn_attention_cpu_forward,
                                 .backward = pn_attention_cpu_backward };
extern const pn_op_impl *const attention_cpu[];
const pn_op_impl *const attention_cpu[] = { &impl, NULL };
