#include "infer.h"
#include "linear.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, 1, "w", real, PN_ANY, PN_ANY));
    PN_TRY(pn_need_matrix(c, 0, "x", real, PN_ANY, c->in[1]->shape[1]));
    if (c->in[2]) PN_TRY(pn_need_vector(c, 2, "b", wide, c->in[1]->shape[0]));
    *n_out = 1;
    out[0] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { c->in[0]->shape[0], c->in[1]->shape[0] } };
    return PN_OK;
}

/* A frozen weight keeps no activations: x is needed for dw only. */
static uint32_t saves(const pn_op_call *c) {
    return (c->wants[0] ? PN_SAVE_IN(1) : 0) | (c->wants[1] ? PN_SAVE_IN(0) : 0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)c->in[0]->shape[0], in = (double)c->in[1]->shape[1], out = (double)c->in[1]->shape[0];
    double width = (double)pn_dtype_bytes(c->in[0]->dtype), product = 2 * n * in * out, x = n * in, w = in * out,
           y = n * out;
    if (!backward) {
        *cost = (pn_op_cost){ .flops = product + (c->in[2] ? y : 0), .bytes = width * (x + w + y) };
        return;
    }
    *cost = (pn_op_cost){ .bytes = width * y };
    if (c->wants[0]) cost->flops += product, cost->bytes += width * (w + x);
    if (c->wants[1]) cost->flops += product, cost->bytes += width * (x + w);
    if (c->in[2] && c->wants[2]) cost->flops += y;
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, in, out;
        bool bias, frozen;
    } at[] = {
        { 1, 1, 1, true, false },      { 3, 5, 4, true, false },     { 0, 20, 60, true, false },
        { 1, 576, 60, true, false },   { 65, 20, 60, false, false }, { 65, 60, 20, true, true },
        { 300, 576, 60, true, false }, { 130, 576, 9, true, false }, { 65, 260, 16, false, true },
    };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%lldx%lld->%lld%s%s", (long long)at[i].n, (long long)at[i].in,
             (long long)at[i].out, at[i].bias ? " bias" : "", at[i].frozen ? " frozen" : "");
    out->n_in = 3;
    out->in[0] = pn_case_matrix(at[i].n, at[i].in);
    out->in[1] = pn_case_weight(at[i].out, at[i].in);
    out->in[1].no_grad = at[i].frozen;
    if (at[i].bias) out->in[2] = pn_case_vector(at[i].out);
    out->gradcheck = at[i].n <= 3 && at[i].in < 100;
    return true;
}

const pn_op_contract pn_linear_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
