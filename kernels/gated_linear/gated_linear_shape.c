#include "gated_linear.h"
#include "infer.h"

enum { Q, K, V, GATE, STATE };

static bool divides(int part, int whole) {
    return part >= 1 && part <= whole && whole % part == 0;
}

static pn_status check_heads(const pn_op_call *c) {
    const pn_gated_linear_attr *a = c->attr;
    const struct {
        const char *name;
        int heads;
    } each[] = { { "q", a->q_heads }, { "k", a->k_heads }, { "v", a->v_heads }, { "g", a->g_heads } };
    PN_CHECK(a->heads >= 1, PN_USAGE, "gated_linear: %d heads; there must be at least 1", a->heads);
    for (int i = 0; i < (c->in[GATE] ? 4 : 3); i++)
        PN_CHECK(divides(each[i].heads, a->heads), PN_USAGE,
                 "gated_linear: %d heads of %s for %d heads; their number must divide it", each[i].heads, each[i].name,
                 a->heads);
    return PN_OK;
}

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_gated_linear_attr *a = c->attr;
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_CHECK(c->n_in == 5 && c->in[Q], PN_USAGE, "gated_linear: q, k, v, g and S0 are its inputs, in this order");
    PN_CHECK(a->dk >= 1 && a->dv >= 1, PN_USAGE, "gated_linear: head widths dk %d, dv %d; they must be at least 1",
             a->dk, a->dv);
    PN_TRY(check_heads(c));
    PN_TRY(pn_need_matrix(c, Q, "q", real, PN_ANY, (int64_t)a->q_heads * a->dk));
    int64_t tokens = c->in[Q]->shape[0];
    PN_TRY(pn_docs_check(&a->docs, tokens, "gated_linear"));
    PN_TRY(pn_need_matrix(c, K, "k", real, tokens, (int64_t)a->k_heads * a->dk));
    PN_TRY(pn_need_matrix(c, V, "v", real, tokens, (int64_t)a->v_heads * a->dv));
    if (c->in[GATE])
        PN_TRY(pn_need_matrix(c, GATE, "g", wide, tokens, (int64_t)a->g_heads * (a->vector_gate ? a->dk : 1)));
    pn_out_spec state = { .dtype = wide, .rank = 4, .shape = { a->docs.n, a->heads, a->dk, a->dv } };
    PN_TRY(pn_need_state(c, STATE, "S0", &state));
    *n_out = 3;
    out[0] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { tokens, (int64_t)a->heads * a->dv } };
    out[1] = out[2] = state;
    out[2].dtype = real;
    out[2].no_grad = true;
    out[2].shape[0] = pn_op_wants(c) ? pn_docs_chunks(&a->docs, a->docs.n) : 0;
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    if (!pn_op_wants(c)) return 0;
    uint32_t bits = PN_SAVE_OUT(2);
    for (int i = Q; i <= GATE; i++) bits |= c->in[i] ? PN_SAVE_IN(i) : 0;
    return bits;
}

/* Useful work is that of the recurrence: per token and head forward 5 dk dv (4 without decay: write 2, output 2),
 * backward 9 dk dv (G 2, dq 2, dk 2, dv 2, decay 1; 8 without): gate gradients need sums of products of q, dq, k and dk
 * only. Chunks do 4 dk dv + 64 (dk + dv) forward, a little less. */
static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    const pn_gated_linear_attr *a = c->attr;
    double width = (double)pn_dtype_bytes(c->in[Q]->dtype), tokens = (double)c->in[Q]->shape[0];
    double state = (double)a->heads * a->dk * a->dv, in = 0;
    for (int i = Q; i <= GATE; i++) in += c->in[i] ? (double)pn_tensor_elems(c->in[i]) : 0;
    double o = tokens * a->heads * a->dv, states = (double)a->docs.n * state * (c->in[STATE] ? 2 : 1);
    if (pn_op_wants(c)) states += (double)pn_docs_chunks(&a->docs, a->docs.n) * state;
    cost->flops = tokens * state * (backward ? (c->in[GATE] ? 9 : 8) : (c->in[GATE] ? 5 : 4));
    cost->bytes = width * ((backward ? 2 : 1) * in + o + states);
}

const pn_op_contract pn_gated_linear_contract = {
    .infer = infer, .saves = saves, .cost = cost, .case_at = pn_gated_linear_case, .again = PN_AGAIN_CORE
};
