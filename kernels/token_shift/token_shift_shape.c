#include "infer.h"
#include "token_shift.h"

enum { X, MIX, PREVIOUS };

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_token_shift_attr *attr = c->attr;
    const pn_tensor *w = c->in[MIX];
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, X, "x", real, PN_ANY, PN_ANY));
    const int64_t N = c->in[X]->shape[0], D = c->in[X]->shape[1];
    PN_CHECK(w && w->dtype == wide && w->rank == 3 && w->shape[0] == 1 && w->shape[1] == 1 && w->shape[2] == D,
             PN_USAGE, "token_shift: w has shape %s; it needs [1, 1, %lld]", w ? pn_tensor_shape_text(w) : "none",
             (long long)D);
    PN_TRY(pn_docs_check(&attr->docs, N, "token_shift"));
    if (c->in[PREVIOUS]) PN_TRY(pn_need_matrix(c, PREVIOUS, "previous", real, attr->docs.n, D));
    *n_out = 2;
    out[0] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { N, D } };
    out[1] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { attr->docs.n, D }, .no_grad = true };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    uint32_t inputs = PN_SAVE_IN(X) | (c->in[PREVIOUS] ? PN_SAVE_IN(PREVIOUS) : 0);
    return (c->wants[MIX] ? inputs : 0) | (c->wants[X] || c->wants[PREVIOUS] ? PN_SAVE_IN(MIX) : 0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[X]), width = (double)pn_dtype_bytes(c->in[X]->dtype);
    *cost = (pn_op_cost){ .flops = (backward ? 7 : 3) * n, .bytes = (backward ? 4 : 2) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const int64_t one[] = { 0, 1 }, tiny[] = { 0, 3, 3, 5, 10 }, mixed[] = { 0, 1, 4, 71, 71, 142, 144 };
    static const int64_t none[] = { 0, 0, 0 }, steps[] = { 0, 1, 2, 3 }, long_one[] = { 0, 600 };
    static const struct {
        const char *name;
        pn_token_shift_attr attr;
        int64_t channels;
        bool previous, frozen, gradcheck;
    } cases[] = {
        { "one token", { { 1, one, NULL, 0 } }, 3, false, false, true },
        { "tiny", { { 4, tiny, NULL, 0 } }, 3, false, false, true },
        { "tiny, previous", { { 4, tiny, NULL, 0 } }, 2, true, false, true },
        { "no token, previous", { { 2, none, NULL, 0 } }, 4, true, false, false },
        { "mixed", { { 6, mixed, NULL, 0 } }, 96, false, false, false },
        { "mixed, previous", { { 6, mixed, NULL, 0 } }, 33, true, false, false },
        { "mixed, frozen", { { 6, mixed, NULL, 0 } }, 20, true, true, false },
        { "three steps", { { 3, steps, NULL, 0 } }, 300, true, false, false },
        { "600 tokens", { { 1, long_one, NULL, 0 } }, 576, false, false, false },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    const pn_docs *docs = &cases[i].attr.docs;
    const int64_t D = cases[i].channels;
    snprintf(out->name, sizeof out->name, "%s, %lld channels", cases[i].name, (long long)D);
    *(pn_token_shift_attr *)out->attr = cases[i].attr;
    out->n_in = 3;
    out->in[X] = pn_case_matrix(pn_docs_tokens(docs), D);
    out->in[MIX] = (pn_case_input){ .present = true,
                                    .wide = true,
                                    .no_grad = cases[i].frozen,
                                    .rank = 3,
                                    .shape = { 1, 1, D },
                                    .fill = PN_FILL_UNIFORM,
                                    .hi = 1 };
    if (cases[i].previous) out->in[PREVIOUS] = pn_case_matrix(docs->n, D);
    out->gradcheck = cases[i].gradcheck;
    out->kind = 1 + 4 * (D % 8 == 0) + 2 * cases[i].previous + (docs->n > 1);
    return true;
}

const pn_op_contract pn_token_shift_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
