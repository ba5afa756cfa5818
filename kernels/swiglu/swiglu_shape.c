#include "infer.h"
#include "swiglu.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    pn_dtype real = c->dtype;
    PN_TRY(pn_need_matrix(c, 0, "gate", real, PN_ANY, PN_ANY));
    PN_TRY(pn_need_matrix(c, 1, "up", real, c->in[0]->shape[0], c->in[0]->shape[1]));
    *n_out = 1;
    out[0] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { c->in[0]->shape[0], c->in[0]->shape[1] } };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    return PN_SAVE_IN(0) | (c->wants[0] ? PN_SAVE_IN(1) : 0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[0]), width = (double)pn_dtype_bytes(c->in[0]->dtype);
    *cost = (pn_op_cost){ .flops = backward ? 12 * n : 5 * n, .bytes = (backward ? 5 : 3) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, d;
        double scale;
    } at[] = { { 1, 1, 1 }, { 3, 5, 1 }, { 0, 60, 1 }, { 65, 60, 40 }, { 300, 576, 2 } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%lldx%lld gate %g", (long long)at[i].n, (long long)at[i].d, at[i].scale);
    out->n_in = 2;
    for (int k = 0; k < 2; k++) out->in[k] = pn_case_matrix(at[i].n, at[i].d);
    out->in[0].hi = at[i].scale;
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_swiglu_contract = {
    .infer = infer, .saves = saves, .cost = cost, .case_at = case_at, .again = PN_AGAIN_CHEAP
};
