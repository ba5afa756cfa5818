#include "feature_loss.h"
#include "infer.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, 0, "y", real, PN_ANY, PN_ANY));
    PN_TRY(pn_need_matrix(c, 1, "target", real, c->in[0]->shape[0], c->in[0]->shape[1]));
    *n_out = 2;
    out[0] = (pn_out_spec){ .dtype = wide, .rank = 1, .shape = { 1 } };
    out[1] = (pn_out_spec){ .dtype = wide, .rank = 1, .shape = { 1 }, .no_grad = true };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    return c->wants[0] ? PN_SAVE_IN(0) | PN_SAVE_IN(1) | PN_SAVE_OUT(1) : 0;
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[0]), width = (double)pn_dtype_bytes(c->in[0]->dtype);
    *cost = (pn_op_cost){ .flops = (backward ? 3 : 7) * n, .bytes = (backward ? 4 : 2) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, d;
        double lo, hi; /* of the target */
    } at[] = { { 3, 4, -1, 1 },    { 1, 20, -1, 1 },     { 0, 20, -1, 1 },        { 65, 20, 2, 2 },
               { 300, 60, 0, 50 }, { 300, 60, 99, 101 }, { 65, 576, -1e-3, 1e-3 } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%lldx%lld target %g..%g", (long long)at[i].n, (long long)at[i].d, at[i].lo,
             at[i].hi);
    out->n_in = 2;
    for (int k = 0; k < 2; k++) out->in[k] = pn_case_matrix(at[i].n, at[i].d);
    out->in[1].fill = PN_FILL_UNIFORM;
    out->in[1].lo = at[i].lo, out->in[1].hi = at[i].hi;
    out->in[1].no_grad = true;
    out->gradcheck = at[i].d < 20 || at[i].n == 1;
    return true;
}

const pn_op_contract pn_feature_loss_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
