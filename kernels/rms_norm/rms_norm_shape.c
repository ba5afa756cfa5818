#include "infer.h"
#include "rms_norm.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_rms_norm_attr *attr = c->attr;
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, 0, "x", real, PN_ANY, PN_ANY));
    PN_TRY(pn_need_vector(c, 1, "w", wide, c->in[0]->shape[1]));
    PN_CHECK(attr->eps >= 0, PN_USAGE, "rms_norm: eps is %g; it must not be negative", attr->eps);
    PN_CHECK(attr->groups >= 1 && c->in[0]->shape[1] % attr->groups == 0, PN_USAGE,
             "rms_norm: %lld channels are not %lld equal groups", (long long)c->in[0]->shape[1],
             (long long)attr->groups);
    *n_out = 2;
    out[0] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { c->in[0]->shape[0], c->in[0]->shape[1] } };
    out[1] = (pn_out_spec){ .dtype = wide, .rank = 2, .shape = { c->in[0]->shape[0], attr->groups }, .no_grad = true };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    return PN_SAVE_IN(0) | PN_SAVE_OUT(1) | (c->wants[0] ? PN_SAVE_IN(1) : 0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[0]), width = (double)pn_dtype_bytes(c->in[0]->dtype);
    *cost = (pn_op_cost){ .flops = backward ? 11 * n : 4 * n, .bytes = (backward ? 3 : 2) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, d, groups;
        double scale;
        bool frozen;
    } at[] = {
        { 1, 2, 1, 1, false },    { 3, 5, 1, 1, false },     { 0, 20, 1, 1, false },  { 65, 20, 1, 1e-3, false },
        { 300, 60, 1, 1, true },  { 65, 576, 1, 30, false }, { 1, 576, 1, 1, false }, { 200, 896, 1, 1, false },
        { 3, 6, 3, 1, false },    { 0, 20, 4, 1, false },    { 130, 60, 4, 1, true }, { 200, 896, 8, 1, false },
        { 2, 4104, 1, 1, false }, { 2, 8200, 1, 1, false },
    };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    int len = snprintf(out->name, sizeof out->name, "%lldx%lld rms %g%s", (long long)at[i].n, (long long)at[i].d,
                       at[i].scale, at[i].frozen ? " frozen" : "");
    if (at[i].groups > 1)
        snprintf(out->name + len, sizeof out->name - (size_t)len, ", %lld groups", (long long)at[i].groups);
    out->n_in = 2;
    out->in[0] = pn_case_matrix(at[i].n, at[i].d);
    out->in[0].hi = at[i].scale;
    out->in[1] = pn_case_vector(at[i].d);
    out->in[1].fill = PN_FILL_ONES;
    out->in[1].hi = 0.3;
    out->in[1].no_grad = at[i].frozen;
    *(pn_rms_norm_attr *)out->attr = (pn_rms_norm_attr){ .eps = 1e-6, .groups = at[i].groups };
    out->gradcheck = at[i].d < 20;
    /* By how much of a row a thread keeps. */
    const int64_t d = at[i].d / at[i].groups;
    const int length = d <= 256 ? 0 : d <= 4096 ? 1 : d <= 8192 ? 2 : 3;
    out->kind = 1 + 2 * length + (d % 8 == 0);
    return true;
}

const pn_op_contract pn_rms_norm_contract = {
    .infer = infer, .saves = saves, .cost = cost, .case_at = case_at, .again = PN_AGAIN_CHEAP
};
