#include "infer.h"
#include "sigmoid.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_sigmoid_attr *attr = c->attr;
    PN_CHECK(attr->scale != 0, PN_USAGE, "sigmoid: scale is 0; it must be another number");
    *n_out = 1;
    pn_out_like(c->in[0], &out[0]);
    if (attr->wide) out[0].dtype = pn_wide_dtype(c->dtype);
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
        double spread, scale;
    } at[] = { { 1, 1, 1, 1 },     { 3, 5, 2, 2 },        { 0, 20, 1, 1 },        { 65, 20, 60, 2 },
               { 300, 576, 2, 1 }, { 3, 5, 2, -0.60653 }, { 65, 96, 4, -0.60653 } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%lldx%lld spread %g scale %g", (long long)at[i].n, (long long)at[i].d,
             at[i].spread, at[i].scale);
    out->n_in = 1;
    out->in[0] = pn_case_matrix(at[i].n, at[i].d);
    out->in[0].hi = at[i].spread;
    *(pn_sigmoid_attr *)out->attr = (pn_sigmoid_attr){ .scale = at[i].scale, .wide = at[i].scale != 1 };
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_sigmoid_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
