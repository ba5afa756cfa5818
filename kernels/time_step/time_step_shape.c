#include "infer.h"
#include "time_step.h"

enum { RAW, A_LOG, BIAS };
enum { DT, GATE };

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_time_step_attr *attr = c->attr;
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_TRY(pn_need_matrix(c, RAW, "a", real, PN_ANY, PN_ANY));
    PN_TRY(pn_need_vector(c, A_LOG, "A_log", wide, c->in[RAW]->shape[1]));
    PN_TRY(pn_need_vector(c, BIAS, "dt_bias", wide, c->in[RAW]->shape[1]));
    PN_CHECK(attr->min >= 0 && attr->min <= attr->max, PN_USAGE,
             "time_step: limits %g .. %g; they must be in order and not negative", attr->min, attr->max);
    *n_out = 2;
    for (int k = 0; k < 2; k++)
        out[k] = (pn_out_spec){ .dtype = wide, .rank = 2, .shape = { c->in[RAW]->shape[0], c->in[RAW]->shape[1] } };
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    uint32_t du = c->wants[RAW] || c->wants[BIAS] ? PN_SAVE_IN(RAW) | PN_SAVE_IN(A_LOG) | PN_SAVE_IN(BIAS) : 0;
    return du | (c->wants[A_LOG] ? PN_SAVE_OUT(GATE) : 0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    double n = (double)pn_tensor_elems(c->in[RAW]), width = (double)pn_dtype_bytes(c->in[RAW]->dtype);
    *cost = (pn_op_cost){ .flops = (backward ? 9 : 6) * n, .bytes = (backward ? 5 : 3) * n * width };
}

static bool case_at(int i, pn_op_case *out) {
    static const struct {
        int64_t n, h;
        double spread, min, max;
        bool frozen;
    } at[] = { { 1, 1, 1, 0, 1e30, false },     { 5, 3, 2, 0, 1e30, false },     { 5, 4, 4, 0.05, 0.5, false },
               { 0, 4, 1, 0, 1e30, false },     { 65, 6, 30, 0, 1e30, false },   { 65, 6, 30, 0.01, 8, false },
               { 1000, 12, 2, 0, 1e30, false }, { 1000, 20, 2, 0.02, 1, false }, { 300, 20, 2, 0, 1e30, true } };
    if (i >= (int)(sizeof at / sizeof *at)) return false;
    snprintf(out->name, sizeof out->name, "N%lld H%lld spread %g in %g .. %g%s", (long long)at[i].n, (long long)at[i].h,
             at[i].spread, at[i].min, at[i].max, at[i].frozen ? " frozen" : "");
    out->n_in = 3;
    out->in[RAW] = pn_case_matrix(at[i].n, at[i].h);
    out->in[RAW].hi = at[i].spread;
    out->in[A_LOG] = pn_case_vector(at[i].h); /* A in 1 .. 16 */
    out->in[A_LOG].fill = PN_FILL_UNIFORM;
    out->in[A_LOG].hi = 2.77;
    out->in[BIAS] = pn_case_vector(at[i].h); /* dt in 0.001 .. 0.1 */
    out->in[BIAS].fill = PN_FILL_UNIFORM;
    out->in[BIAS].lo = -6.9, out->in[BIAS].hi = -2.25;
    out->in[A_LOG].no_grad = out->in[BIAS].no_grad = at[i].frozen;
    *(pn_time_step_attr *)out->attr = (pn_time_step_attr){ .min = at[i].min, .max = at[i].max };
    out->gradcheck = at[i].n <= 5;
    return true;
}

const pn_op_contract pn_time_step_contract = { .infer = infer, .saves = saves, .cost = cost, .case_at = case_at };
