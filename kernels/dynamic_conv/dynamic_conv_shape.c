#include "dynamic_conv.h"
#include "infer.h"

#include <string.h>

enum { VALUES, HIDDEN, W2, B2, STATE };

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_dynamic_conv_attr *a = c->attr;
    const pn_tensor *state = c->in[STATE];
    pn_dtype real = c->dtype, wide = pn_wide_dtype(real);
    PN_CHECK(a->width >= 1, PN_USAGE, "dynamic_conv: width %d, it must be at least 1", a->width);
    PN_TRY(pn_need_matrix(c, VALUES, "c", real, PN_ANY, PN_ANY));
    int64_t tokens = c->in[VALUES]->shape[0], channels = c->in[VALUES]->shape[1];
    PN_TRY(pn_need_matrix(c, HIDDEN, "h", real, tokens, PN_ANY));
    PN_CHECK(channels >= 1 && c->in[HIDDEN]->shape[1] >= 1, PN_USAGE,
             "dynamic_conv: shapes %s of c and %s of h are empty", pn_tensor_shape_text(c->in[VALUES]),
             pn_tensor_shape_text(c->in[HIDDEN]));
    PN_TRY(pn_need_matrix(c, W2, "w2", real, channels * a->width, c->in[HIDDEN]->shape[1]));
    PN_TRY(pn_need_vector(c, B2, "b2", wide, channels * a->width));
    PN_TRY(pn_docs_check(&a->docs, tokens, "dynamic_conv"));
    PN_CHECK(!state || (state->rank == 3 && state->shape[0] == a->docs.n && state->shape[1] == channels &&
                        state->shape[2] == a->width),
             PN_USAGE, "dynamic_conv: state has shape %s, it needs [%lld, %lld, %d]", pn_tensor_shape_text(state),
             (long long)a->docs.n, (long long)channels, a->width);
    *n_out = 2;
    out[0].rank = 2;
    out[0].shape[0] = tokens;
    out[0].shape[1] = channels;
    out[1].rank = 3;
    out[1].shape[0] = a->docs.n;
    out[1].shape[1] = channels;
    out[1].shape[2] = a->width;
    out[1].no_grad = true;
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    return PN_SAVE_IN(VALUES) | PN_SAVE_IN(HIDDEN) | PN_SAVE_IN(W2) | PN_SAVE_IN(B2) |
           (c->in[STATE] ? PN_SAVE_IN(STATE) : 0);
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    const pn_dynamic_conv_attr *a = c->attr;
    double tokens = (double)c->in[VALUES]->shape[0], v = (double)c->in[VALUES]->shape[1], w = a->width;
    double r = (double)c->in[HIDDEN]->shape[1], state = (double)a->docs.n * v * w * (c->in[STATE] ? 2 : 1);
    double rows = tokens * (2 * v + r), matrix = v * w * (r + 1);
    double width = (double)pn_dtype_bytes(c->in[VALUES]->dtype);
    /* Backward: dw2 and dh, the gradients of taps and values; taps made again are not counted. */
    *cost = (pn_op_cost){ .flops = (backward ? 2 : 1) * tokens * (2 * v * w * r + v * w + 2 * v * w),
                          .bytes = width * ((backward ? 2 : 1) * (rows + matrix) + state) };
}

static bool case_at(int i, pn_op_case *out) {
    static const int64_t one[] = { 0, 1 }, tiny[] = { 0, 3, 3, 5, 10 }, mixed[] = { 0, 1, 4, 71, 71, 142, 144 };
    static const int64_t borders[] = { 0, 126, 129, 257, 300 }, steps[] = { 0, 1, 2, 3 }, long_one[] = { 0, 600 };
    static const int64_t many[] = { 0, 700, 701, 2500 };
    static const struct {
        const char *name;
        pn_dynamic_conv_attr attr;
        int64_t channels, rank;
        bool state, gradcheck, frozen; /* frozen: no gradient of the state */
    } cases[] = {
        { "one token", { { 1, one, NULL, 0 }, 4 }, 3, 2, false, true, false },
        { "tiny", { { 4, tiny, NULL, 0 }, 4 }, 2, 3, false, true, false },
        { "tiny, state", { { 4, tiny, NULL, 0 }, 4 }, 3, 2, true, true, false },
        { "tiny, state, W 3", { { 4, tiny, NULL, 0 }, 3 }, 2, 2, true, true, false },
        { "mixed", { { 6, mixed, NULL, 0 }, 4 }, 96, 12, false, false, false },
        { "mixed, state", { { 6, mixed, NULL, 0 }, 4 }, 136, 17, true, false, false },
        { "mixed, state, W 6", { { 6, mixed, NULL, 0 }, 6 }, 33, 5, true, false, false },
        { "mixed, W 1", { { 6, mixed, NULL, 0 }, 1 }, 17, 3, true, false, false },
        { "borders next to tile borders", { { 4, borders, NULL, 0 }, 4 }, 64, 8, false, false, false },
        { "600 tokens, several blocks to a share", { { 1, long_one, NULL, 0 }, 4 }, 300, 10, false, false, false },
        { "several groups of blocks", { { 4, tiny, NULL, 0 }, 4 }, 40, 600, true, false, false },
        { "three steps", { { 3, steps, NULL, 0 }, 4 }, 200, 25, true, false, false },
        { "one step", { { 1, one, NULL, 0 }, 4 }, 200, 25, true, false, false },
        { "whole vectors", { { 6, mixed, NULL, 0 }, 4 }, 104, 24, true, false, false },
        { "whole vectors, frozen state", { { 6, mixed, NULL, 0 }, 4 }, 104, 136, true, false, true },
        { "whole vectors, long rows of w2", { { 4, borders, NULL, 0 }, 4 }, 40, 520, false, false, false },
        { "whole vectors, JetBlock's rank", { { 4, borders, NULL, 0 }, 4 }, 104, 384, false, false, false },
        { "whole vectors, several tiles to a share", { { 3, many, NULL, 0 }, 4 }, 120, 72, false, false, false },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    const pn_dynamic_conv_attr *a = &cases[i].attr;
    int64_t tokens = pn_docs_tokens(&a->docs), channels = cases[i].channels, rank = cases[i].rank;
    snprintf(out->name, sizeof out->name, "%s", cases[i].name);
    memcpy(out->attr, a, sizeof *a);
    out->n_in = 5;
    out->in[VALUES] = pn_case_matrix(tokens, channels);
    out->in[HIDDEN] = pn_case_matrix(tokens, rank);
    out->in[W2] = pn_case_weight(channels * a->width, rank);
    out->in[W2].hi = 0.3;
    out->in[B2] = pn_case_vector(channels * a->width);
    out->in[B2].hi = 0.5;
    out->in[STATE] = (pn_case_input){
        .present = cases[i].state, .no_grad = cases[i].frozen, .rank = 3, .shape = { a->docs.n, channels, a->width }
    };
    out->gradcheck = cases[i].gradcheck;
    out->kind = 1 + 2 * cases[i].state + (a->docs.n > 1);
    return true;
}

const pn_op_contract pn_dynamic_conv_contract = {
    .infer = infer, .saves = saves, .cost = cost, .case_at = case_at, .again = PN_AGAIN_CORE
};
