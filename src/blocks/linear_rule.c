#include "linear_rule.h"

#include <math.h>
#include <stddef.h>

#include "gated_linear/gated_linear.h"
#include "gated_rms_norm/gated_rms_norm.h"
#include "linear/linear.h"

pn_status pn_linear_shape_of(const char *block, int64_t hidden, int64_t heads, int64_t kv_heads, double expand_k,
                             double expand_v, pn_linear_shape *out) {
    *out = (pn_linear_shape){ .heads = heads, .kv_heads = kv_heads ? kv_heads : heads };
    PN_CHECK(heads % out->kv_heads == 0, PN_USAGE, "%s: num_heads %lld is not a multiple of num_kv_heads %lld", block,
             (long long)heads, (long long)kv_heads);
    PN_TRY(pn_head_width(block, "expand_k", hidden, expand_k, heads, &out->dk));
    PN_TRY(pn_head_width(block, "expand_v", hidden, expand_v, heads, &out->dv));
    return PN_OK;
}

pn_qkv pn_linear_qkv(const pn_linear_shape *s, int64_t conv_size) {
    return (pn_qkv){ .channels = { s->heads * s->dk, s->kv_heads * s->dk, s->kv_heads * s->dv },
                     .conv_size = conv_size,
                     .heads = s->heads,
                     .dk = s->dk,
                     .dv = s->dv };
}

pn_status pn_linear_rule_build(pn_block *b, pn_params *params, const pn_linear_shape *s, bool fuse_norm,
                               pn_linear_rule *w) {
    const int64_t D = b->dims.hidden, all = s->heads * s->dv;
    const pn_init normal = { PN_INIT_NORMAL, 0.02, 0 }, ones = { PN_INIT_ONES, 0, 0 };
    const struct {
        pn_param_spec spec;
        pn_tensor **out;
    } rows[] = {
        { { "g_proj.weight", 2, { all, D }, normal, true, false }, &w->wg },
        { { fuse_norm ? "g_norm_swish_gate.weight" : "g_norm.weight", 1, { s->dv }, ones, false, true }, &w->g_norm },
        { { "o_proj.weight", 2, { D, all }, normal, true, false }, &w->wo },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        PN_TRY(pn_block_weight(b, params, &rows[i].spec, rows[i].out));
    return PN_OK;
}

void pn_linear_rule_map(const pn_linear_rule *w, const pn_linear_shape *s, pn_attention_map *map) {
    map->out = w->wo;
    map->out_heads = s->heads;
}

pn_status pn_linear_rule_mix(const pn_linear_rule *w, const pn_linear_shape *s, pn_tape *t, pn_tensor *x, pn_tensor *q,
                             pn_tensor *k, pn_tensor *v, pn_tensor *g, bool vector_gate, const pn_docs *docs,
                             pn_state *state, int s_index, pn_tensor **y) {
    const pn_gated_linear_attr attr = { .docs = pn_docs_without_past(docs),
                                        .heads = (int)s->heads,
                                        .q_heads = (int)s->heads,
                                        .k_heads = (int)s->kv_heads,
                                        .v_heads = (int)s->kv_heads,
                                        .g_heads = (int)(vector_gate ? s->kv_heads : s->heads),
                                        .dk = (int)s->dk,
                                        .dv = (int)s->dv,
                                        .vector_gate = vector_gate,
                                        .scale = 1 / sqrt((double)s->dk) };
    pn_tensor *o, *z, *final_state;
    PN_TRY(pn_tape_branch(t)); /* beside what makes q, k, v and g */
    if (state) PN_TRY(pn_linear(t, x, w->wg, NULL, &z));
    PN_TRY(pn_tape_join(t));
    PN_TRY(pn_gated_linear(t, &attr, q, k, v, g, state ? state->tensor[s_index] : NULL, &o, &final_state));
    if (state) PN_TRY(pn_state_replace(state, s_index, final_state));
    if (!state) PN_TRY(pn_linear(t, x, w->wg, NULL, &z)); /* later: it is as large as the values */
    PN_TRY(pn_gated_rms_norm(t, o, z, w->g_norm, s->dv, s->norm_eps, &o));
    PN_TRY(pn_linear(t, o, w->wo, NULL, y));
    return PN_OK;
}
