#include "dplr.h"
#include "infer.h"

enum { Q, K, V, A, B, DECAY, STATE };

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_dplr_attr *attr = c->attr;
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_CHECK(c->n_in == 7 && c->in[Q], PN_USAGE, "dplr: q, k, v, a, b, g and S0 are its inputs, in this order");
    PN_CHECK(attr->dk >= 1 && attr->dv >= 1, PN_USAGE, "dplr: head widths dk %d, dv %d; they must be at least 1",
             attr->dk, attr->dv);
    PN_CHECK(attr->heads >= 1, PN_USAGE, "dplr: %d heads; there must be at least 1", attr->heads);
    static const char *const name[] = { "q", "k", "v", "a", "b", "g" };
    int64_t tokens = PN_ANY;
    for (int i = Q; i <= DECAY; i++) {
        int64_t width = i == V ? attr->dv : attr->dk;
        PN_TRY(pn_need_matrix(c, i, name[i], i == DECAY ? wide : real, tokens, attr->heads * width));
        tokens = c->in[Q]->shape[0];
    }
    PN_TRY(pn_docs_check(&attr->docs, tokens, "dplr"));
    pn_out_spec state = { .dtype = wide, .rank = 4, .shape = { attr->docs.n, attr->heads, attr->dk, attr->dv } };
    PN_TRY(pn_need_state(c, STATE, "S0", &state));
    *n_out = 3;
    out[0] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { tokens, (int64_t)attr->heads * attr->dv } };
    out[1] = out[2] = state;
    out[2].dtype = real;
    out[2].no_grad = true;
    out[2].shape[0] = pn_op_wants(c) ? pn_docs_chunks(&attr->docs, attr->docs.n) : 0;
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    if (!pn_op_wants(c)) return 0;
    uint32_t bits = PN_SAVE_OUT(2);
    for (int i = Q; i <= DECAY; i++) bits |= PN_SAVE_IN(i);
    return bits;
}

/* Useful work is that of the recurrence: per token and head forward 9 dk dv (answer 2, decay 1, write 4, output 2),
 * backward 19 dk dv (G 2, dq 2, dk 2, dv 2, db 2, dp 2, da 2, dg 2, G again 3). */
static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    const pn_dplr_attr *attr = c->attr;
    double width = (double)pn_dtype_bytes(c->in[Q]->dtype), tokens = (double)c->in[Q]->shape[0];
    double state = (double)attr->heads * attr->dk * attr->dv, o = tokens * attr->heads * attr->dv;
    double in = 5 * tokens * attr->heads * attr->dk + o;
    double states = (double)attr->docs.n * state * (c->in[STATE] ? 2 : 1);
    if (pn_op_wants(c)) states += (double)pn_docs_chunks(&attr->docs, attr->docs.n) * state;
    cost->flops = tokens * state * (backward ? 19 : 9);
    cost->bytes = width * ((backward ? 2 : 1) * in + o + states);
}

const pn_op_contract pn_dplr_contract = {
    .infer = infer, .saves = saves, .cost = cost, .case_at = pn_dplr_case, .again = PN_AGAIN_CORE
};
