#include "infer.h"
#include "silu.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    *n_out = 1;
    pn_out_like(c->in[0], &out[0]);
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    (void)c;
    return PN_SAVE_IN(0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[0]), width = (double)pn_dtype_bytes(c->in[0]->dtype);
    *cost = (pn_op_cost){ .flops = backward ? 9 * n : 4 * n, .bytes = (backward ? 3 : 2) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, d;
        double scale;
    } at[] = { { 1, 1, 1 }, { 3, 5, 2 }, { 0, 20, 1 }, { 65, 20, 60 }, { 300, 576, 2 } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%lldx%lld scale %g", (long long)at[i].n, (long long)at[i].d, at[i].scale);
    out->n_in = 1;
    out->in[0] = pn_case_matrix(at[i].n, at[i].d);
    out->in[0].hi = at[i].scale;
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_silu_contract = {
    .infer = infer, .saves = saves, .cost = cost, .case_at = case_at, .again = PN_AGAIN_CHEAP
};
