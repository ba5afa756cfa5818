#include "decay_gate.h"
#include "infer.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, 0, "a", real, PN_ANY, PN_ANY));
    PN_TRY(pn_need_vector(c, 1, "A_log", wide, c->in[0]->shape[1]));
    PN_TRY(pn_need_vector(c, 2, "dt_bias", wide, c->in[0]->shape[1]));
    *n_out = 1;
    out[0] = (pn_out_spec){ .dtype = wide, .rank = 2, .shape = { c->in[0]->shape[0], c->in[0]->shape[1] } };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    uint32_t du = c->wants[0] || c->wants[2] ? PN_SAVE_IN(0) | PN_SAVE_IN(1) | PN_SAVE_IN(2) : 0;
    return du | (c->wants[1] ? PN_SAVE_OUT(0) : 0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[0]), width = (double)pn_dtype_bytes(c->in[0]->dtype);
    *cost = (pn_op_cost){ .flops = (backward ? 8 : 6) * n, .bytes = (backward ? 4 : 2) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, h;
        double spread;
        bool frozen;
    } at[] = { { 1, 1, 1, false },   { 5, 3, 2, false },     { 0, 4, 1, false },
               { 65, 6, 30, false }, { 1000, 12, 2, false }, { 300, 20, 2, true } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "N%lld H%lld spread %g%s", (long long)at[i].n, (long long)at[i].h,
             at[i].spread, at[i].frozen ? " frozen" : "");
    out->n_in = 3;
    out->in[0] = pn_case_matrix(at[i].n, at[i].h);
    out->in[0].hi = at[i].spread;
    out->in[1] = pn_case_vector(at[i].h); /* A in 1 .. 16 */
    out->in[1].fill = PN_FILL_UNIFORM;
    out->in[1].hi = 2.77;
    out->in[2] = pn_case_vector(at[i].h); /* dt in 0.001 .. 0.1 */
    out->in[2].fill = PN_FILL_UNIFORM;
    out->in[2].lo = -6.9, out->in[2].hi = -2.25;
    out->in[1].no_grad = out->in[2].no_grad = at[i].frozen;
    out->gradcheck = at[i].n <= 5;
    return true;
}

const pn_op_contract pn_decay_gate_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
