#include "causal_conv.h"

#include <string.h>

enum { X, TAPS, BIAS, STATE };

static pn_status infer(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]) {
    const pn_causal_conv_attr *a = c->attr;
    const pn_tensor *x = c->in[X], *w = c->in[TAPS], *bias = c->in[BIAS], *state = c->in[STATE];
    PN_CHECK(a->width >= 1, PN_USAGE, "causal_conv: width %d, it must be at least 1", a->width);
    PN_CHECK(x->rank == 2, PN_USAGE, "causal_conv: x has shape %s, it needs [tokens, channels]",
             pn_tensor_shape_text(x));
    int64_t channels = x->shape[1];
    PN_CHECK(w->rank == 3 && w->shape[0] == channels && w->shape[1] == 1 && w->shape[2] == a->width, PN_USAGE,
             "causal_conv: w has shape %s, it needs [%lld, 1, %d]", pn_tensor_shape_text(w), (long long)channels,
             a->width);
    PN_CHECK(!bias || (bias->rank == 1 && bias->shape[0] == channels), PN_USAGE,
             "causal_conv: bias has shape %s, it needs [%lld]", pn_tensor_shape_text(bias), (long long)channels);
    PN_TRY(pn_docs_check(&a->docs, x->shape[0], "causal_conv"));
    PN_CHECK(!state || (state->rank == 3 && state->shape[0] == a->docs.n && state->shape[1] == channels &&
                        state->shape[2] == a->width),
             PN_USAGE, "causal_conv: state has shape %s, it needs [%lld, %lld, %d]", pn_tensor_shape_text(state),
             (long long)a->docs.n, (long long)channels, a->width);
    *n_out = 2;
    out[0].rank = 2;
    memcpy(out[0].shape, x->shape, sizeof x->shape);
    out[1].rank = 3;
    out[1].shape[0] = a->docs.n;
    out[1].shape[1] = channels;
    out[1].shape[2] = a->width;
    out[1].no_grad = true;
    return PN_OK;
}

static uint32_t saves(const pn_op_call *c) {
    const pn_causal_conv_attr *a = c->attr;
    /* silu' needs the convolution again; without silu only the products with taps and with inputs remain. */
    uint32_t bits = 0;
    if (a->silu || c->wants[TAPS]) bits |= PN_SAVE_IN(X) | (c->in[STATE] ? PN_SAVE_IN(STATE) : 0);
    if (a->silu || c->wants[X] || c->wants[STATE]) bits |= PN_SAVE_IN(TAPS);
    if (a->silu && c->in[BIAS]) bits |= PN_SAVE_IN(BIAS);
    return bits;
}

static void cost(const pn_op_call *c, bool backward, pn_op_cost *cost) {
    const pn_causal_conv_attr *a = c->attr;
    double n = (double)pn_tensor_elems(c->in[X]), width = (double)pn_dtype_bytes(c->in[X]->dtype);
    double state = (double)a->docs.n * (double)c->in[X]->shape[1] * a->width;
    *cost = (pn_op_cost){ .flops = (backward ? 4 : 2) * n * a->width,
                          .bytes = width * ((backward ? 4 : 2) * n + (c->in[STATE] ? 2 : 1) * state) };
}

static bool case_at(int i, pn_op_case *out) {
    static const int64_t one[] = { 0, 1 }, tiny[] = { 0, 3, 3, 5, 10 }, mixed[] = { 0, 1, 4, 71, 71, 142, 144 };
    static const int64_t long_one[] = { 0, 600 }, steps[] = { 0, 1, 2, 3 }, borders[] = { 0, 126, 129, 257, 300 };
    static const struct {
        const char *name;
        pn_causal_conv_attr attr;
        int64_t channels;
        bool bias, state, gradcheck;
    } cases[] = {
        { "one token", { { 1, one, NULL, 0 }, 4, true }, 3, false, false, true },
        { "tiny, silu, bias, state", { { 4, tiny, NULL, 0 }, 4, true }, 3, true, true, true },
        { "tiny, plain", { { 4, tiny, NULL, 0 }, 4, false }, 2, false, false, true },
        { "tiny, plain, state, W 3", { { 4, tiny, NULL, 0 }, 3, false }, 2, true, true, true },
        { "mixed, silu", { { 6, mixed, NULL, 0 }, 4, true }, 96, false, false, false },
        { "mixed, silu, bias, state", { { 6, mixed, NULL, 0 }, 4, true }, 200, true, true, false },
        { "mixed, plain, bias, W 2", { { 6, mixed, NULL, 0 }, 2, false }, 33, true, false, false },
        { "mixed, W 1", { { 6, mixed, NULL, 0 }, 1, true }, 17, false, true, false },
        { "mixed, state, W 7", { { 6, mixed, NULL, 0 }, 7, true }, 65, true, true, false },
        { "600 tokens", { { 1, long_one, NULL, 0 }, 4, true }, 130, true, false, false },
        { "borders next to run borders", { { 4, borders, NULL, 0 }, 4, true }, 33, true, true, false },
        { "borders next to run borders, W 7", { { 4, borders, NULL, 0 }, 7, false }, 17, false, true, false },
        { "three steps", { { 3, steps, NULL, 0 }, 4, true }, 300, false, true, false },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    const pn_causal_conv_attr *a = &cases[i].attr;
    int64_t channels = cases[i].channels;
    snprintf(out->name, sizeof out->name, "%s", cases[i].name);
    memcpy(out->attr, a, sizeof *a);
    out->n_in = 4;
    out->in[X] = (pn_case_input){ .present = true, .rank = 2, .shape = { pn_docs_tokens(&a->docs), channels } };
    out->in[TAPS] =
        (pn_case_input){ .present = true, .rank = 3, .shape = { channels, 1, a->width }, .hi = 0.5, .weight = true };
    out->in[BIAS] = (pn_case_input){ .present = cases[i].bias, .rank = 1, .shape = { channels }, .wide = true };
    out->in[STATE] =
        (pn_case_input){ .present = cases[i].state, .rank = 3, .shape = { a->docs.n, channels, a->width } };
    out->gradcheck = cases[i].gradcheck;
    out->kind = 1 + 2 * cases[i].state + (a->docs.n > 1);
    return true;
}

const pn_op_contract pn_causal_conv_contract = {
    .infer = infer, .saves = saves, .cost = cost, .case_at = case_at, .again = PN_AGAIN_CORE
};
