#include "attention.h"

#include <math.h>

#include "attention_cases.h"

static pn_status check_keys(const pn_attention_attr *a, int64_t rows) {
    for (int64_t i = 0; i < a->docs.n; i++) {
        int64_t queries = a->docs.offset[i + 1] - a->docs.offset[i];
        PN_CHECK(a->key_start[i] >= 0 && a->key_len[i] >= 0 && a->key_len[i] <= rows - a->key_start[i], PN_USAGE,
                 "attention: document %lld has keys %lld to %lld, but there are %lld rows of keys", (long long)i,
                 (long long)a->key_start[i], (long long)(a->key_start[i] + a->key_len[i]), (long long)rows);
        PN_CHECK(a->key_len[i] >= queries, PN_USAGE,
                 "attention: document %lld has %lld queries but %lld keys; every query needs its own key", (long long)i,
                 (long long)queries, (long long)a->key_len[i]);
    }
    return PN_OK;
}

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_attention_attr *a = c->attr;
    const pn_tensor *q = c->in[0], *k = c->in[1], *v = c->in[2];
    PN_CHECK(a->heads > 0 && a->kv_heads > 0 && a->head_dim > 0 && a->heads % a->kv_heads == 0, PN_USAGE,
             "attention: %d heads over %d key/value heads of width %d: heads must be a multiple", a->heads, a->kv_heads,
             a->head_dim);
    PN_CHECK(a->window >= 0 && isfinite(a->scale), PN_USAGE, "attention: window %lld, scale %g", (long long)a->window,
             a->scale);
    int64_t width = (int64_t)a->heads * a->head_dim, kv_width = (int64_t)a->kv_heads * a->head_dim;
    PN_CHECK(q->rank == 2 && q->shape[1] == width, PN_USAGE, "attention: q has shape %s, it needs [tokens, %lld]",
             pn_tensor_shape_text(q), (long long)width);
    PN_CHECK(k->rank == 2 && k->shape[1] == kv_width && pn_tensor_same_shape(k, v), PN_USAGE,
             "attention: k and v have shapes %s and %s, both need [keys, %lld]", pn_tensor_shape_text(k),
             pn_tensor_shape_text(v), (long long)kv_width);
    PN_TRY(pn_docs_check(&a->docs, q->shape[0], "attention"));
    PN_CHECK(!a->key_start == !a->key_len, PN_USAGE, "attention: key_start and key_len come together or not at all");
    if (a->key_start)
        PN_TRY(check_keys(a, k->shape[0]));
    else
        PN_CHECK(k->shape[0] == q->shape[0], PN_USAGE, "attention: %lld queries but %lld keys, and no key ranges",
                 (long long)q->shape[0], (long long)k->shape[0]);
    *n_out = 2;
    out[0].rank = out[1].rank = 2;
    out[0].shape[0] = out[1].shape[0] = q->shape[0];
    out[0].shape[1] = width;
    out[1].shape[1] = a->heads;
    out[1].no_grad = true;
    out[1].dtype = pn_wide_dtype(c->dtype);
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    (void)c;
    return PN_SAVE_IN(0) | PN_SAVE_IN(1) | PN_SAVE_IN(2) | PN_SAVE_OUT(0) | PN_SAVE_OUT(1);
}

/* Keys seen by queries standing at positions 0 .. n-1. */
static double seen(int64_t n, int64_t window) {
    double x = (double)n, w = (double)window;
    return !window || n <= window ? x * (x + 1) / 2 : w * (w + 1) / 2 + (x - w) * w;
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    const pn_attention_attr *a = c->attr;
    double pairs = 0, keys = 0, width = (double)pn_dtype_bytes(c->in[0]->dtype);
    for (int64_t i = 0; i < a->docs.n; i++) {
        pn_attention_doc d = pn_attention_doc_at(a, i);
        pairs += seen(d.keys, a->window) - seen(d.keys - d.queries, a->window);
        int64_t first = d.queries ? pn_attention_first(a, d.keys - d.queries) : d.keys;
        keys += (double)(d.keys - first);
    }
    double q = (double)pn_tensor_elems(c->in[0]), lse = (double)c->in[0]->shape[0] * a->heads;
    double kv = 2 * keys * a->kv_heads * a->head_dim, product = 2.0 * a->heads * a->head_dim * pairs;
    /* Two products forward (scores, output), four backward (dp, dv, dq, dk); recomputed scores are not counted. */
    *cost = (pn_op_cost){ .flops = (backward ? 4 : 2) * product,
                          .bytes = width * (backward ? 4 * q + lse + 2 * kv : 2 * q + lse + kv) };
}

const pn_op_contract pn_attention_contract = {
    .infer = infer, .saves = saves, .cost = cost, .case_at = pn_attention_case_at
};
