#include "add_rms_norm.h"
#include "infer.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_add_rms_norm_attr *attr = c->attr;
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, 0, "x", real, PN_ANY, PN_ANY));
    PN_TRY(pn_need_matrix(c, 1, "r", real, c->in[0]->shape[0], c->in[0]->shape[1]));
    PN_TRY(pn_need_vector(c, 2, "w", wide, c->in[0]->shape[1]));
    PN_CHECK(attr->eps >= 0, PN_USAGE, "add_rms_norm: eps is %g; it must not be negative", attr->eps);
    *n_out = 3;
    out[0] = out[1] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { c->in[0]->shape[0], c->in[0]->shape[1] } };
    out[2] = (pn_out_spec){ .dtype = wide, .rank = 2, .shape = { c->in[0]->shape[0], 1 }, .no_grad = true };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    return PN_SAVE_OUT(0) | PN_SAVE_OUT(2) | (c->wants[0] || c->wants[1] ? PN_SAVE_IN(2) : 0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[0]), width = (double)pn_dtype_bytes(c->in[0]->dtype);
    *cost = (pn_op_cost){ .flops = backward ? 12 * n : 5 * n, .bytes = (backward ? 5 : 4) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, d;
        double scale;
        bool frozen;
    } at[] = { { 1, 2, 1, false },    { 3, 5, 1, false },      { 0, 20, 1, false },  { 65, 20, 1e-3, false },
               { 300, 60, 1, true },  { 65, 576, 30, false },  { 1, 576, 1, false }, { 200, 896, 1, false },
               { 64, 1536, 1, true }, { 150, 1540, 1, false }, { 9, 9000, 1, false } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%lldx%lld rms %g%s", (long long)at[i].n, (long long)at[i].d, at[i].scale,
             at[i].frozen ? " frozen" : "");
    out->n_in = 3;
    for (int k = 0; k < 2; k++) {
        out->in[k] = pn_case_matrix(at[i].n, at[i].d);
        out->in[k].hi = at[i].scale;
    }
    out->in[2] = pn_case_vector(at[i].d);
    out->in[2].fill = PN_FILL_ONES;
    out->in[2].hi = 0.3;
    out->in[2].no_grad = at[i].frozen;
    *(pn_add_rms_norm_attr *)out->attr = (pn_add_rms_norm_attr){ .eps = 1e-6 };
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_add_rms_norm_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
