#include "gated_rms_norm.h"
#include "infer.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_gated_rms_norm_attr *attr = c->attr;
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, 0, "o", real, PN_ANY, PN_ANY));
    int64_t N = c->in[0]->shape[0], channels = c->in[0]->shape[1];
    if (c->in[1]) PN_TRY(pn_need_matrix(c, 1, "z", real, N, channels));
    PN_CHECK(attr->head_dim > 0 && channels % attr->head_dim == 0, PN_USAGE,
             "gated_rms_norm: %lld channels are not a whole number of heads of %lld", (long long)channels,
             (long long)attr->head_dim);
    PN_TRY(pn_need_vector(c, 2, "w", wide, attr->head_dim));
    PN_CHECK(attr->eps >= 0, PN_USAGE, "gated_rms_norm: eps is %g; it must not be negative", attr->eps);
    *n_out = 1;
    out[0] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { N, channels } };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    return PN_SAVE_IN(0) | (c->in[1] ? PN_SAVE_IN(1) : 0) | (c->wants[0] || c->wants[1] ? PN_SAVE_IN(2) : 0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[0]), width = (double)pn_dtype_bytes(c->in[0]->dtype);
    double gate_flops = c->in[1] ? (backward ? 11 : 5) : 0, gate_bytes = c->in[1] ? (backward ? 2 : 1) : 0;
    *cost = (pn_op_cost){ .flops = n * (gate_flops + (backward ? 13 : 4)),
                          .bytes = n * width * (gate_bytes + (backward ? 3 : 2)) };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, heads, d;
        bool gate, frozen;
    } at[] = {
        { 3, 2, 5, true, false },    { 3, 2, 5, false, false },  { 0, 2, 20, true, false },   { 1, 3, 20, true, false },
        { 65, 1, 60, false, false }, { 65, 3, 192, true, true }, { 300, 6, 96, true, false },
    };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "N%lld H%lld d%lld%s%s", (long long)at[i].n, (long long)at[i].heads,
             (long long)at[i].d, at[i].gate ? " gate" : "", at[i].frozen ? " frozen" : "");
    out->n_in = 3;
    out->in[0] = pn_case_matrix(at[i].n, at[i].heads * at[i].d);
    if (at[i].gate) out->in[1] = out->in[0];
    out->in[1].hi = 2;
    out->in[2] = pn_case_vector(at[i].d);
    out->in[2].fill = PN_FILL_ONES;
    out->in[2].hi = 0.3;
    out->in[2].no_grad = at[i].frozen;
    *(pn_gated_rms_norm_attr *)out->attr = (pn_gated_rms_norm_attr){ .head_dim = at[i].d, .eps = 1e-5 };
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_gated_rms_norm_contract = {
    .infer = infer, .saves = saves, .cost = cost, .case_at = case_at, .again = PN_AGAIN_CHEAP
};
