/* Costs of a block from its shapes, against formulas by hand (blocks.md, "Cost, state, decode" of each block). */
#include "harness.h"

#include "block_cost.h"

static const pn_dims dims = { .hidden = 96,
                              .heads = 6,
                              .kv_heads = 2,
                              .head_dim = 16,
                              .intermediate = 256,
                              .rope_theta = 1e4,
                              .rms_norm_eps = 1e-6,
                              .qkv_bias = true };

static pn_block_spec spec_of(const pn_block_type *type, const char *option, const char *value) {
    pn_block_spec spec;
    ck_ok(pn_block_spec_default(type, &spec));
    if (option) ck_ok(pn_option_parse(pn_option_find(type->options, option), "test", value, 0, spec.options));
    return spec;
}

static pn_block_cost cost_of(const pn_block_spec *spec, int64_t context) {
    pn_block_cost cost;
    ck_ok(pn_block_spec_cost(spec, &dims, context, 2, &cost));
    return cost;
}

/* blocks.md 3.5, with the biases and the rotation (3 per channel) that it leaves out. */
static double attention_flops(double keys) {
    const double D = 96, Q = 96, K = 32;
    return 2 * (2 * Q * D + 2 * K * D) + (Q + 2 * K) + 3 * (Q + K) + 4 * Q * keys;
}

START_TEST(attention_as_by_hand) {
    const pn_block_spec full = spec_of(&pn_block_attention, NULL, NULL),
                        swa = spec_of(&pn_block_swa, "window_size", "100");
    const pn_block_cost at = cost_of(&full, 4096), windowed = cost_of(&swa, 4096);
    ck_assert_double_eq(at.parameters, 2 * 96 * 96 + 2 * 32 * 96 + 96 + 2 * 32);
    ck_assert_double_eq(at.token_flops, attention_flops(4096));
    ck_assert_double_eq(at.prompt_flops, 4096 * attention_flops((1 + 4096) / 2.0));
    ck_assert_double_eq(at.state_bytes, 2 * 2 * 16 * 2 * 4096.0);
    ck_assert_double_eq(cost_of(&full, 1).token_flops, attention_flops(1));
    ck_assert_double_eq(windowed.parameters, at.parameters);
    ck_assert_double_eq(windowed.token_flops, attention_flops(100));
    ck_assert_double_eq(windowed.state_bytes, 2 * 2 * 16 * 2 * 100.0);
    ck_assert_double_eq(cost_of(&full, 1 << 20).token_flops, attention_flops(1 << 20));
}
END_TEST

/* blocks.md 8.5: 7 dk dv per head in the core; the rest as the ops count it (their headers). */
START_TEST(gated_deltanet_as_by_hand) {
    const pn_block_spec spec = spec_of(&pn_block_gated_deltanet, "expand_v", "1.5");
    const double D = 96, H = 6, dk = 16, dv = 24, K = H * dk, V = H * dv;
    const double projections = 2 * D * (2 * K + V) + 2 * D * V + 2 * D * V + 2 * 2 * D * H;
    const double around = 2 * 4 * (2 * K + V) /* convolutions */ + 3 * 2 * K /* unit length */ + 4 * H /* beta */ +
                          6 * H /* decay */ + 9 * V /* gated norm */;
    for (int64_t context = 1; context <= 65536; context *= 256) {
        const pn_block_cost at = cost_of(&spec, context);
        ck_assert_double_eq(at.token_flops, projections + around + 7 * H * dk * dv);
        ck_assert_double_eq(at.prompt_flops, (double)context * at.token_flops);
        ck_assert_double_eq(at.state_bytes, 4 * H * dk * dv + 2 * 4 * (2 * K + V));
    }
}
END_TEST

START_TEST(mlp_and_none_as_by_hand) {
    const pn_block_spec mlp = spec_of(&pn_block_mlp, NULL, NULL), none = spec_of(&pn_block_none, NULL, NULL);
    const pn_block_cost at = cost_of(&mlp, 7), nothing = cost_of(&none, 7);
    ck_assert_double_eq(at.parameters, 3 * 96 * 256);
    ck_assert_double_eq(at.token_flops, 3 * 2 * 96 * 256 + 5 * 256);
    ck_assert_double_eq(at.prompt_flops, 7 * at.token_flops);
    ck_assert_double_eq(at.state_bytes, 0);
    ck_assert(!nothing.parameters && !nothing.token_flops && !nothing.prompt_flops && !nothing.state_bytes);
}
END_TEST

/* What a tape that runs the block counts, in every registered block. */
START_TEST(passes_cost_what_a_tape_counts) {
    enum { TOKENS = 70 };
    const int64_t offset[] = { 0, TOKENS }, shape[] = { TOKENS, 96 };
    const pn_docs docs = { .n = 1, .offset = offset };
    int n;
    const pn_block_type *const *types = pn_block_types(&n);
    for (int i = 0; i < 2 * n; i++) {
        const bool window = types[i / 2] == &pn_block_swa;
        const pn_block_spec spec = spec_of(types[i / 2], window ? "window_size" : NULL, "16");
        const bool backward = i % 2;
        pn_params *params;
        pn_block *block;
        pn_tape *tape;
        pn_tensor *x, *dy, *y;
        pn_carry carry = { 0 };
        pn_op_cost planned;
        ck_ok(pn_params_create(PN_F32, &params));
        ck_ok(pn_block_create(&spec, &dims, params, "", &block));
        pn_params_init(params, 1);
        pn_params_train(params, "*", backward);
        ck_ok(pn_tape_create(PN_CPU, &tape));
        ck_ok(pn_tape_new(tape, PN_F32, 2, shape, &x));
        ck_ok(pn_tape_new(tape, PN_F32, 2, shape, &dy));
        for (int64_t k = 0; k < pn_tensor_elems(x); k++) pn_f32(x)[k] = pn_f32(dy)[k] = (float)(k % 7) / 7 - 0.4f;
        x->wants_grad = backward;
        ck_ok(pn_block_forward(block, tape, x, &docs, &carry, &y));
        if (backward && y->wants_grad) ck_ok(pn_tape_backward_from(tape, &y, &dy, 1));
        ck_ok(pn_block_spec_pass_cost(&spec, &dims, &docs, backward, &planned));
        ck_assert_double_eq(planned.flops, pn_tape_cost(tape).flops);
        ck_assert_double_eq(planned.bytes, pn_tape_cost(tape).bytes);
        ck_assert(planned.flops > 0 || types[i / 2] == &pn_block_none);
        pn_tape_destroy(&tape);
        pn_block_destroy(&block);
        pn_params_destroy(&params);
    }
}
END_TEST

START_TEST(options_that_do_not_fit_are_refused) {
    const pn_block_spec spec = spec_of(&pn_block_gated_deltanet, "expand_v", "1.01");
    pn_block_cost cost;
    ck_assert_int_eq(pn_block_spec_cost(&spec, &dims, 16, 2, &cost), PN_USAGE);
}
END_TEST

TEST_MAIN("block cost", attention_as_by_hand, gated_deltanet_as_by_hand, mlp_and_none_as_by_hand,
          passes_cost_what_a_tape_counts, options_that_do_not_fit_are_refused)
