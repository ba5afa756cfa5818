#include "infer.h"
#include "swiglu_linear.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    pn_dtype real = c->dtype;
    PN_TRY(pn_need_matrix(c, 2, "w", real, PN_ANY, PN_ANY));
    PN_TRY(pn_need_matrix(c, 0, "gate", real, PN_ANY, c->in[2]->shape[1]));
    PN_TRY(pn_need_matrix(c, 1, "up", real, c->in[0]->shape[0], c->in[2]->shape[1]));
    *n_out = 1;
    out[0] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { c->in[0]->shape[0], c->in[2]->shape[0] } };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    const bool gate = c->wants[0], up = c->wants[1], w = c->wants[2];
    return (gate || up || w ? PN_SAVE_IN(0) : 0) | (gate || w ? PN_SAVE_IN(1) : 0) | (gate || up ? PN_SAVE_IN(2) : 0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)c->in[0]->shape[0], in = (double)c->in[2]->shape[1], out = (double)c->in[2]->shape[0];
    double width = (double)pn_dtype_bytes(c->in[0]->dtype), product = 2 * n * in * out, x = n * in, w = in * out,
           y = n * out;
    if (!backward) {
        *cost = (pn_op_cost){ .flops = product + 5 * x, .bytes = width * (2 * x + w + y) };
        return;
    }
    *cost = (pn_op_cost){ .flops = 12 * x, .bytes = width * (y + 2 * x) };
    if (c->wants[0] || c->wants[1]) cost->flops += product, cost->bytes += width * w;
    for (int k = 0; k < 2; k++)
        if (c->wants[k]) cost->bytes += width * x;
    if (c->wants[2]) cost->flops += product, cost->bytes += width * w;
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, in, out;
        double scale;
        bool train[3];
    } at[] = {
        { 1, 1, 1, 1, { true, true, true } },      { 7, 45, 10, 1, { true, true, true } },
        { 0, 20, 60, 1, { true, true, true } },    { 1, 576, 60, 1, { true, true, true } },
        { 65, 60, 20, 1, { true, true, false } },  { 65, 60, 20, 1, { false, false, true } },
        { 65, 36, 24, 40, { false, true, true } }, { 300, 576, 60, 2, { true, true, true } },
        { 65, 50, 20, 1, { true, false, false } }, { 3, 6, 4, 1, { false, true, false } },
        { 33, 264, 9, 1, { true, true, true } },
    };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    const bool *train = at[i].train;
    snprintf(out->name, sizeof out->name, "%lldx%lld->%lld gate %g%s%s%s", (long long)at[i].n, (long long)at[i].in,
             (long long)at[i].out, at[i].scale, train[0] ? "" : ", gate frozen", train[1] ? "" : ", up frozen",
             train[2] ? "" : ", w frozen");
    out->n_in = 3;
    for (int k = 0; k < 2; k++) out->in[k] = pn_case_matrix(at[i].n, at[i].in);
    out->in[0].hi = at[i].scale;
    out->in[2] = pn_case_weight(at[i].out, at[i].in);
    for (int k = 0; k < 3; k++) out->in[k].no_grad = !train[k];
    out->gradcheck = at[i].n <= 3 && at[i].in < 100;
    return true;
}

const pn_op_contract pn_swiglu_linear_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
