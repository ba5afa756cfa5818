#include "infer.h"
#include "linear_pair.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    pn_dtype real = c->dtype;
    PN_TRY(pn_need_matrix(c, 1, "w0", real, PN_ANY, PN_ANY));
    PN_TRY(pn_need_matrix(c, 2, "w1", real, PN_ANY, c->in[1]->shape[1]));
    PN_TRY(pn_need_matrix(c, 0, "x", real, PN_ANY, c->in[1]->shape[1]));
    *n_out = 2;
    for (int k = 0; k < 2; k++)
        out[k] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { c->in[0]->shape[0], c->in[1 + k]->shape[0] } };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    return (c->wants[0] ? PN_SAVE_IN(1) | PN_SAVE_IN(2) : 0) | (c->wants[1] || c->wants[2] ? PN_SAVE_IN(0) : 0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)c->in[0]->shape[0], in = (double)c->in[0]->shape[1];
    double width = (double)pn_dtype_bytes(c->in[0]->dtype), x = n * in;
    *cost = (pn_op_cost){ 0 };
    if (!backward || c->wants[1] || c->wants[2]) cost->bytes += width * x;
    if (backward && c->wants[0]) cost->bytes += width * x;
    for (int k = 0; k < 2; k++) {
        double out = (double)c->in[1 + k]->shape[0], product = 2 * n * in * out;
        cost->bytes += width * (n * out + in * out);
        if (!backward || c->wants[0]) cost->flops += product;
        if (backward && c->wants[1 + k]) cost->flops += product;
    }
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, in, out[2];
        bool frozen[3];
    } at[] = {
        { 1, 1, { 1, 1 }, { false } },
        { 3, 5, { 4, 2 }, { false } },
        { 0, 20, { 6, 6 }, { false } },
        { 65, 20, { 60, 30 }, { false } },
        { 1, 1536, { 12, 12 }, { false } },
        { 33, 256, { 4, 4 }, { false } },
        { 300, 576, { 9, 9 }, { false } },
        { 130, 72, { 16, 16 }, { true, false, false } },
        { 130, 328, { 12, 3 }, { false, true, true } },
        { 77, 264, { 8, 8 }, { false, true, false } },
        { 40, 96, { 1, 31 }, { true, false, true } },
        { 2100, 200, { 12, 12 }, { false } },
    };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    const bool *frozen = at[i].frozen;
    snprintf(out->name, sizeof out->name, "%lldx%lld->%lld, %lld%s%s%s", (long long)at[i].n, (long long)at[i].in,
             (long long)at[i].out[0], (long long)at[i].out[1], frozen[0] ? ", x frozen" : "",
             frozen[1] ? ", w0 frozen" : "", frozen[2] ? ", w1 frozen" : "");
    out->n_in = 3;
    out->in[0] = pn_case_matrix(at[i].n, at[i].in);
    for (int k = 0; k < 2; k++) out->in[1 + k] = pn_case_weight(at[i].out[k], at[i].in);
    for (int k = 0; k < 3; k++) out->in[k].no_grad = frozen[k];
    out->gradcheck = at[i].n <= 3 && at[i].in < 100;
    out->kind = at[i].out[0] % 4 || at[i].out[1] % 4 ? 2 : 1;
    out->size = at[i].n > 2048;
    return true;
}

const pn_op_contract pn_linear_pair_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
