#include "infer.h"
#include "tanh.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    *n_out = 1;
    pn_out_like(c->in[0], &out[0]);
    return PN_OK;
}

/* The output alone: its consumer keeps it anyway. */
static uint32_t saves(const pn_op_call *c) {
    (void)c;
    return PN_SAVE_OUT(0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[0]), width = (double)pn_dtype_bytes(c->in[0]->dtype);
    *cost = (pn_op_cost){ .flops = 4 * n, .bytes = (backward ? 3 : 2) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, d;
        double spread;
    } at[] = { { 1, 1, 1 }, { 3, 5, 1 }, { 0, 20, 1 }, { 65, 20, 1e-3 }, { 65, 20, 60 }, { 300, 96, 1 } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%lldx%lld spread %g", (long long)at[i].n, (long long)at[i].d, at[i].spread);
    out->n_in = 1;
    out->in[0] = pn_case_matrix(at[i].n, at[i].d);
    out->in[0].hi = at[i].spread;
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_tanh_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
