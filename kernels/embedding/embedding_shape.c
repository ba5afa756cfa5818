#include "embedding.h"
#include "infer.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    pn_dtype real = c->dtype;
    PN_TRY(pn_need_vector(c, 0, "ids", PN_I32, PN_ANY));
    PN_TRY(pn_need_matrix(c, 1, "table", real, PN_ANY, PN_ANY));
    *n_out = 1;
    out[0] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { c->in[0]->shape[0], c->in[1]->shape[1] } };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    return c->wants[1] ? PN_SAVE_IN(0) : 0;
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double rows = (double)c->in[0]->shape[0], y = rows * (double)c->in[1]->shape[1];
    double width = (double)pn_dtype_bytes(c->in[1]->dtype);
    *cost = (pn_op_cost){ .flops = backward ? y : 0, .bytes = 4 * rows + (backward ? 3 : 2) * y * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, v, d;
    } at[] = { { 1, 1, 1 }, { 7, 3, 5 }, { 0, 3, 20 }, { 65, 384, 20 }, { 300, 40, 576 }, { 200, 2, 20 } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "N%lld V%lld D%lld", (long long)at[i].n, (long long)at[i].v,
             (long long)at[i].d);
    out->n_in = 2;
    out->in[0] = pn_case_ids(at[i].n, 0, at[i].v);
    out->in[1] = pn_case_weight(at[i].v, at[i].d);
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_embedding_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
