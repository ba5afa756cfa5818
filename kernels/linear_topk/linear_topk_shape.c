#include "infer.h"
#include "linear_topk.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_linear_topk_attr *attr = c->attr;
    pn_dtype real = c->dtype;
    PN_TRY(pn_need_matrix(c, 0, "h", real, PN_ANY, PN_ANY));
    PN_TRY(pn_need_matrix(c, 1, "W", real, PN_ANY, c->in[0]->shape[1]));
    int64_t N = c->in[0]->shape[0], V = c->in[1]->shape[0];
    PN_CHECK(attr->k >= 1 && attr->k <= V, PN_USAGE,
             "linear_topk: %lld words of each token are asked for; 1 to %lld are", (long long)attr->k, (long long)V);
    PN_CHECK(attr->temperature > 0, PN_USAGE, "linear_topk: the temperature is %g; it must be positive",
             attr->temperature);
    *n_out = 2;
    out[0] = (pn_out_spec){ .dtype = PN_I32, .rank = 2, .shape = { N, attr->k }, .no_grad = true };
    out[1] = (pn_out_spec){ .dtype = pn_wide_dtype(real), .rank = 2, .shape = { N, attr->k }, .no_grad = true };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    (void)c;
    return 0;
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double N = (double)c->in[0]->shape[0], D = (double)c->in[0]->shape[1], V = (double)c->in[1]->shape[0];
    double width = (double)pn_dtype_bytes(c->in[0]->dtype), k = (double)((const pn_linear_topk_attr *)c->attr)->k;
    *cost = (pn_op_cost){ 0 };
    if (!backward) *cost = (pn_op_cost){ .flops = 2 * N * D * V, .bytes = width * (N * D + V * D) + 8 * N * k };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        const char *name;
        int64_t n, d, v, k;
        double tau;
        bool ties;
    } at[] = {
        { "one word", 3, 4, 1, 1, 1, false },           { "no rows", 0, 4, 7, 3, 1, false },
        { "all words", 65, 60, 259, 259, 2, false },    { "ties", 65, 2, 1300, 40, 1, true },
        { "one row", 1, 576, 384, 5, 0.5, false },      { "long rows", 65, 20, 9001, 64, 1, false },
        { "many words", 33, 20, 5003, 2500, 1, false }, { "several row tiles", 1100, 20, 60, 7, 1, false },
        { "rows of eight", 600, 8, 1300, 16, 1, true }, { "many ties", 40, 1, 12000, 900, 1, true },
    };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%s N%lld D%lld V%lld k%lld tau %g", at[i].name, (long long)at[i].n,
             (long long)at[i].d, (long long)at[i].v, (long long)at[i].k, at[i].tau);
    out->n_in = 2;
    out->in[0] = pn_case_matrix(at[i].n, at[i].d);
    out->in[1] = pn_case_weight(at[i].v, at[i].d);
    for (int k = 0; k < 2; k++) {
        out->in[k].no_grad = true;
        if (!at[i].ties) continue;
        out->in[k].fill = PN_FILL_INT; /* small whole numbers: products are exact and equal ones are many */
        out->in[k].lo = -2, out->in[k].hi = 3;
    }
    *(pn_linear_topk_attr *)out->attr = (pn_linear_topk_attr){ .k = at[i].k, .temperature = at[i].tau };
    return true;
}

const pn_op_contract pn_linear_topk_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
