#include "infer.h"
#include "rwkv_output.h"

enum { O, R, K, V, GATE, R_K };

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    static const char *const names[] = { "o", "r", "k", "v", "gate" };
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, O, "o", real, PN_ANY, PN_ANY));
    const int64_t N = c->in[O]->shape[0], C = c->in[O]->shape[1];
    for (int i = R; i <= GATE; i++) PN_TRY(pn_need_matrix(c, i, names[i], real, N, C));
    PN_TRY(pn_need_matrix(c, R_K, "r_k", wide, PN_ANY, PN_ANY));
    const int64_t H = c->in[R_K]->shape[0], d = c->in[R_K]->shape[1];
    PN_CHECK(d >= 1 && H * d == C, PN_USAGE, "rwkv_output: r_k has shape %s, but there are %lld channels",
             pn_tensor_shape_text(c->in[R_K]), (long long)C);
    *n_out = 1;
    out[0] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { N, C } };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    (void)c;
    return PN_SAVE_IN(O) | PN_SAVE_IN(R) | PN_SAVE_IN(K) | PN_SAVE_IN(V) | PN_SAVE_IN(GATE) | PN_SAVE_IN(R_K);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[O]), width = (double)pn_dtype_bytes(c->in[O]->dtype);
    *cost = (pn_op_cost){ .flops = (backward ? 24 : 6) * n, .bytes = (backward ? 11 : 6) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, heads, d;
        bool frozen;
    } at[] = { { 1, 1, 2, false }, { 3, 2, 5, false },    { 0, 2, 8, false },
               { 65, 4, 8, true }, { 130, 3, 20, false }, { 300, 9, 64, false } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "N%lld H%lld d%lld%s", (long long)at[i].n, (long long)at[i].heads,
             (long long)at[i].d, at[i].frozen ? ", frozen o and r_k" : "");
    out->n_in = 6;
    for (int k = O; k <= GATE; k++) out->in[k] = pn_case_matrix(at[i].n, at[i].heads * at[i].d);
    out->in[R_K] = pn_case_matrix(at[i].heads, at[i].d);
    out->in[R_K].wide = true;
    out->in[R_K].hi = 0.3;
    out->in[O].no_grad = out->in[R_K].no_grad = at[i].frozen;
    out->gradcheck = at[i].n <= 3;
    return true;
}

const pn_op_contract pn_rwkv_output_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
