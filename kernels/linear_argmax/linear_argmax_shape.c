#include "infer.h"
#include "linear_argmax.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    pn_dtype real = c->dtype;
    PN_TRY(pn_need_matrix(c, 0, "h", real, PN_ANY, PN_ANY));
    PN_TRY(pn_need_matrix(c, 1, "W", real, PN_ANY, c->in[0]->shape[1]));
    PN_CHECK(c->in[1]->shape[0] > 0, PN_USAGE, "linear_argmax: W has no rows to choose from");
    *n_out = 1;
    out[0] = (pn_out_spec){ .dtype = PN_I32, .rank = 1, .shape = { c->in[0]->shape[0] }, .no_grad = true };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    (void)c;
    return 0;
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double N = (double)c->in[0]->shape[0], D = (double)c->in[0]->shape[1], V = (double)c->in[1]->shape[0];
    double width = (double)pn_dtype_bytes(c->in[0]->dtype);
    *cost = (pn_op_cost){ 0 };
    if (!backward) *cost = (pn_op_cost){ .flops = 2 * N * D * V, .bytes = width * (N * D + V * D) + 4 * N };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        const char *name;
        int64_t n, d, v;
        bool ties;
    } at[] = {
        { "one word", 3, 4, 1, false },
        { "no rows", 0, 4, 7, false },
        { "ties", 65, 2, 1300, true },
        { "one row", 1, 576, 384, false },
        { "several column tiles", 65, 20, 3001, false },
        { "several row tiles", 1100, 20, 60, false },
        { "rows of eight", 600, 8, 1300, true },
    };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%s N%lld D%lld V%lld", at[i].name, (long long)at[i].n, (long long)at[i].d,
             (long long)at[i].v);
    out->n_in = 2;
    out->in[0] = pn_case_matrix(at[i].n, at[i].d);
    out->in[1] = pn_case_weight(at[i].v, at[i].d);
    for (int k = 0; k < 2; k++) {
        out->in[k].no_grad = true;
        if (!at[i].ties) continue;
        out->in[k].fill = PN_FILL_INT; /* small whole numbers: products are exact and equal ones are many */
        out->in[k].lo = -2, out->in[k].hi = 3;
    }
    return true;
}

const pn_op_contract pn_linear_argmax_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
