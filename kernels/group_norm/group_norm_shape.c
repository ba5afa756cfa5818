#include "group_norm.h"
#include "infer.h"

enum { X, SCALE, SHIFT };
enum { Y, MEAN, RSTD };

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_group_norm_attr *attr = c->attr;
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, X, "x", real, PN_ANY, PN_ANY));
    const int64_t N = c->in[X]->shape[0], C = c->in[X]->shape[1];
    PN_TRY(pn_need_vector(c, SCALE, "w", wide, C));
    PN_TRY(pn_need_vector(c, SHIFT, "b", wide, C));
    PN_CHECK(attr->eps > 0, PN_USAGE, "group_norm: eps is %g; it must be positive", attr->eps);
    PN_CHECK(attr->groups >= 1 && C % attr->groups == 0, PN_USAGE,
             "group_norm: %lld channels are not %lld equal groups", (long long)C, (long long)attr->groups);
    *n_out = 3;
    out[Y] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { N, C } };
    out[MEAN] = out[RSTD] = (pn_out_spec){ .dtype = wide, .rank = 2, .shape = { N, attr->groups }, .no_grad = true };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    return PN_SAVE_OUT(MEAN) | PN_SAVE_OUT(RSTD) | (c->wants[X] ? PN_SAVE_IN(SCALE) : 0) |
           (c->wants[X] || c->wants[SCALE] ? PN_SAVE_IN(X) : 0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[X]), width = (double)pn_dtype_bytes(c->in[X]->dtype);
    *cost = (pn_op_cost){ .flops = backward ? 17 * n : 8 * n, .bytes = (backward ? 3 : 2) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, d, groups;
        double scale;
        bool frozen;
    } at[] = { { 1, 5, 1, 1, false },    { 3, 6, 2, 1, false },   { 3, 6, 3, 1e-2, false },  { 0, 20, 4, 1, false },
               { 65, 64, 2, 30, false }, { 130, 60, 4, 1, true }, { 200, 896, 14, 1, false } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%lldx%lld in %lld groups, rms %g%s", (long long)at[i].n, (long long)at[i].d,
             (long long)at[i].groups, at[i].scale, at[i].frozen ? ", frozen" : "");
    out->n_in = 3;
    out->in[X] = pn_case_matrix(at[i].n, at[i].d);
    out->in[X].hi = at[i].scale;
    out->in[SCALE] = pn_case_vector(at[i].d);
    out->in[SCALE].fill = PN_FILL_ONES;
    out->in[SCALE].hi = 0.3;
    out->in[SHIFT] = pn_case_vector(at[i].d);
    out->in[SCALE].no_grad = out->in[SHIFT].no_grad = at[i].frozen;
    *(pn_group_norm_attr *)out->attr = (pn_group_norm_attr){ .eps = 64e-5, .groups = at[i].groups };
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_group_norm_contract = {
    .infer = infer, .saves = saves, .cost = cost, .case_at = case_at, .again = PN_AGAIN_CHEAP
};
