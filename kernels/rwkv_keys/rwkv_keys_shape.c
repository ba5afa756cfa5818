#include "infer.h"
#include "rwkv_keys.h"

enum { K, A, K_K, K_A };

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_rwkv_keys_attr *attr = c->attr;
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, K, "k", real, PN_ANY, PN_ANY));
    const int64_t N = c->in[K]->shape[0], C = c->in[K]->shape[1];
    PN_TRY(pn_need_matrix(c, A, "a", real, N, C));
    PN_TRY(pn_need_vector(c, K_K, "k_k", wide, C));
    PN_TRY(pn_need_vector(c, K_A, "k_a", wide, C));
    PN_CHECK(attr->head_dim >= 1 && C % attr->head_dim == 0, PN_USAGE,
             "rwkv_keys: %lld channels are not a whole number of heads of %lld", (long long)C,
             (long long)attr->head_dim);
    PN_CHECK(attr->eps >= 0 && attr->floor >= 0 && attr->eps + attr->floor > 0, PN_USAGE,
             "rwkv_keys: eps %g and floor %g; neither may be negative, nor both 0", attr->eps, attr->floor);
    *n_out = 3;
    for (int k = 0; k < 3; k++) out[k] = (pn_out_spec){ .dtype = real, .rank = 2, .shape = { N, C } };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    (void)c;
    return PN_SAVE_IN(K) | PN_SAVE_IN(A) | PN_SAVE_IN(K_K) | PN_SAVE_IN(K_A);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[K]), width = (double)pn_dtype_bytes(c->in[K]->dtype);
    *cost = (pn_op_cost){ .flops = (backward ? 27 : 11) * n, .bytes = (backward ? 7 : 5) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, heads, d;
        double eps, floor;
        bool frozen;
    } at[] = { { 1, 1, 2, 0, 1e-12, false },   { 3, 2, 5, 0, 1e-12, false },  { 3, 3, 4, 1e-6, 0, false },
               { 0, 2, 8, 0, 1e-12, false },   { 65, 4, 8, 0, 1e-12, false }, { 130, 3, 20, 1e-6, 0, true },
               { 300, 9, 64, 0, 1e-12, false } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    const int64_t C = at[i].heads * at[i].d;
    snprintf(out->name, sizeof out->name, "N%lld H%lld d%lld eps %g%s", (long long)at[i].n, (long long)at[i].heads,
             (long long)at[i].d, at[i].eps, at[i].frozen ? ", frozen" : "");
    out->n_in = 4;
    out->in[K] = out->in[A] = pn_case_matrix(at[i].n, C);
    out->in[A].fill = PN_FILL_UNIFORM;
    out->in[A].hi = 1;
    out->in[K_K] = out->in[K_A] = pn_case_vector(C);
    out->in[K_K].fill = out->in[K_A].fill = PN_FILL_ONES;
    out->in[K_K].hi = out->in[K_A].hi = 0.3;
    out->in[K_K].no_grad = out->in[K_A].no_grad = at[i].frozen;
    *(pn_rwkv_keys_attr *)out->attr =
        (pn_rwkv_keys_attr){ .head_dim = at[i].d, .eps = at[i].eps, .floor = at[i].floor };
    out->gradcheck = at[i].n <= 3;
    return true;
}

const pn_op_contract pn_rwkv_keys_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
