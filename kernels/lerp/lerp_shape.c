#include "infer.h"
#include "lerp.h"

enum { A, B, W };

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    static const char *const names[] = { "a", "b", "w" };
    for (int k = B; k <= W; k++)
        PN_CHECK(pn_tensor_same_shape(c->in[A], c->in[k]), PN_USAGE, "lerp: a has shape %s, %s %s; they must agree",
                 pn_tensor_shape_text(c->in[A]), names[k], pn_tensor_shape_text(c->in[k]));
    *n_out = 1;
    pn_out_like(c->in[A], &out[0]);
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    return (c->wants[A] || c->wants[B] ? PN_SAVE_IN(W) : 0) | (c->wants[W] ? PN_SAVE_IN(A) | PN_SAVE_IN(B) : 0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[A]), width = (double)pn_dtype_bytes(c->in[A]->dtype);
    *cost = (pn_op_cost){ .flops = (backward ? 8 : 3) * n, .bytes = (backward ? 7 : 4) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, d;
        bool frozen;
    } at[] = { { 1, 1, false }, { 3, 5, false }, { 0, 20, false }, { 300, 576, false }, { 65, 20, true } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%lldx%lld%s", (long long)at[i].n, (long long)at[i].d,
             at[i].frozen ? ", frozen w" : "");
    out->n_in = 3;
    for (int k = 0; k < 3; k++) out->in[k] = pn_case_matrix(at[i].n, at[i].d);
    out->in[W].fill = PN_FILL_UNIFORM;
    out->in[W].hi = 1;
    out->in[W].no_grad = at[i].frozen;
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_lerp_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
