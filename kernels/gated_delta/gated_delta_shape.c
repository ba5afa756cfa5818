#include "gated_delta.h"
#include "infer.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_gated_delta_attr *a = c->attr;
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_CHECK(c->n_in >= 5 && c->in[0], PN_USAGE, "gated_delta: q, k, v, g, beta and S0 are its inputs, in this order");
    PN_CHECK(a->dk >= 1 && a->dk <= PN_GATED_DELTA_MAX_DK && a->dv >= 1, PN_USAGE,
             "gated_delta: head widths dk %d, dv %d; dk must be in 1 .. %d and dv at least 1", a->dk, a->dv,
             PN_GATED_DELTA_MAX_DK);
    PN_CHECK(a->heads >= 1 && a->v_heads >= a->heads && a->v_heads % a->heads == 0, PN_USAGE,
             "gated_delta: %d value heads for %d query/key heads; their number must be a multiple of it", a->v_heads,
             a->heads);
    PN_TRY(pn_need_matrix(c, 0, "q", real, PN_ANY, (int64_t)a->heads * a->dk));
    int64_t tokens = c->in[0]->shape[0];
    PN_TRY(pn_docs_check(&a->docs, tokens, "gated_delta"));
    PN_TRY(pn_need_matrix(c, 1, "k", real, tokens, (int64_t)a->heads * a->dk));
    PN_TRY(pn_need_matrix(c, 2, "v", real, tokens, (int64_t)a->v_heads * a->dv));
    if (c->in[3]) PN_TRY(pn_need_matrix(c, 3, "g", wide, tokens, a->v_heads));
    PN_TRY(pn_need_matrix(c, 4, "beta", wide, tokens, a->v_heads));
    pn_out_spec state = { .dtype = wide, .rank = 4, .shape = { a->docs.n, a->v_heads, a->dk, a->dv } };
    PN_TRY(pn_need_state(c, 5, "S0", &state));
    *n_out = 4;
    out[0] = out[3] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { tokens, (int64_t)a->v_heads * a->dv } };
    out[1] = out[2] = state;
    out[2].dtype = real;
    out[2].no_grad = out[3].no_grad = true;
    out[2].shape[0] = pn_op_wants(c) ? pn_docs_chunks(&a->docs, a->docs.n) : 0;
    if (!pn_op_wants(c)) out[3].shape[0] = 0;
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    if (!pn_op_wants(c)) return 0;
    return PN_SAVE_IN(0) | PN_SAVE_IN(1) | (c->in[3] ? PN_SAVE_IN(3) : 0) | PN_SAVE_IN(4) | PN_SAVE_OUT(2) |
           PN_SAVE_OUT(3);
}

/* Useful work is that of the recurrence: per token and value head forward 7 dk dv (6 without decay: read 2, write 2,
 * output 2), backward 15 dk dv (G 2, dq 2, du 2, dk 4, dSd 2, dg 2, decay 1; 12 without). Chunks do more of it, faster:
 * about 6 dk dv + 64 (2 dk + 2 dv) forward. */
static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    const pn_gated_delta_attr *a = c->attr;
    double width = (double)pn_dtype_bytes(c->in[0]->dtype), tokens = (double)c->in[0]->shape[0];
    double state = (double)a->v_heads * a->dk * a->dv, chunks = (double)pn_docs_chunks(&a->docs, a->docs.n);
    double gates = c->in[3] ? 2 : 1;
    double in = tokens * (2.0 * a->heads * a->dk + (double)a->v_heads * a->dv + gates * a->v_heads);
    double o = tokens * a->v_heads * a->dv, e = pn_op_wants(c) ? o : 0; /* backward reads e instead of v */
    double states =
        (double)a->docs.n * state * (c->n_in > 5 && c->in[5] ? 2 : 1) + (pn_op_wants(c) ? chunks * state : 0);
    cost->flops = tokens * state * (backward ? (c->in[3] ? 15 : 12) : (c->in[3] ? 7 : 6));
    cost->bytes = width * (backward ? 2 * in + o + states : in + o + e + states);
}

const pn_op_contract pn_gated_delta_contract = {
    .infer = infer, .saves = saves, .cost = cost, .case_at = pn_gated_delta_case, .again = PN_AGAIN_CORE
};
