/* Ops that cut their sums into parts by shape: the bits of values and gradients must not depend on the number of
 * threads. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "attention/attention.h"
#include "causal_conv/causal_conv.h"
#include "dynamic_conv/dynamic_conv.h"
#include "harness.h"
#include "infer.h"
#include "linear/linear.h"
#include "op_case.h"
#include "tape.h"

/* Documents that end inside, at and just behind runs of 64 and 128 tokens, and one shorter than the window. */
enum { T = 700, CHANNELS = 300, RANK = 20, VALUES = 1 << 21 };
static const int64_t documents[] = { 0, 127, 129, 192, 511, 513, T };
static const pn_docs docs = { .n = 6, .offset = documents };

/* Outputs and gradients of a call on the same numbers every time, one after another. */
static size_t everything(const pn_op *op, const pn_op_case *c, float *bits) {
    pn_case_call call = { 0 };
    const pn_op_impl *impl;
    size_t n = 0;
    ck_ok(pn_case_call_make(op, c, PN_CPU, PN_F32, &call));
    ck_ok(pn_op_pick(&call.call, PN_CPU, &impl));
    for (int backward = 0; backward < 2; backward++) {
        ck_ok(pn_case_call_scratch(&call, impl, backward));
        ck_ok(backward ? impl->backward(&call.call) : impl->forward(&call.call));
    }
    for (int i = 0; i < call.call.n_out + call.call.n_in; i++) {
        const pn_tensor *t = i < call.call.n_out ? call.call.out[i] : call.call.din[i - call.call.n_out];
        if (!t) continue;
        ck_assert_uint_le(n + (size_t)pn_tensor_elems(t), VALUES);
        memcpy(bits + n, pn_f32(t), pn_tensor_bytes(t));
        n += (size_t)pn_tensor_elems(t);
    }
    pn_case_call_free(&call);
    return n;
}

static void check(const pn_op *op, const pn_op_case *c) {
    float *one = calloc(VALUES, sizeof *one), *more = calloc(VALUES, sizeof *more);
    int before = omp_get_max_threads();
    omp_set_num_threads(1);
    size_t n = everything(op, c, one);
    for (int threads = 2; threads <= 20; threads += 3) {
        omp_set_num_threads(threads);
        ck_assert_uint_eq(everything(op, c, more), n);
        ck_assert_msg(!memcmp(one, more, n * sizeof *one), "%s: %d threads give other bits than one", op->name,
                      threads);
    }
    omp_set_num_threads(before);
    double norm = 0;
    for (size_t i = 0; i < n; i++) norm += (double)one[i] * (double)one[i];
    ck_assert_double_gt(norm, 0);
    free(one);
    free(more);
}

static pn_case_input state(int64_t width) {
    return (pn_case_input){ .present = true, .rank = 3, .shape = { docs.n, CHANNELS, width } };
}

START_TEST(causal_conv_agrees_for_any_number_of_threads) {
    for (int width = 4; width <= 7; width += 3) {
        const pn_causal_conv_attr attr = { .docs = docs, .width = width, .silu = true };
        pn_op_case c = { .n_in = 4 };
        memcpy(c.attr, &attr, sizeof attr);
        c.in[0] = pn_case_matrix(T, CHANNELS);
        c.in[1] = (pn_case_input){ .present = true, .rank = 3, .shape = { CHANNELS, 1, width } };
        c.in[2] = pn_case_vector(CHANNELS);
        c.in[3] = state(width);
        check(&pn_op_causal_conv, &c);
    }
}
END_TEST

START_TEST(dynamic_conv_agrees_for_any_number_of_threads) {
    for (int width = 4; width <= 7; width += 3) {
        const pn_dynamic_conv_attr attr = { .docs = docs, .width = width };
        pn_op_case c = { .n_in = 5 };
        memcpy(c.attr, &attr, sizeof attr);
        c.in[0] = pn_case_matrix(T, CHANNELS);
        c.in[1] = pn_case_matrix(T, RANK);
        c.in[2] = pn_case_matrix(CHANNELS * width, RANK);
        c.in[2].hi = 0.3;
        c.in[3] = pn_case_vector(CHANNELS * width);
        c.in[4] = state(width);
        check(&pn_op_dynamic_conv, &c);
    }
}
END_TEST

START_TEST(few_outputs_agree_for_any_number_of_threads) {
    pn_op_case c = { .n_in = 3 };
    c.in[0] = pn_case_matrix(T, CHANNELS);
    c.in[1] = pn_case_matrix(9, CHANNELS);
    c.in[2] = pn_case_vector(9);
    check(&pn_op_linear, &c);
}
END_TEST

START_TEST(attention_agrees_for_any_number_of_threads) {
    enum { HEADS = 6, KV_HEADS = 2, WIDTH = 20 };
    static const int64_t whole[] = { 0, T };
    const pn_attention_attr attr = {
        .docs = { .n = 1, .offset = whole }, .heads = HEADS, .kv_heads = KV_HEADS, .head_dim = WIDTH, .scale = 0.2
    };
    pn_op_case c = { .n_in = 3 };
    memcpy(c.attr, &attr, sizeof attr);
    c.in[0] = pn_case_matrix(T, HEADS * WIDTH);
    c.in[1] = c.in[2] = pn_case_matrix(T, KV_HEADS * WIDTH);
    check(&pn_op_attention, &c);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("threads");
    TCase *tcase = tcase_create("threads");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, causal_conv_agrees_for_any_number_of_threads);
    tcase_add_test(tcase, dynamic_conv_agrees_for_any_number_of_threads);
    tcase_add_test(tcase, few_outputs_agree_for_any_number_of_threads);
    tcase_add_test(tcase, attention_agrees_for_any_number_of_threads);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK); /* OpenMP threads do not survive a fork */
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
