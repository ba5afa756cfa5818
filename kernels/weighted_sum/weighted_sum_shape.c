#include "infer.h"
#include "weighted_sum.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    PN_CHECK(c->n_in >= 1 && c->n_in <= PN_WEIGHTED_SUM_MAX, PN_USAGE, "weighted_sum: %d inputs; it takes 1 to %d",
             c->n_in, (int)PN_WEIGHTED_SUM_MAX);
    pn_dtype wide = pn_wide_dtype(c->dtype);
    for (int i = 0; i < c->n_in; i++) PN_TRY(pn_need_vector(c, i, "x", wide, 1));
    *n_out = 1;
    out[0] = (pn_out_spec){ .dtype = wide, .rank = 1, .shape = { 1 } };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    (void)c;
    return 0;
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    (void)backward;
    *cost =
        (pn_op_cost){ .flops = 2 * c->n_in, .bytes = (double)(c->n_in + 1) * (double)pn_dtype_bytes(c->in[0]->dtype) };
}

static bool case_at(int i, pn_op_case *out) {
    static const int counts[] = { 1, 3, PN_WEIGHTED_SUM_MAX };
    if (i >= (int)(sizeof counts / sizeof *counts)) return false;
    snprintf(out->name, sizeof out->name, "%d terms", counts[i]);
    out->n_in = counts[i];
    pn_weighted_sum_attr *attr = (pn_weighted_sum_attr *)out->attr;
    for (int k = 0; k < counts[i]; k++) {
        out->in[k] = pn_case_vector(1);
        attr->weight[k] = 1.5 - 0.4 * k;
    }
    out->gradcheck = true;
    return true;
}

const pn_op_contract pn_weighted_sum_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
