#include "infer.h"
#include "l2_norm.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_l2_norm_attr *attr = c->attr;
    PN_TRY(pn_need_matrix(c, 0, "x", c->dtype, PN_ANY, PN_ANY));
    PN_CHECK(attr->head_dim > 0 && c->in[0]->shape[1] % attr->head_dim == 0, PN_USAGE,
             "l2_norm: %lld channels are not a whole number of heads of %lld", (long long)c->in[0]->shape[1],
             (long long)attr->head_dim);
    PN_CHECK(attr->eps > 0, PN_USAGE, "l2_norm: eps is %g; it must be positive", attr->eps);
    *n_out = 1;
    out[0] = (pn_out_spec){ .dtype = c->dtype, .rank = 2, .shape = { c->in[0]->shape[0], c->in[0]->shape[1] } };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    (void)c;
    return PN_SAVE_IN(0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    const pn_l2_norm_attr *attr = c->attr;
    double n = (double)pn_tensor_elems(c->in[0]), width = (double)pn_dtype_bytes(c->in[0]->dtype);
    double silu = attr->silu ? (backward ? 8 : 4) : 0;
    *cost = (pn_op_cost){ .flops = n * (silu + (backward ? 8 : 3)), .bytes = (backward ? 3 : 2) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, heads, d;
        bool silu;
    } at[] = {
        { 1, 1, 2, false },  { 3, 2, 5, false },   { 3, 2, 5, true },    { 0, 2, 20, true },
        { 65, 3, 20, true }, { 65, 1, 60, false }, { 300, 6, 96, true }, { 65, 3, 192, false },
    };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "N%lld H%lld d%lld%s", (long long)at[i].n, (long long)at[i].heads,
             (long long)at[i].d, at[i].silu ? " silu" : "");
    out->n_in = 1;
    out->in[0] = pn_case_matrix(at[i].n, at[i].heads * at[i].d);
    *(pn_l2_norm_attr *)out->attr = (pn_l2_norm_attr){ .head_dim = at[i].d, .eps = 1e-6, .silu = at[i].silu };
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_l2_norm_contract = {
    .infer = infer, .saves = saves, .cost = cost, .case_at = case_at, .again = PN_AGAIN_CHEAP
};
