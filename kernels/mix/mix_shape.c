#include "infer.h"
#include "mix.h"

static const pn_tensor *first_term(const pn_op_call *c) {
    for (int i = 1; i < c->n_in; i++)
        if (c->in[i]) return c->in[i];
    return NULL;
}

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_mix_attr *attr = c->attr;
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    const pn_tensor *first = first_term(c);
    PN_CHECK(first, PN_USAGE, "mix: every term is absent; it needs one");
    PN_TRY(pn_need_matrix(c, 0, "p", wide, PN_ANY, c->n_in - 1));
    PN_CHECK(attr->row >= 0 && attr->row < c->in[0]->shape[0], PN_USAGE, "mix: row %lld of p, which has %lld",
             (long long)attr->row, (long long)c->in[0]->shape[0]);
    for (int i = 1; i < c->n_in; i++)
        if (c->in[i])
            PN_TRY(pn_need_matrix(c, i, "x", real, first == c->in[i] ? PN_ANY : first->shape[0],
                                  first == c->in[i] ? PN_ANY : first->shape[1]));
    *n_out = 1;
    out[0] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { first->shape[0], first->shape[1] } };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    uint32_t bits = 0;
    for (int i = 1; i < c->n_in; i++) {
        if (c->wants[i]) bits |= PN_SAVE_IN(0);
        if (c->wants[0]) bits |= PN_SAVE_IN(i);
    }
    return bits;
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(first_term(c)), width = (double)pn_dtype_bytes(first_term(c)->dtype), terms = 0;
    for (int i = 1; i < c->n_in; i++) terms += c->in[i] != NULL;
    *cost = (pn_op_cost){ .flops = (backward ? 4 : 2) * terms * n,
                          .bytes = (backward ? 2 * terms + 1 : terms + 1) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, d, rows, row;
        int terms, absent; /* absent: index of a term that is NULL, -1 for none */
    } at[] = { { 1, 1, 1, 0, 1, -1 },         { 3, 5, 2, 1, 3, -1 },  { 3, 5, 3, 0, 3, 2 },
               { 2, 3, 1, 0, PN_MIX_MAX, 0 }, { 0, 60, 2, 0, 2, -1 }, { 65, 60, 8, 3, 2, -1 },
               { 300, 576, 30, 29, 3, 1 } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%lldx%lld, %d terms, row %lld of %lld%s", (long long)at[i].n,
             (long long)at[i].d, at[i].terms, (long long)at[i].row, (long long)at[i].rows,
             at[i].absent < 0 ? "" : ", one absent");
    out->n_in = 1 + at[i].terms;
    out->in[0] = pn_case_matrix(at[i].rows, at[i].terms);
    out->in[0].wide = true;
    out->in[0].fill = PN_FILL_UNIFORM;
    out->in[0].hi = 1;
    for (int k = 0; k < at[i].terms; k++)
        if (k != at[i].absent) out->in[1 + k] = pn_case_matrix(at[i].n, at[i].d);
    ((pn_mix_attr *)out->attr)->row = at[i].row;
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_mix_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
