#include "infer.h"
#include "split.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_split_attr *attr = c->attr;
    pn_dtype real = c->dtype;
    PN_TRY(pn_need_matrix(c, 0, "x", real, PN_ANY, PN_ANY));
    PN_CHECK(attr->n >= 1 && attr->n <= PN_OP_OUT, PN_USAGE, "split: %lld parts; it makes 1 .. %d", (long long)attr->n,
             (int)PN_OP_OUT);
    int64_t left = c->in[0]->shape[1];
    for (int64_t k = 0; k < attr->n; k++) {
        PN_CHECK(attr->width[k] >= 1 && attr->width[k] <= left, PN_USAGE,
                 "split: part %lld has %lld columns, of the %lld that are left", (long long)k,
                 (long long)attr->width[k], (long long)left);
        left -= attr->width[k];
        out[k] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { c->in[0]->shape[0], attr->width[k] } };
    }
    PN_CHECK(left == 0, PN_USAGE, "split: %lld of the %lld columns are in no part", (long long)left,
             (long long)c->in[0]->shape[1]);
    *n_out = (int)attr->n;
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    (void)c;
    return 0;
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[0]), width = (double)pn_dtype_bytes(c->in[0]->dtype);
    *cost = (pn_op_cost){ .flops = backward ? n : 0, .bytes = (backward ? 3 : 2) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n;
        pn_split_attr attr;
    } at[] = { { 1, { 1, { 1 } } },
               { 3, { 4, { 2, 1, 3, 1 } } },
               { 0, { 2, { 4, 5 } } },
               { 65, { 2, { 7, 40 } } },
               { 300, { 3, { 128, 160, 12 } } } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    int64_t columns = 0;
    for (int64_t k = 0; k < at[i].attr.n; k++) columns += at[i].attr.width[k];
    snprintf(out->name, sizeof out->name, "%lldx%lld in %lld", (long long)at[i].n, (long long)columns,
             (long long)at[i].attr.n);
    out->n_in = 1;
    out->in[0] = pn_case_matrix(at[i].n, columns);
    *(pn_split_attr *)out->attr = at[i].attr;
    out->gradcheck = at[i].n <= 3;
    return true;
}

const pn_op_contract pn_split_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
