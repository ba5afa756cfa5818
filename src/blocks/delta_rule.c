#include "delta_rule.h"

#include <math.h>

#include "decay_gate/decay_gate.h"
#include "fixed_gates.h"
#include "gated_delta/gated_delta.h"
#include "gated_rms_norm/gated_rms_norm.h"
#include "linear/linear.h"
#include "linear_pair/linear_pair.h"
#include "sigmoid/sigmoid.h"

pn_status pn_delta_value_dim(const char *block, int64_t dk, double expand_v, int64_t *dv) {
    double exact = (double)dk * expand_v, nearest = nearbyint(exact);
    PN_CHECK(
        nearest >= 1 && fabs(exact - nearest) <= 1e-5 * exact, PN_USAGE,
        "%s: head_dim %lld times expand_v %.10g is %.10g, which is no whole value dimension; choose an expand_v that "
        "makes it one",
        block, (long long)dk, expand_v, exact);
    *dv = (int64_t)nearest;
    return PN_OK;
}

pn_qkv pn_delta_qkv(const pn_delta_shape *s, int64_t conv_size) {
    return (pn_qkv){ .channels = { s->heads * s->dk, s->heads * s->dk, s->v_heads * s->dv },
                     .conv_size = conv_size,
                     .heads = s->v_heads,
                     .dk = s->dk,
                     .dv = s->dv };
}

pn_status pn_delta_build(pn_block *b, pn_params *params, const pn_delta_shape *s, pn_delta_rule *w) {
    const int64_t D = b->dims.hidden, V = s->v_heads * s->dv;
    const pn_init normal = { PN_INIT_NORMAL, 0.02, 0 }, ones = { PN_INIT_ONES, 0, 0 };
    const pn_init a_log = { PN_INIT_LOG_UNIFORM, 0, 16 }, dt = { PN_INIT_DT_BIAS, 1e-3, 1e-1 };
    const struct {
        pn_param_spec spec;
        pn_tensor **out;
        bool present;
    } rows[] = {
        { { "a_proj.weight", 2, { s->v_heads, D }, normal, true, false }, &w->wa, s->use_decay },
        { { "b_proj.weight", 2, { s->v_heads, D }, normal, true, false }, &w->wb, s->use_beta },
        { { "A_log", 1, { s->v_heads }, a_log, false, true }, &w->a_log, s->use_decay },
        { { "dt_bias", 1, { s->v_heads }, dt, false, true }, &w->dt_bias, s->use_decay },
        { { "g_proj.weight", 2, { V, D }, normal, true, false }, &w->wg, s->use_gate },
        { { "o_norm.weight", 1, { s->dv }, ones, false, true }, &w->o_norm, true },
        { { "o_proj.weight", 2, { D, V }, normal, true, false }, &w->wo, true },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].present) PN_TRY(pn_block_weight(b, params, &rows[i].spec, rows[i].out));
    return PN_OK;
}

void pn_delta_map(const pn_delta_rule *w, const pn_delta_shape *s, pn_attention_map *map) {
    map->out = w->wo;
    map->out_heads = s->v_heads;
    if (w->a_log) pn_attention_map_slow(map, w->a_log);
}

static double one(int64_t head) {
    (void)head;
    return 1;
}
static double two(int64_t head) {
    (void)head;
    return 2;
}

/* beta, and the log decay g (NULL: none). */
static pn_status gates(const pn_delta_rule *w, const pn_delta_shape *s, pn_tape *t, pn_tensor *x, pn_tensor **g,
                       pn_tensor **beta) {
    const bool negative = s->negative_eigenvalues;
    if (w->wa && w->wb)
        PN_TRY(pn_linear_pair(t, x, w->wa, w->wb, g, beta));
    else if (w->wa)
        PN_TRY(pn_linear(t, x, w->wa, NULL, g));
    else if (w->wb)
        PN_TRY(pn_linear(t, x, w->wb, NULL, beta));
    if (w->wb)
        PN_TRY(pn_sigmoid_gate(t, *beta, negative ? 2.0 : 1.0, beta));
    else
        PN_TRY(pn_fixed_gates(t, x->shape[0], s->v_heads, negative ? two : one, beta));
    if (w->wa) PN_TRY(pn_decay_gate(t, *g, w->a_log, w->dt_bias, g));
    return PN_OK;
}

pn_status pn_delta_mix(const pn_delta_rule *w, const pn_delta_shape *s, pn_tape *t, pn_tensor *x, pn_tensor *q,
                       pn_tensor *k, pn_tensor *v, const pn_docs *docs, pn_state *state, int s_index, pn_tensor **y) {
    pn_tensor *beta, *o, *final_state, *g = NULL, *z = NULL;
    PN_TRY(pn_tape_branch(t)); /* beside what makes q, k and v */
    PN_TRY(gates(w, s, t, x, &g, &beta));
    PN_TRY(pn_tape_branch(t));
    if (w->wg && state) PN_TRY(pn_linear(t, x, w->wg, NULL, &z));
    PN_TRY(pn_tape_join(t));
    const pn_gated_delta_attr attr = { .docs = pn_docs_without_past(docs),
                                       .heads = (int)s->heads,
                                       .v_heads = (int)s->v_heads,
                                       .dk = (int)s->dk,
                                       .dv = (int)s->dv,
                                       .scale = 1 / sqrt((double)s->dk) };
    PN_TRY(pn_gated_delta(t, &attr, q, k, v, g, beta, state ? state->tensor[s_index] : NULL, &o, &final_state));
    if (state) PN_TRY(pn_state_replace(state, s_index, final_state));
    if (w->wg && !state) PN_TRY(pn_linear(t, x, w->wg, NULL, &z)); /* later: it is as large as the values */
    PN_TRY(pn_gated_rms_norm(t, o, z, w->o_norm, s->dv, s->norm_eps, &o));
    PN_TRY(pn_linear(t, o, w->wo, NULL, y));
    return PN_OK;
}
