/* attention: full softmax attention with rotary positions and grouped keys and values (blocks.md 3).
 *
 *     q, k, v = W x + b;  q, k rotated;  o_i = sum_j softmax_j(<q_i, k_j> / sqrt d) v_j, j <= i;  y = W_o o
 *
 * Decode state: the rotated keys and the values, [n * capacity, Hkv d] each, rows of sequence i from i * capacity; the
 * capacity doubles when a sequence outgrows it. */
#include "block.h"

#include <math.h>
#include <string.h>

#include "attention/attention.h"
#include "linear/linear.h"
#include "rope/rope.h"

typedef struct attention {
    pn_tensor *wq, *wk, *wv, *wo; /* [Hq d, D], [Hkv d, D], [Hkv d, D], [D, Hq d] */
    pn_tensor *bq, *bk, *bv;      /* [Hq d], [Hkv d], [Hkv d]; NULL without QKV bias */
} attention;

enum { KEYS, VALUES };

static pn_status build(pn_block *b, pn_params *params) {
    attention *a = b->data;
    const int64_t D = b->dims.hidden, Q = b->dims.heads * b->dims.head_dim, K = b->dims.kv_heads * b->dims.head_dim;
    const pn_init normal = { PN_INIT_NORMAL, 0.02, 0 }, zeros = { PN_INIT_ZEROS, 0, 0 };
    const struct {
        const char *weight, *bias;
        int64_t rows;
        pn_tensor **w, **bias_out;
    } projections[] = {
        { "q_proj.weight", "q_proj.bias", Q, &a->wq, &a->bq },
        { "k_proj.weight", "k_proj.bias", K, &a->wk, &a->bk },
        { "v_proj.weight", "v_proj.bias", K, &a->wv, &a->bv },
    };
    for (int i = 0; i < 3; i++) {
        PN_TRY(pn_block_weight(
            b, params, &(pn_param_spec){ projections[i].weight, 2, { projections[i].rows, D }, normal, true, false },
            projections[i].w));
        if (b->dims.qkv_bias)
            PN_TRY(pn_block_weight(
                b, params, &(pn_param_spec){ projections[i].bias, 1, { projections[i].rows }, zeros, false, false },
                projections[i].bias_out));
    }
    PN_TRY(pn_block_weight(b, params, &(pn_param_spec){ "o_proj.weight", 2, { D, Q }, normal, true, false }, &a->wo));
    return PN_OK;
}

/* Makes room for `rows` rows per sequence, keeping what the cache holds. */
static pn_status grow(pn_state *s, int64_t rows, int64_t width) {
    int64_t capacity = s->capacity;
    while (capacity < rows) capacity *= 2;
    if (capacity == s->capacity) return PN_OK;
    for (int i = 0; i < 2; i++) {
        pn_tensor *bigger;
        PN_TRY(pn_tensor_zeros(s->pool, s->dtype, 2, (int64_t[]){ s->n * capacity, width }, &bigger));
        size_t row = (size_t)width * pn_dtype_bytes(s->dtype);
        for (int64_t d = 0; d < s->n; d++)
            memcpy((char *)pn_data(bigger) + (size_t)(d * capacity) * row,
                   (char *)pn_data(s->tensor[i]) + (size_t)(d * s->capacity) * row, (size_t)s->past[d] * row);
        pn_tensor_release(&s->tensor[i]);
        s->tensor[i] = bigger;
    }
    s->capacity = capacity;
    return PN_OK;
}

/* Appends the new rows of k and v to the cache and describes it to the attention op. */
static pn_status append_to_cache(pn_tape *t, pn_state *s, const pn_docs *docs, pn_tensor *k, pn_tensor *v,
                                 pn_attention_attr *attr) {
    int64_t longest = 0, width = k->shape[1];
    for (int64_t d = 0; d < s->n; d++) {
        int64_t rows = s->past[d] + docs->offset[d + 1] - docs->offset[d];
        if (rows > longest) longest = rows;
    }
    PN_TRY(grow(s, longest, width));
    pn_tensor *table;
    PN_TRY(pn_tape_new(t, PN_I64, 2, (int64_t[]){ 2, s->n }, &table));
    int64_t *start = pn_data(table), *len = start + s->n;
    size_t row = (size_t)width * pn_dtype_bytes(s->dtype);
    for (int64_t d = 0; d < s->n; d++) {
        int64_t fresh = docs->offset[d + 1] - docs->offset[d];
        start[d] = d * s->capacity;
        len[d] = s->past[d] + fresh;
        size_t to = (size_t)(start[d] + s->past[d]) * row, from = (size_t)docs->offset[d] * row;
        memcpy((char *)pn_data(s->tensor[KEYS]) + to, (char *)pn_data(k) + from, (size_t)fresh * row);
        memcpy((char *)pn_data(s->tensor[VALUES]) + to, (char *)pn_data(v) + from, (size_t)fresh * row);
    }
    attr->key_start = start;
    attr->key_len = len;
    return PN_OK;
}

static pn_status forward(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                         pn_tensor **y) {
    (void)carry;
    const attention *a = b->data;
    const pn_dims *m = &b->dims;
    pn_tensor *q, *k, *v, *o;
    PN_TRY(pn_linear(t, x, a->wq, a->bq, &q));
    PN_TRY(pn_linear(t, x, a->wk, a->bk, &k));
    PN_TRY(pn_linear(t, x, a->wv, a->bv, &v));
    PN_TRY(pn_rope(t, q, &(pn_rope_attr){ *docs, (int)m->heads, (int)m->head_dim, m->rope_theta }, &q));
    PN_TRY(pn_rope(t, k, &(pn_rope_attr){ *docs, (int)m->kv_heads, (int)m->head_dim, m->rope_theta }, &k));
    pn_attention_attr attr = { .docs = { .n = docs->n, .offset = docs->offset },
                               .heads = (int)m->heads,
                               .kv_heads = (int)m->kv_heads,
                               .head_dim = (int)m->head_dim,
                               .scale = 1 / sqrt((double)m->head_dim) };
    if (state) {
        PN_TRY(append_to_cache(t, state, docs, k, v, &attr));
        k = state->tensor[KEYS];
        v = state->tensor[VALUES];
    }
    PN_TRY(pn_attention(t, q, k, v, &attr, &o));
    PN_TRY(pn_linear(t, o, a->wo, NULL, y));
    return PN_OK;
}

static pn_status state_create(const pn_block *b, pn_state *s) {
    s->capacity = 64;
    const int64_t shape[] = { s->n * s->capacity, b->dims.kv_heads * b->dims.head_dim };
    PN_TRY(pn_state_add(s, "k", 2, shape));
    PN_TRY(pn_state_add(s, "v", 2, shape));
    return PN_OK;
}

static double cache_bytes(const pn_block *b, int64_t context, size_t activation_bytes) {
    return 2.0 * (double)(b->dims.kv_heads * b->dims.head_dim) * (double)context * (double)activation_bytes;
}

const pn_block_type pn_block_attention = {
    .name = "attention",
    .hf_name = "attn",
    .summary = "full softmax attention, rotary positions, grouped keys and values",
    .role = PN_MIXER,
    .data_bytes = sizeof(attention),
    .build = build,
    .forward = forward,
    .state_create = state_create,
    .cache_bytes = cache_bytes,
};
