#include "rope.h"
#include "infer.h"

#include <string.h>

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_rope_attr *a = c->attr;
    const pn_tensor *x = c->in[0];
    PN_CHECK(a->heads > 0 && a->head_dim > 0 && a->head_dim % 2 == 0, PN_USAGE,
             "rope: %d heads of width %d: the width must be even and both above 0", a->heads, a->head_dim);
    PN_CHECK(a->theta > 0, PN_USAGE, "rope: theta is %g, it must be above 0", a->theta);
    PN_CHECK(x->rank == 2 && x->shape[1] == (int64_t)a->heads * a->head_dim, PN_USAGE,
             "rope: x has shape %s, it needs [tokens, %d * %d]", pn_tensor_shape_text(x), a->heads, a->head_dim);
    PN_TRY(pn_docs_check(&a->docs, x->shape[0], "rope"));
    *n_out = 1;
    pn_out_like(x, &out[0]);
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    (void)c;
    return 0;
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[0]), width = (double)pn_dtype_bytes(c->in[0]->dtype);
    *cost = (pn_op_cost){ .flops = 3 * n, .bytes = (backward ? 3 : 2) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const int64_t one[] = { 0, 1 }, mixed[] = { 0, 3, 3, 70, 141 }, step[] = { 0, 1, 2, 4 };
    static const int64_t past[] = { 0, 31000, 5 }, long_past[] = { 131000, 0, 17, 1 };
    static const struct {
        const char *name;
        pn_rope_attr attr;
    } cases[] = {
        { "one token", { { 1, one, NULL, 0 }, 1, 2, 1e4 } },
        { "four documents, one empty", { { 4, mixed, NULL, 0 }, 3, 16, 1e6 } },
        { "decode at three positions", { { 3, step, past, 0 }, 2, 64, 1e6 } },
        { "pieces after a past", { { 4, mixed, long_past, 0 }, 2, 20, 1e4 } },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    const pn_rope_attr *a = &cases[i].attr;
    snprintf(out->name, sizeof out->name, "%s", cases[i].name);
    memcpy(out->attr, a, sizeof *a);
    out->n_in = 1;
    out->in[0] = (pn_case_input){ .present = true,
                                  .rank = 2,
                                  .shape = { pn_docs_tokens(&a->docs), (int64_t)a->heads * a->head_dim } };
    out->gradcheck = i < 3;
    out->kind = 1 + i;
    return true;
}

const pn_op_contract pn_rope_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
