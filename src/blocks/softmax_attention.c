#include "softmax_attention.h"

#include <math.h>

#include "attention/attention.h"
#include "kv_cache.h"
#include "linear/linear.h"
#include "rope/rope.h"

pn_status pn_softmax_attention_build(pn_block *b, pn_params *params) {
    pn_softmax_attention *a = b->data;
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

pn_status pn_softmax_attention_mix(pn_block *b, int64_t window, pn_tape *t, pn_tensor *x, const pn_docs *docs,
                                   pn_state *state, pn_tensor **y) {
    const pn_softmax_attention *a = b->data;
    const pn_dims *m = &b->dims;
    pn_tensor *q, *k, *v, *o;
    PN_TRY(pn_tape_branch(t));
    PN_TRY(pn_linear(t, x, a->wq, a->bq, &q));
    PN_TRY(pn_rope(t, q, &(pn_rope_attr){ *docs, (int)m->heads, (int)m->head_dim, m->rope_theta }, &q));
    PN_TRY(pn_tape_branch(t));
    PN_TRY(pn_linear(t, x, a->wk, a->bk, &k));
    PN_TRY(pn_rope(t, k, &(pn_rope_attr){ *docs, (int)m->kv_heads, (int)m->head_dim, m->rope_theta }, &k));
    PN_TRY(pn_tape_branch(t));
    PN_TRY(pn_linear(t, x, a->wv, a->bv, &v));
    PN_TRY(pn_tape_join(t));
    pn_attention_attr attr = { .docs = pn_docs_without_past(docs),
                               .heads = (int)m->heads,
                               .kv_heads = (int)m->kv_heads,
                               .head_dim = (int)m->head_dim,
                               .window = window,
                               .scale = 1 / sqrt((double)m->head_dim) };
    if (state) PN_TRY(pn_kv_cache_extend(state, t, docs, &k, &v, &attr));
    PN_TRY(pn_attention(t, q, k, v, &attr, &o));
    PN_TRY(pn_linear(t, o, a->wo, NULL, y));
    return PN_OK;
}

pn_status pn_softmax_attention_state(const pn_block *b, int64_t window, pn_state *s) {
    PN_TRY(pn_kv_cache_create(s, b->dims.kv_heads * b->dims.head_dim, window));
    return PN_OK;
}

double pn_softmax_attention_cache_bytes(const pn_dims *dims, int64_t keys, size_t activation_bytes) {
    return 2.0 * (double)(dims->kv_heads * dims->head_dim) * (double)keys * (double)activation_bytes;
}
