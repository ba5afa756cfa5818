#include "head_scale.h"
#include "infer.h"

enum { X, S, A };

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, X, "x", real, PN_ANY, PN_ANY));
    const int64_t N = c->in[X]->shape[0], C = c->in[X]->shape[1];
    const pn_tensor *s = c->in[S];
    if (s && s->rank == 1)
        PN_TRY(pn_need_vector(c, S, "s", wide, PN_ANY));
    else
        PN_TRY(pn_need_matrix(c, S, "s", wide, N, PN_ANY));
    const int64_t H = s->shape[s->rank - 1];
    PN_CHECK(H >= 1 && C % H == 0, PN_USAGE, "head_scale: %lld channels are not %lld equal heads", (long long)C,
             (long long)H);
    if (c->in[A]) PN_TRY(pn_need_matrix(c, A, "a", real, N, C));
    *n_out = 1;
    out[0] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { N, C } };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    return (c->wants[X] ? PN_SAVE_IN(S) : 0) | (c->wants[S] ? PN_SAVE_IN(X) : 0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[X]), width = (double)pn_dtype_bytes(c->in[X]->dtype);
    double added = c->in[A] ? 1 : 0;
    *cost =
        (pn_op_cost){ .flops = (backward ? 4 : 1) * n + added * n, .bytes = ((backward ? 4 : 2) + added) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, heads, width;
        bool every_token, add, frozen;
    } at[] = { { 1, 1, 1, true, false, false },     { 5, 3, 2, true, false, false },
               { 5, 3, 2, false, true, false },     { 4, 6, 1, false, false, false },
               { 0, 4, 8, true, true, false },      { 65, 6, 10, true, true, false },
               { 200, 48, 64, true, false, false }, { 300, 12, 16, false, true, false },
               { 130, 20, 3, false, true, true } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    const int64_t N = at[i].n, H = at[i].heads, C = H * at[i].width;
    snprintf(out->name, sizeof out->name, "N%lld %lld heads of %lld%s%s%s", (long long)N, (long long)H,
             (long long)at[i].width, at[i].every_token ? "" : ", all tokens alike", at[i].add ? ", added" : "",
             at[i].frozen ? ", frozen" : "");
    out->n_in = 3;
    out->in[X] = pn_case_matrix(N, C);
    out->in[S] = at[i].every_token ? pn_case_matrix(N, H) : pn_case_vector(H);
    out->in[S].wide = true;
    out->in[S].no_grad = at[i].frozen;
    if (at[i].add) out->in[A] = pn_case_matrix(N, C);
    out->gradcheck = N <= 5;
    return true;
}

const pn_op_contract pn_head_scale_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
