/* Linear blocks against each other, where one is a case of another, and their sizes against blocks.md 12. */
#include <math.h>
#include <string.h>

#include "block_option.h"
#include "rng.h"
#include "tape.h"

typedef struct setting {
    const char *option, *value;
} setting;
enum { SETTINGS = 6 };

static pn_block_spec spec_of(const pn_block_type *type, const setting *set) {
    pn_block_spec spec;
    ck_ok(pn_block_spec_default(type, &spec));
    for (int i = 0; i < SETTINGS && set[i].option; i++) set_option(&spec, set[i].option, set[i].value);
    return spec;
}

START_TEST(sizes_of_the_specification) {
    static const struct {
        const pn_block_type *type;
        setting set[SETTINGS];
        int64_t parameters;
        double state, windows; /* bytes: F32; bf16 */
    } at[] = {
        { &pn_block_retnet, { { "num_heads", "8" } }, 18874752, 2359296, 0 },
        { &pn_block_gla, { { "num_heads", "4" } }, 9475200, 1179648, 0 },
        { &pn_block_deltanet, { { "num_heads", "12" } }, 9474176, 786432, 36864 },
        { &pn_block_gated_deltanet, { { "num_heads", "12" }, { "head_dim", "96" } }, 14211288, 884736, 36864 },
        { &pn_block_jet,
          { { "num_heads", "12" }, { "head_dim", "96" }, { "expand_v", "2.6666666667" } },
          23052568,
          1179648,
          24576 },
    };
    const pn_dims dims = { .hidden = 1536, .heads = 12, .kv_heads = 2, .head_dim = 128, .intermediate = 8960 };
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        const pn_block_spec spec = spec_of(at[i].type, at[i].set);
        pn_params *params;
        pn_block *block;
        ck_ok(pn_params_create(PN_F32, &params));
        ck_ok(pn_block_create(&spec, &dims, params, "", &block));
        ck_assert_msg(pn_params_count(params, false) == at[i].parameters, "%s: %lld parameters", at[i].type->name,
                      (long long)pn_params_count(params, false));
        ck_assert_double_eq(pn_block_cache_bytes(block, 4096, 0), at[i].state);
        ck_assert_double_eq(pn_block_cache_bytes(block, 4096, 2), at[i].state + at[i].windows);
        pn_block_destroy(&block);
        pn_params_destroy(&params);
    }
}
END_TEST

/* ---- the same function in two forms ---- */

static const pn_dims tiny = {
    .hidden = 24, .heads = 4, .kv_heads = 2, .head_dim = 6, .intermediate = 24, .rope_theta = 1e4
};
static const int64_t offsets[] = { 0, 3, 70, 71, 140 };
static const pn_docs documents = { .n = 4, .offset = offsets };
enum { TOKENS = 140 };

typedef struct form {
    pn_params *params;
    pn_block *block;
} form;

static form form_of(const pn_block_type *type, const setting *set) {
    const pn_block_spec spec = spec_of(type, set);
    form f;
    ck_ok(pn_params_create(PN_F64, &f.params));
    ck_ok(pn_block_create(&spec, &tiny, f.params, "", &f.block));
    ck_ok(pn_params_init(f.params, 4));
    return f;
}
static void form_free(form *f) {
    pn_block_destroy(&f->block);
    pn_params_destroy(&f->params);
}

static pn_tensor *weight(const form *f, const char *name) {
    const pn_param *p = pn_params_find(f->params, name);
    ck_assert_msg(p != NULL, "no weight %s", name);
    return p->value;
}
static void fill(const form *f, const char *name, double x) {
    pn_tensor *w = weight(f, name);
    for (int64_t i = 0; i < pn_tensor_elems(w); i++) pn_f64(w)[i] = x;
}
/* Every weight that both have under one name and shape. */
static void share(const form *from, const form *to) {
    for (int i = 0; i < to->params->n; i++) {
        pn_tensor *w = to->params->item[i]->value;
        const pn_param *p = pn_params_find(from->params, to->params->item[i]->name);
        if (p && pn_tensor_same_shape(p->value, w)) ck_ok(pn_tensor_copy(w, p->value));
    }
}

/* rms(y_a - y_b) / rms(y_b) of the reference in double precision. */
static double difference(const form *a, const form *b) {
    const form *const forms[] = { a, b };
    pn_tape *t;
    pn_tensor *x, *y[2];
    pn_carry carry = { 0 };
    pn_rng rng;
    pn_rng_stream(4, "x", 2, &rng);
    ck_ok(pn_tape_create(PN_REF, &t));
    pn_tape_record(t, false);
    ck_ok(pn_tape_new(t, PN_F64, 2, (int64_t[]){ TOKENS, tiny.hidden }, &x));
    for (int64_t i = 0; i < pn_tensor_elems(x); i++) pn_f64(x)[i] = i % tiny.hidden ? pn_rng_normal(&rng) : 1;
    for (int k = 0; k < 2; k++) ck_ok(pn_block_forward(forms[k]->block, t, x, &documents, &carry, &y[k]));
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < pn_tensor_elems(x); i++) {
        double d = pn_f64(y[0])[i] - pn_f64(y[1])[i];
        diff += d * d;
        norm += pn_f64(y[1])[i] * pn_f64(y[1])[i];
    }
    pn_tape_destroy(&t);
    ck_assert_double_gt(norm, 0);
    return sqrt(diff / norm);
}

/* Two query heads per key/value head are four heads, the rows of k and v twice (blocks.md 3.2): heads 0 and 1 read the
 * first. */
START_TEST(shared_heads_are_repeated_heads) {
    form grouped = form_of(&pn_block_retnet, (setting[SETTINGS]){ { "num_kv_heads", "2" } });
    form whole = form_of(&pn_block_retnet, (setting[SETTINGS]){ { NULL } });
    share(&grouped, &whole);
    static const char *const names[] = { "k_proj.weight", "v_proj.weight" };
    for (int i = 0; i < 2; i++) {
        const pn_tensor *from = weight(&grouped, names[i]);
        const int64_t head = pn_tensor_elems(from) / 2;
        for (int64_t h = 0; h < 4; h++)
            memcpy(pn_f64(weight(&whole, names[i])) + h * head, pn_f64(from) + h / 2 * head,
                   (size_t)head * sizeof(double));
    }
    ck_assert_double_lt(difference(&grouped, &whole), 1e-12);
    pn_f64(weight(&whole, names[0]))[0] += 1;
    ck_assert_double_gt(difference(&grouped, &whole), 1e-6);
    form_free(&grouped);
    form_free(&whole);
}
END_TEST

/* A convolution of one tap, 1, is silu alone: what q, k and v of DeltaNet keep without convolutions. */
START_TEST(no_convolution_is_one_tap) {
    static const char *const taps[] = { "q_conv1d.weight", "k_conv1d.weight", "v_conv1d.weight" };
    static const char *const activations[] = { "silu", "identity" };
    for (int k = 0; k < 2; k++) {
        form with = form_of(&pn_block_deltanet,
                            (setting[SETTINGS]){ { "conv_size", "1" }, { "qk_activation", activations[k] } });
        form without = form_of(&pn_block_deltanet, (setting[SETTINGS]){ { "use_short_conv", "false" },
                                                                        { "qk_activation", activations[k] } });
        share(&with, &without);
        for (int i = 0; i < 3; i++) fill(&with, taps[i], 1);
        ck_assert_double_lt(difference(&with, &without), 1e-12);
        fill(&with, taps[k], 0.5);
        ck_assert_double_gt(difference(&with, &without), 1e-6);
        form_free(&with);
        form_free(&without);
    }
}
END_TEST

/* Gated DeltaNet whose decay is off (A = 0) is DeltaNet with the output gate. */
START_TEST(deltanet_is_gated_deltanet_without_decay) {
    form gated =
        form_of(&pn_block_gated_deltanet, (setting[SETTINGS]){ { "allow_neg_eigval", "true" }, { "expand_v", "1" } });
    form plain =
        form_of(&pn_block_deltanet, (setting[SETTINGS]){ { "allow_neg_eigval", "true" }, { "use_gate", "true" } });
    share(&gated, &plain);
    ck_assert_double_gt(difference(&gated, &plain), 1e-6);
    fill(&gated, "A_log", -INFINITY);
    ck_assert_double_lt(difference(&gated, &plain), 1e-12);
    form_free(&gated);
    form_free(&plain);
}
END_TEST

/* Without b_proj the step size is 1, which b_proj = 0 makes when doubled (2 sig 0); doubled, it is 2. */
START_TEST(fixed_step_sizes) {
    form fixed = form_of(&pn_block_deltanet, (setting[SETTINGS]){ { "use_beta", "false" } });
    form half = form_of(&pn_block_deltanet, (setting[SETTINGS]){ { "allow_neg_eigval", "true" } });
    form twice =
        form_of(&pn_block_deltanet, (setting[SETTINGS]){ { "use_beta", "false" }, { "allow_neg_eigval", "true" } });
    share(&fixed, &half);
    share(&fixed, &twice);
    fill(&half, "b_proj.weight", 0);
    ck_assert_double_lt(difference(&fixed, &half), 1e-12);
    ck_assert_double_gt(difference(&twice, &half), 1e-6);
    form_free(&fixed);
    form_free(&half);
    form_free(&twice);
}
END_TEST

/* Outputs [TOKENS, D] of one sequence that has seen `past` tokens, of which its state holds nothing. */
static void run_after(const form *f, int64_t past, double *out) {
    const int64_t offset[] = { 0, TOKENS };
    const pn_docs docs = { .n = 1, .offset = offset };
    pn_tape *t;
    pn_state *state;
    pn_tensor *x, *y;
    pn_carry carry = { 0 };
    ck_ok(pn_tape_create(PN_REF, &t));
    pn_tape_record(t, false);
    ck_ok(pn_state_create(f->block, 1, pn_tape_pool(t), PN_F64, &state));
    state->past[0] = past;
    ck_ok(pn_tape_new(t, PN_F64, 2, (int64_t[]){ TOKENS, tiny.hidden }, &x));
    for (int64_t i = 0; i < pn_tensor_elems(x); i++) pn_f64(x)[i] = sin((double)(i * i % 101));
    ck_ok(pn_block_extend(f->block, t, x, &docs, state, &carry, &y));
    memcpy(out, pn_f64(y), pn_tensor_bytes(y));
    pn_state_destroy(&state);
    pn_tape_destroy(&t);
}

static double distance(const double *a, const double *b) {
    double most = 0;
    for (int i = 0; i < TOKENS * 24; i++) most = fmax(most, fabs(a[i] - b[i]));
    return most;
}

/* Queries and keys turn together: what counts is how far apart they are, not where. */
START_TEST(rope_is_about_distances) {
    static const pn_block_type *const types[] = { &pn_block_deltanet, &pn_block_gated_deltanet, &pn_block_jet };
    static double here[TOKENS * 24], there[TOKENS * 24], plain[TOKENS * 24];
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        form with = form_of(types[i], (setting[SETTINGS]){ { "rope", "true" }, { "num_heads", "2" } });
        form without = form_of(types[i], (setting[SETTINGS]){ { "num_heads", "2" } });
        share(&with, &without);
        run_after(&with, 0, here);
        run_after(&with, 1000, there);
        run_after(&without, 0, plain);
        double size = distance(here, (const double[TOKENS * 24]){ 0 });
        ck_assert_double_lt(distance(here, there), 1e-9 * size);
        ck_assert_double_gt(distance(here, plain), 1e-3 * size);
        form_free(&with);
        form_free(&without);
    }
}
END_TEST

/* A bias is a column of the weights that reads a constant 1: the same block without biases on such inputs. */
START_TEST(biases_are_columns_for_a_constant) {
    static const pn_block_type *const types[] = { &pn_block_retnet, &pn_block_gla, &pn_block_deltanet,
                                                  &pn_block_gated_deltanet, &pn_block_jet };
    static const char *const parts[] = { "q_proj", "k_proj", "v_proj" };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        form with = form_of(types[i], (setting[SETTINGS]){ { "qkv_bias", "true" } });
        form without = form_of(types[i], (setting[SETTINGS]){ { NULL } });
        share(&with, &without);
        for (int k = 0; k < 3; k++) {
            char bias[32], w[32];
            snprintf(bias, sizeof bias, "%s.bias", parts[k]);
            snprintf(w, sizeof w, "%s.weight", parts[k]);
            pn_tensor *b = weight(&with, bias);
            for (int64_t c = 0; c < pn_tensor_elems(b); c++) {
                pn_f64(b)[c] = 0.1 * sin((double)(c + k));
                pn_f64(weight(&without, w))[c * tiny.hidden] += pn_f64(b)[c];
            }
        }
        ck_assert_double_lt(difference(&with, &without), 1e-12);
        fill(&with, "q_proj.bias", 0);
        ck_assert_double_gt(difference(&with, &without), 1e-6);
        form_free(&with);
        form_free(&without);
    }
}
END_TEST

TEST_MAIN("linear blocks", rope_is_about_distances, biases_are_columns_for_a_constant, sizes_of_the_specification,
          shared_heads_are_repeated_heads, no_convolution_is_one_tap, deltanet_is_gated_deltanet_without_decay,
          fixed_step_sizes)
