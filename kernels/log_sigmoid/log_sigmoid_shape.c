#include "infer.h"
#include "log_sigmoid.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_log_sigmoid_attr *attr = c->attr;
    PN_CHECK(attr->scale > 0, PN_USAGE, "log_sigmoid: scale is %g; it must be positive", attr->scale);
    PN_CHECK(attr->min <= 0, PN_USAGE, "log_sigmoid: min is %g; a log decay is at most 0", attr->min);
    *n_out = 1;
    pn_out_like(c->in[0], &out[0]);
    out[0].dtype = pn_wide_dtype(c->dtype);
    return PN_OK;
}

/* The input: the output has lost the gradient's digits where the logistic function is near 1. */
static uint32_t saves(const pn_op_call *c) {
    return c->wants[0] ? PN_SAVE_IN(0) : 0;
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[0]), width = (double)pn_dtype_bytes(c->in[0]->dtype);
    *cost = (pn_op_cost){ .flops = (backward ? 5 : 4) * n, .bytes = (backward ? 4 : 2) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, d;
        double spread, scale, min;
    } at[] = { { 1, 1, 1, 1, -1e30 },          { 3, 5, 2, 1. / 16, -1e30 },    { 4, 5, 3, 0.5, -1 },
               { 0, 20, 1, 1, -1e30 },         { 65, 20, 60, 1. / 16, -1e30 }, { 65, 20, 60, 1, -3 },
               { 300, 576, 2, 1. / 16, -1e30 } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%lldx%lld spread %g scale %g min %g", (long long)at[i].n, (long long)at[i].d,
             at[i].spread, at[i].scale, at[i].min);
    out->n_in = 1;
    out->in[0] = pn_case_matrix(at[i].n, at[i].d);
    out->in[0].hi = at[i].spread;
    *(pn_log_sigmoid_attr *)out->attr = (pn_log_sigmoid_attr){ .scale = at[i].scale, .min = at[i].min };
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_log_sigmoid_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
