#include "infer.h"
#include "linear_cross_entropy.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, 0, "h", real, PN_ANY, PN_ANY));
    PN_TRY(pn_need_matrix(c, 1, "W", real, PN_ANY, c->in[0]->shape[1]));
    int64_t N = c->in[0]->shape[0];
    PN_TRY(pn_need_vector(c, 2, "targets", PN_I32, N));
    if (c->in[3]) PN_TRY(pn_need_vector(c, 3, "weights", wide, N));
    *n_out = 3;
    out[0] = (pn_out_spec){ .dtype = wide, .rank = 1, .shape = { 1 } };
    out[1] = (pn_out_spec){ .dtype = wide, .rank = 1, .shape = { N }, .no_grad = true };
    out[2] = (pn_out_spec){ .dtype = wide, .rank = 1, .shape = { N }, .no_grad = true };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    return PN_SAVE_IN(0) | PN_SAVE_IN(1) | PN_SAVE_IN(2) | (c->in[3] ? PN_SAVE_IN(3) : 0) | PN_SAVE_OUT(2);
}

/* Backward's second making of the logits is not useful work: 2 N V D each for dh and dW is. */
static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double N = (double)c->in[0]->shape[0], D = (double)c->in[0]->shape[1], V = (double)c->in[1]->shape[0];
    double width = (double)pn_dtype_bytes(c->in[0]->dtype), read = N * D + V * D;
    int products = backward ? c->wants[0] + c->wants[1] : 1;
    double written = backward ? (c->wants[0] ? N * D : 0) + (c->wants[1] ? V * D : 0) : 2 * N;
    *cost = (pn_op_cost){ .flops = products * 2 * N * D * V + 3 * N * V, .bytes = width * (read + written) };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        const char *name;
        int64_t n, d, v, target_lo, target_hi;
        double scale;
        bool weights, frozen;
    } at[] = {
        { "tiny", 3, 4, 5, 0, 5, 1, false, false },
        { "tiny ignored weights", 6, 3, 4, -1, 2, 1, true, false },
        { "one row", 1, 20, 384, 0, 384, 1, false, false },
        { "no rows", 0, 20, 384, 0, 384, 1, false, false },
        { "all ignored", 65, 20, 384, -1, 0, 1, true, false },
        { "half ignored", 300, 60, 384, -1, 1, 0.5, false, false },
        { "weights", 65, 576, 1003, 0, 1003, 0.1, true, false },
        { "frozen head", 65, 60, 1003, 0, 1003, 1, false, true },
        { "large logits", 65, 60, 1003, 0, 1003, 4, true, false },
        { "several column tiles", 33, 20, 3001, -1, 3001, 1, true, false },
        { "several row tiles", 1100, 20, 60, -1, 60, 1, true, false },
        { "rows of eight", 600, 72, 3001, -1, 3001, 0.3, true, false },
    };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%s N%lld D%lld V%lld", at[i].name, (long long)at[i].n, (long long)at[i].d,
             (long long)at[i].v);
    out->n_in = 4;
    out->in[0] = pn_case_matrix(at[i].n, at[i].d);
    out->in[1] = pn_case_weight(at[i].v, at[i].d);
    out->in[1].hi = at[i].scale;
    out->in[1].no_grad = at[i].frozen;
    out->in[2] = pn_case_ids(at[i].n, at[i].target_lo, at[i].target_hi);
    if (at[i].weights) {
        out->in[3] = pn_case_vector(at[i].n);
        out->in[3].fill = PN_FILL_UNIFORM;
        out->in[3].hi = 2;
        out->in[3].no_grad = true;
    }
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_linear_cross_entropy_contract = {
    .infer = infer, .saves = saves, .cost = cost, .case_at = case_at
};
