#include "infer.h"
#include "linear_kl.h"

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_linear_kl_attr *attr = c->attr;
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, 0, "h_s", real, PN_ANY, PN_ANY));
    int64_t N = c->in[0]->shape[0];
    PN_TRY(pn_need_matrix(c, 1, "W", real, PN_ANY, c->in[0]->shape[1]));
    PN_TRY(pn_need_matrix(c, 2, "h_t", real, N, PN_ANY));
    PN_TRY(pn_need_matrix(c, 3, "W_t", real, c->in[1]->shape[0], c->in[2]->shape[1]));
    if (c->in[4]) PN_TRY(pn_need_vector(c, 4, "weights", wide, N));
    PN_CHECK(attr->temperature > 0, PN_USAGE, "linear_kl: the temperature is %g; it must be positive",
             attr->temperature);
    *n_out = 4;
    out[0] = (pn_out_spec){ .dtype = wide, .rank = 1, .shape = { 1 } };
    out[1] = (pn_out_spec){ .dtype = wide, .rank = 1, .shape = { N }, .no_grad = true };
    out[2] = (pn_out_spec){ .dtype = wide, .rank = 2, .shape = { N, 2 }, .no_grad = true };
    out[3] = (pn_out_spec){ .dtype = PN_I32, .rank = 2, .shape = { N, 2 }, .no_grad = true };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    if (!c->wants[0] && !c->wants[1]) return 0;
    return PN_SAVE_IN(0) | PN_SAVE_IN(1) | PN_SAVE_IN(2) | PN_SAVE_IN(3) | (c->in[4] ? PN_SAVE_IN(4) : 0) |
           PN_SAVE_OUT(2);
}

/* Backward makes both logits again; useful are the products dh and dW alone. */
static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double N = (double)c->in[0]->shape[0], D = (double)c->in[0]->shape[1], D_t = (double)c->in[2]->shape[1];
    double V = (double)c->in[1]->shape[0], width = (double)pn_dtype_bytes(c->in[0]->dtype);
    double read = N * (D + D_t) + V * (c->in[1] == c->in[3] ? D : D + D_t);
    double width_used = backward ? (c->wants[0] + c->wants[1]) * D : D + D_t;
    double written = backward ? (c->wants[0] ? N * D : 0) + (c->wants[1] ? V * D : 0) : 4 * N;
    *cost = (pn_op_cost){ .flops = 2 * N * V * width_used + 6 * N * V, .bytes = width * (read + written) };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        const char *name;
        int64_t n, d, d_t, v;
        double tau, scale;
        bool weights, frozen;
    } at[] = {
        { "tiny", 3, 4, 4, 5, 1, 1, false, false },
        { "tiny weights", 4, 3, 2, 6, 2, 1, true, false },
        { "one row", 1, 20, 20, 384, 1, 1, false, false },
        { "no rows", 0, 20, 20, 384, 1, 1, true, false },
        { "weights", 65, 576, 60, 1003, 2, 0.1, true, false },
        { "frozen head", 65, 60, 60, 1003, 1, 0.5, false, true },
        { "large logits", 33, 60, 20, 1003, 0.5, 2, true, false },
        { "several column tiles", 33, 20, 20, 3001, 1, 1, false, false },
        { "several row tiles", 1100, 20, 20, 60, 4, 1, true, false },
        { "rows of eight", 600, 72, 136, 1003, 1.5, 0.3, true, false },
    };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "%s N%lld D%lld/%lld V%lld tau %g", at[i].name, (long long)at[i].n,
             (long long)at[i].d, (long long)at[i].d_t, (long long)at[i].v, at[i].tau);
    out->n_in = 5;
    out->in[0] = pn_case_matrix(at[i].n, at[i].d);
    out->in[1] = pn_case_weight(at[i].v, at[i].d);
    out->in[2] = pn_case_matrix(at[i].n, at[i].d_t);
    out->in[3] = pn_case_weight(at[i].v, at[i].d_t);
    out->in[1].hi = out->in[3].hi = at[i].scale;
    out->in[1].no_grad = at[i].frozen;
    out->in[2].no_grad = out->in[3].no_grad = true;
    if (at[i].weights) {
        out->in[4] = pn_case_vector(at[i].n);
        out->in[4].fill = PN_FILL_UNIFORM;
        out->in[4].hi = 2;
        out->in[4].no_grad = true;
    }
    *(pn_linear_kl_attr *)out->attr = (pn_linear_kl_attr){ .temperature = at[i].tau };
    out->gradcheck = at[i].d < 20;
    return true;
}

const pn_op_contract pn_linear_kl_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
