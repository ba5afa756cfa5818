/* Sliding windows: the sizes of the published models, and a state that stays as large as the window. */
#include <string.h>

#include "block_option.h"
#include "swa.h"
#include "tape.h"

static pn_block_spec jet(const char *head_dim, const char *expand_v) {
    pn_block_spec spec;
    ck_ok(pn_block_spec_default(&pn_block_jet, &spec));
    set_option(&spec, "head_dim", head_dim);
    set_option(&spec, "expand_v", expand_v);
    return spec;
}

static int64_t window_of(const pn_block_spec *spec) {
    pn_buf b = { 0 };
    pn_option_text(spec->type->options, spec->options, &b);
    int64_t n = strtoll(pn_buf_string(&b), NULL, 10);
    pn_buf_free(&b);
    return n;
}

/* blocks.md 2.4: the windows of Jet-Nemotron-2B and -4B, and the bytes of the state that they match. */
START_TEST(auto_is_the_window_of_the_published_models) {
    static const struct {
        int64_t hidden, heads;
        const char *dk, *expand_v;
        double bytes;
        int64_t window;
    } models[] = { { 1536, 12, "96", "2.6666666667", 1179648, 1152 }, { 2048, 16, "128", "2", 2097152, 2048 } };
    for (int i = 0; i < 2; i++) {
        const pn_dims dims = { .hidden = models[i].hidden,
                               .heads = models[i].heads,
                               .kv_heads = 2,
                               .head_dim = 128,
                               .intermediate = 8960,
                               .rope_theta = 1e6,
                               .rms_norm_eps = 1e-6,
                               .qkv_bias = true };
        double bytes;
        pn_block_spec blocks[2] = { [1] = jet(models[i].dk, models[i].expand_v) };
        ck_ok(pn_block_spec_default(&pn_block_swa, &blocks[0]));
        ck_ok(pn_block_spec_cache_bytes(&blocks[1], &dims, 4096, 0, &bytes));
        ck_assert_double_eq(bytes, models[i].bytes);
        pn_block_spec spec = blocks[0];
        ck_ok(pn_swa_settle(&spec, blocks, 2, &dims));
        ck_assert_int_eq(window_of(&spec), models[i].window);
        ck_ok(pn_block_spec_cache_bytes(&spec, &dims, 1 << 20, 2, &bytes));
        ck_assert_double_eq(bytes, models[i].bytes);
        /* a number stays, and so does a block of another type */
        pn_block_spec kept = spec, other = blocks[1];
        ck_ok(pn_swa_settle(&kept, blocks, 2, &dims));
        ck_ok(pn_swa_settle(&other, blocks, 2, &dims));
        ck_assert(pn_block_spec_equal(&kept, &spec) && pn_block_spec_equal(&other, &blocks[1]));
    }
}
END_TEST

static const pn_dims tiny = {
    .hidden = 20, .heads = 2, .kv_heads = 1, .head_dim = 6, .intermediate = 24, .rope_theta = 1e4, .rms_norm_eps = 1e-6
};

START_TEST(auto_without_a_measure_is_refused) {
    pn_block_spec blocks[3], none;
    pn_params *params;
    pn_block *b = NULL;
    int64_t window;
    double bytes;
    ck_ok(pn_block_spec_default(&pn_block_swa, &blocks[0]));
    ck_ok(pn_block_spec_default(&pn_block_attention, &blocks[1]));
    ck_ok(pn_block_spec_default(&pn_block_none, &blocks[2]));
    none = blocks[0];
    ck_assert_int_eq(pn_swa_settle(&none, blocks, 3, &tiny), PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "no linear block whose state it could match; write a number"));
    ck_ok(pn_params_create(PN_F32, &params));
    ck_assert_int_eq(pn_block_create(&blocks[0], &tiny, params, "", &b), PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "only beside a linear block; write a number"));
    ck_assert_ptr_null(b);
    ck_assert_int_eq(pn_block_spec_cache_bytes(&blocks[0], &tiny, 1, 2, &bytes), PN_USAGE);
    /* 2 * 6 values of two bytes are a key and its value */
    ck_ok(pn_swa_auto_window(&tiny, 24, 2, &window));
    ck_assert_int_eq(window, 1);
    ck_ok(pn_swa_auto_window(&tiny, 71, 2, &window));
    ck_assert_int_eq(window, 2);
    ck_assert_int_eq(pn_swa_auto_window(&tiny, 23, 2, &window), PN_USAGE);
    ck_assert_int_eq(pn_swa_auto_window(&tiny, 1e30, 2, &window), PN_USAGE);
    pn_params_destroy(&params);
}
END_TEST

/* Memory of the state after each of many tokens: at most `window` rows, however they come. */
START_TEST(the_state_is_bounded_by_the_window) {
    static const int64_t windows[] = { 1, 5, 64, 100 }, pieces[] = { 1, 2, 3, 5, 64, 130 };
    for (size_t w = 0; w < 4; w++)
        for (size_t p = 0; p < 6; p++) {
            pn_block_spec spec;
            pn_params *params;
            pn_block *b;
            pn_tape *t;
            pn_state *state;
            char text[16];
            ck_ok(pn_block_spec_default(&pn_block_swa, &spec));
            snprintf(text, sizeof text, "%d", (int)windows[w]);
            set_option(&spec, "window_size", text);
            ck_ok(pn_params_create(PN_F32, &params));
            ck_ok(pn_block_create(&spec, &tiny, params, "", &b));
            ck_ok(pn_tape_create(PN_CPU, &t));
            pn_tape_record(t, false);
            ck_ok(pn_state_create(b, 2, pn_tape_pool(t), PN_F32, &state));
            for (int64_t done = 0; done < 300; done += pieces[p]) {
                const int64_t offset[] = { 0, pieces[p], 2 * pieces[p] };
                pn_tensor *x, *y;
                pn_carry carry = { 0 };
                ck_ok(pn_tape_new(t, PN_F32, 2, (int64_t[]){ 2 * pieces[p], tiny.hidden }, &x));
                for (int64_t i = 0; i < pn_tensor_elems(x); i++) pn_f32(x)[i] = (float)(i % 7);
                ck_ok(pn_block_extend(b, t, x, &(pn_docs){ .n = 2, .offset = offset }, state, &carry, &y));
                pn_tape_reset(t);
                for (int i = 0; i < state->n_tensors; i++)
                    ck_assert_int_le((int64_t)pn_tensor_bytes(state->tensor[i]), 2 * windows[w] * 6 * 4);
            }
            pn_state_destroy(&state);
            pn_tape_destroy(&t);
            pn_block_destroy(&b);
            pn_params_destroy(&params);
        }
}
END_TEST

TEST_MAIN("sliding windows", auto_is_the_window_of_the_published_models, auto_without_a_measure_is_refused,
          the_state_is_bounded_by_the_window)
