#include <math.h>

#include "infer.h"
#include "linear_kl_topk.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_linear_kl_topk_attr *attr = c->attr;
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, 0, "h", real, PN_ANY, PN_ANY));
    int64_t N = c->in[0]->shape[0];
    PN_TRY(pn_need_matrix(c, 1, "W", real, PN_ANY, c->in[0]->shape[1]));
    PN_TRY(pn_need_matrix(c, 2, "ids", PN_I32, N, PN_ANY));
    int64_t V = c->in[1]->shape[0], k = c->in[2]->shape[1];
    PN_CHECK(k >= 1 && k <= V, PN_USAGE, "linear_kl_topk: %lld words of each token are listed; there must be 1 to %lld",
             (long long)k, (long long)V);
    PN_TRY(pn_need_matrix(c, 3, "log_p", wide, N, k));
    if (c->in[4]) PN_TRY(pn_need_vector(c, 4, "weights", wide, N));
    PN_CHECK(attr->temperature > 0, PN_USAGE, "linear_kl_topk: the temperature is %g; it must be positive",
             attr->temperature);
    *n_out = 4;
    out[0] = (pn_out_spec){ .dtype = wide, .rank = 1, .shape = { 1 } };
    out[1] = (pn_out_spec){ .dtype = wide, .rank = 1, .shape = { N }, .no_grad = true };
    out[2] = (pn_out_spec){ .dtype = wide, .rank = 2, .shape = { N, k }, .no_grad = true };
    out[3] = (pn_out_spec){ .dtype = wide, .rank = 2, .shape = { N, PN_TOPK_SUMS }, .no_grad = true };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    if (!c->wants[0] && !c->wants[1]) return 0;
    return PN_SAVE_IN(0) | PN_SAVE_IN(1) | PN_SAVE_IN(2) | PN_SAVE_IN(3) | (c->in[4] ? PN_SAVE_IN(4) : 0) |
           PN_SAVE_OUT(2) | PN_SAVE_OUT(3);
}

/* Backward makes the logits again; useful are the products dh and dW alone. */
static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double N = (double)c->in[0]->shape[0], D = (double)c->in[0]->shape[1], V = (double)c->in[1]->shape[0];
    double width = (double)pn_dtype_bytes(c->in[0]->dtype), k = (double)c->in[2]->shape[1];
    int products = backward ? c->wants[0] + c->wants[1] : 1;
    double written = backward ? (c->wants[0] ? N * D : 0) + (c->wants[1] ? V * D : 0) : 0;
    *cost = (pn_op_cost){ .flops = products * 2 * N * D * V + 4 * N * V,
                          .bytes = width * (N * D + V * D + written) + 12 * N * k };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        const char *name;
        int64_t n, d, v, k;
        double tau, scale;
        bool weights, frozen;
    } at[] = {
        { "tiny", 3, 4, 5, 2, 1, 1, false, false },
        { "tiny weights", 4, 3, 6, 5, 2, 1, true, false },
        { "tiny all words", 4, 3, 6, 6, 2, 1, true, false },
        { "one row", 1, 20, 384, 16, 1, 1, false, false },
        { "no rows", 0, 20, 384, 16, 1, 1, true, false },
        { "weights", 65, 576, 1003, 7, 2, 0.1, true, false },
        { "frozen head", 65, 60, 1003, 1, 1, 0.5, false, true },
        { "large logits", 33, 60, 1003, 64, 0.5, 2, true, false },
        { "several column tiles", 33, 20, 9001, 64, 1, 1, false, false },
        { "several row tiles", 1100, 20, 60, 8, 4, 1, true, false },
        { "rows of eight", 600, 72, 1003, 33, 1.5, 0.3, true, false },
        { "many words", 600, 72, 6007, 2000, 1, 0.3, false, false },
        { "all words", 600, 72, 1003, 1003, 1.5, 0.3, true, false },
    };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    const double k = (double)at[i].k;
    snprintf(out->name, sizeof out->name, "%s N%lld D%lld V%lld k%lld tau %g", at[i].name, (long long)at[i].n,
             (long long)at[i].d, (long long)at[i].v, (long long)at[i].k, at[i].tau);
    out->n_in = 5;
    out->in[0] = pn_case_matrix(at[i].n, at[i].d);
    out->in[1] = pn_case_weight(at[i].v, at[i].d);
    out->in[1].hi = at[i].scale;
    out->in[1].no_grad = at[i].frozen;
    out->in[2] = pn_case_ascending(at[i].n, at[i].k, at[i].v);
    out->in[3] = pn_case_matrix(at[i].n, at[i].k);
    out->in[3].wide = out->in[3].no_grad = true;
    out->in[3].fill = PN_FILL_UNIFORM; /* in all a probability of 0.3 or so, which leaves a tail */
    out->in[3].lo = log(0.05 / k), out->in[3].hi = log(1 / k);
    if (at[i].weights) {
        out->in[4] = pn_case_vector(at[i].n);
        out->in[4].fill = PN_FILL_UNIFORM;
        out->in[4].hi = 2;
        out->in[4].no_grad = true;
    }
    *(pn_linear_kl_topk_attr *)out->attr = (pn_linear_kl_topk_attr){ .temperature = at[i].tau };
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_linear_kl_topk_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
