#include "gate_softmax.h"
#include "infer.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_gate_softmax_attr *attr = c->attr;
    pn_dtype wide = pn_wide_dtype(c->dtype);
    PN_TRY(pn_need_matrix(c, 0, "a", wide, PN_ANY, PN_ANY));
    const int64_t *shape = c->in[0]->shape;
    PN_CHECK(shape[1] > 0, PN_USAGE, "gate_softmax: no candidates");
    PN_CHECK(attr->temperature > 0, PN_USAGE, "gate_softmax: temperature %g must be above 0", attr->temperature);
    PN_CHECK(attr->budget <= (double)shape[0], PN_USAGE, "gate_softmax: a budget of %g layers, of %lld", attr->budget,
             (long long)shape[0]);
    if (c->in[1]) PN_TRY(pn_need_matrix(c, 1, "w", wide, shape[0], shape[1]));
    *n_out = 2;
    out[0] = (pn_out_spec){ .dtype = wide, .rank = 2, .shape = { shape[0], shape[1] } };
    out[1] = (pn_out_spec){ .dtype = wide, .rank = 1, .shape = { 1 }, .no_grad = !c->in[1] };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    return c->wants[0] ? PN_SAVE_OUT(0) | PN_SAVE_IN(1) : 0;
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[0]), width = (double)pn_dtype_bytes(c->in[0]->dtype);
    *cost = (pn_op_cost){ .flops = (backward ? 8 : 6) * n, .bytes = (backward ? 4 : 3) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t layers, candidates;
        double temperature, budget, scale; /* scale of the logits */
        bool weights;
    } at[] = { { 1, 1, 1, -1, 1, true },    { 3, 4, 1, -1, 1, true },   { 3, 2, 0.5, -1, 1, false },
               { 3, 4, 1, 1, 1, true },     { 4, 2, 0.3, 2, 1, false }, { 5, 3, 2, 1.5, 1, true },
               { 3, 2, 1, 0, 1, false },    { 1, 3, 1, 1, 1, false },   { 30, 4, 0.5, 2, 3, true },
               { 128, 9, 1, 12, 20, true }, { 30, 3, 1, -1, 40, true } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%lldx%lld temperature %g budget %g logits %g%s", (long long)at[i].layers,
             (long long)at[i].candidates, at[i].temperature, at[i].budget, at[i].scale,
             at[i].weights ? ", weights" : "");
    out->n_in = 2;
    out->in[0] = pn_case_matrix(at[i].layers, at[i].candidates);
    out->in[0].wide = true;
    out->in[0].hi = at[i].scale;
    if (at[i].weights) {
        out->in[1] = pn_case_matrix(at[i].layers, at[i].candidates);
        out->in[1].wide = true;
        out->in[1].no_grad = true;
    }
    *(pn_gate_softmax_attr *)out->attr = (pn_gate_softmax_attr){ at[i].temperature, at[i].budget };
    out->gradcheck = at[i].layers < 20;
    return true;
}

const pn_op_contract pn_gate_softmax_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
