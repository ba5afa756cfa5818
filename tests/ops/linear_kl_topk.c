/* Distillation from a teacher's k most likely words, against the whole teacher: the same with all words, never more
 * with fewer, and right where the student leaves the tail nearly nothing. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "linear_kl/linear_kl.h"
#include "linear_kl_topk/linear_kl_topk.h"
#include "linear_topk/linear_topk.h"
#include "tape.h"

enum { N = 70, D = 12, V = 700 };

static pn_tape *tape;

static pn_tensor *filled(int64_t rows, int64_t cols, uint32_t seed, float scale) {
    pn_tensor *t;
    ck_ok(pn_tape_new(tape, PN_F32, cols ? 2 : 1, (const int64_t[]){ rows, cols }, &t));
    for (int64_t i = 0, n = pn_tensor_elems(t); i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        pn_f32(t)[i] = scale * ((float)(seed >> 8) * 0x1p-23f - 1);
    }
    return t;
}

static pn_tensor *words(int64_t rows, int64_t k, const int32_t *ids) {
    pn_tensor *t;
    ck_ok(pn_tape_new(tape, PN_I32, 2, (const int64_t[]){ rows, k }, &t));
    memcpy(pn_i32(t), ids, (size_t)(rows * k) * sizeof *ids);
    return t;
}

/* The gradients of the two leaves. */
static float *gradients(pn_tensor *loss, pn_tensor *h, pn_tensor *W) {
    float *g = malloc((N * D + V * D) * sizeof *g);
    ck_ok(pn_tape_backward(tape, loss));
    memcpy(g, pn_f32(h->grad), N * D * sizeof *g);
    memcpy(g + N * D, pn_f32(W->grad), V * D * sizeof *g);
    pn_tensor_release(&h->grad);
    pn_tensor_release(&W->grad);
    return g;
}

START_TEST(all_words_are_the_whole_teacher) {
    const double taus[] = { 0.7, 1, 3 };
    for (int i = 0; i < 3; i++) {
        ck_ok(pn_tape_create(PN_CPU, &tape));
        pn_tensor *h = filled(N, D, 1, 1), *W = filled(V, D, 2, 1), *h_t = filled(N, D, 3, 1),
                  *W_t = filled(V, D, 4, 1);
        pn_tensor *weights = filled(N, 0, 5, 1), *ids, *log_p, *whole, *kl_whole, *loss, *kl;
        for (int n = 0; n < N; n++) pn_f32(weights)[n] = n % 5 ? fabsf(pn_f32(weights)[n]) : 0;
        h->wants_grad = W->wants_grad = true;
        ck_ok(pn_linear_kl(tape, h, W, h_t, W_t, weights, taus[i], &whole, &kl_whole, NULL));
        float want_kl[N], want = pn_f32(whole)[0];
        memcpy(want_kl, pn_f32(kl_whole), sizeof want_kl);
        float *g_whole = gradients(whole, h, W);
        ck_ok(pn_linear_topk(tape, h_t, W_t, V, taus[i], &ids, &log_p));
        ck_ok(pn_linear_kl_topk(tape, h, W, ids, log_p, weights, taus[i], &loss, &kl));
        ck_assert_float_eq_tol(pn_f32(loss)[0], want, 2e-6f * want);
        for (int n = 0; n < N; n++) ck_assert_float_eq_tol(pn_f32(kl)[n], want_kl[n], 5e-6f);
        float *g = gradients(loss, h, W);
        double diff = 0, norm = 0;
        for (int k = 0; k < N * D + V * D; k++) {
            diff += ((double)g[k] - (double)g_whole[k]) * ((double)g[k] - (double)g_whole[k]);
            norm += (double)g_whole[k] * (double)g_whole[k];
        }
        ck_assert_double_gt(norm, 0);
        ck_assert_double_lt(sqrt(diff / norm), 1e-5);
        free(g);
        free(g_whole);
        pn_tape_destroy(&tape);
    }
}
END_TEST

START_TEST(fewer_words_are_a_lower_bound) {
    ck_ok(pn_tape_create(PN_CPU, &tape));
    pn_tensor *h = filled(N, D, 1, 1), *W = filled(V, D, 2, 1), *h_t = filled(N, D, 3, 1), *whole, *kl_whole;
    ck_ok(pn_linear_kl(tape, h, W, h_t, W, NULL, 2, &whole, &kl_whole, NULL));
    float before[N];
    for (int n = 0; n < N; n++) before[n] = -1e-6f; /* no less than nothing, but for rounding */
    for (int64_t k = 1; k <= V; k = k < 8 ? k + 1 : k < V && 3 * k > V ? V : 3 * k) {
        pn_tensor *ids, *log_p, *loss, *kl;
        ck_ok(pn_linear_topk(tape, h_t, W, k, 2, &ids, &log_p));
        ck_ok(pn_linear_kl_topk(tape, h, W, ids, log_p, NULL, 2, &loss, &kl));
        for (int n = 0; n < N; n++) {
            ck_assert_float_ge(pn_f32(kl)[n], before[n] - 2e-6f); /* a finer division sees more */
            ck_assert_float_le(pn_f32(kl)[n], pn_f32(kl_whole)[n] + 2e-6f);
            before[n] = pn_f32(kl)[n];
        }
        if (k == V) ck_assert_float_eq_tol(pn_f32(loss)[0], pn_f32(whole)[0], 1e-6f);
        if (k == V) break;
    }
    pn_tape_destroy(&tape);
}
END_TEST

/* Of three words the student puts e^-60 on the two that are not listed, where 1 - q is 0 in any float. */
START_TEST(a_tail_that_the_student_rules_out_keeps_its_value_and_gradient) {
    ck_ok(pn_tape_create(PN_CPU, &tape));
    pn_tensor *h = filled(1, 1, 1, 0), *W = filled(3, 1, 1, 0), *log_p = filled(1, 1, 1, 0), *loss;
    pn_f32(h)[0] = 1;
    pn_f32(W)[1] = 60;
    pn_f32(log_p)[0] = logf(0.75f);
    h->wants_grad = true;
    ck_ok(pn_linear_kl_topk(tape, h, W, words(1, 1, (int32_t[]){ 1 }), log_p, NULL, 1, &loss, NULL));
    ck_assert_double_eq_tol((double)pn_f32(loss)[0], 0.75 * log(0.75) + 0.25 * (log(0.25) - log(2) + 60), 1e-5);
    ck_ok(pn_tape_backward(tape, loss));
    ck_assert_float_eq_tol(pn_f32(h->grad)[0], 60 * 0.25f, 1e-4f); /* dz = (-1, 2, -1) / 8 of W = (0, 60, 0) */
    pn_tensor_release(&h->grad);
    pn_tape_destroy(&tape);
}
END_TEST

/* Rounded, probabilities add up to more than 1: the tail is nothing, not less. */
START_TEST(a_teacher_that_is_rounded_up_has_no_tail) {
    ck_ok(pn_tape_create(PN_CPU, &tape));
    pn_tensor *h = filled(1, 2, 1, 1), *W = filled(5, 2, 2, 1), *log_p = filled(1, 2, 1, 0), *loss;
    for (int j = 0; j < 2; j++) pn_f32(log_p)[j] = logf(0.5f) + 1e-6f;
    W->wants_grad = true;
    ck_ok(pn_linear_kl_topk(tape, h, W, words(1, 2, (int32_t[]){ 0, 3 }), log_p, NULL, 1, &loss, NULL));
    ck_assert_float_finite(pn_f32(loss)[0]);
    ck_ok(pn_tape_backward(tape, loss));
    for (int i = 0; i < 10; i++) ck_assert_float_finite(pn_f32(W->grad)[i]);
    pn_tensor_release(&W->grad);
    pn_tape_destroy(&tape);
}
END_TEST

static void ck_usage(pn_status s, const char *part) {
    ck_assert_int_eq(s, PN_USAGE);
    ck_assert_msg(strstr(pn_error_message(), part), "\"%s\" does not say \"%s\"", pn_error_message(), part);
    pn_error_clear();
}

START_TEST(wrong_input_is_a_usage_error) {
    ck_ok(pn_tape_create(PN_CPU, &tape));
    pn_tensor *h = filled(2, 4, 1, 1), *W = filled(5, 4, 2, 1), *log_p = filled(2, 2, 3, 0), *loss, *ids, *weights;
    const int32_t good[] = { 0, 1, 2, 4 };
    static const struct {
        int32_t ids[4];
        const char *part;
    } cases[] = { { { 0, 1, 2, 5 }, "id 5 at position 3 is outside 3 .. 4" },
                  { { 0, 1, -1, 4 }, "id -1 at position 2 is outside 0 .. 4" },
                  { { 1, 1, 2, 4 }, "id 1 at position 1 is outside 2 .. 4; the ids of a row must ascend" },
                  { { 0, 1, 4, 2 }, "id 2 at position 3 is outside 5 .. 4" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_usage(pn_linear_kl_topk(tape, h, W, words(2, 2, cases[i].ids), log_p, NULL, 1, &loss, NULL), cases[i].part);
    ck_usage(pn_linear_kl_topk(tape, h, W, words(2, 2, good), filled(2, 1, 1, 0), NULL, 1, &loss, NULL), "input log_p");
    ck_usage(pn_linear_kl_topk(tape, h, W, words(2, 2, good), log_p, NULL, 0, &loss, NULL), "temperature");
    weights = filled(2, 0, 1, 1);
    pn_f32(weights)[0] = 1;
    pn_f32(weights)[1] = -1;
    ck_usage(pn_linear_kl_topk(tape, h, W, words(2, 2, good), log_p, weights, 1, &loss, NULL), "of row 1");
    ck_usage(pn_linear_topk(tape, h, W, 6, 1, &ids, &log_p), "6 words of each token are asked for; 1 to 5");
    ck_usage(pn_linear_topk(tape, h, W, 0, 1, &ids, &log_p), "0 words");
    ck_usage(pn_linear_topk(tape, h, W, 1, -1, &ids, &log_p), "temperature");
    pn_tape_destroy(&tape);
}
END_TEST

/* A row that is no number must not look like a teacher who is certain of every word. */
START_TEST(what_is_no_number_is_seen) {
    ck_ok(pn_tape_create(PN_CPU, &tape));
    pn_tensor *h = filled(N, D, 1, 1), *W = filled(V, D, 2, 1), *ids, *log_p;
    pn_f32(h)[3 * D + 5] = NAN;
    pn_f32(h)[9 * D] = INFINITY;
    ck_ok(pn_linear_topk(tape, h, W, 4, 1, &ids, &log_p));
    for (int n = 0; n < N; n++)
        for (int j = 0; j < 4; j++) ck_assert_int_eq(pn_f32(log_p)[n * 4 + j] <= 0, n != 3 && n != 9);
    pn_tape_destroy(&tape);
}
END_TEST

TEST_MAIN("linear_kl_topk", what_is_no_number_is_seen, all_words_are_the_whole_teacher, fewer_words_are_a_lower_bound,
          a_tail_that_the_student_rules_out_keeps_its_value_and_gradient, a_teacher_that_is_rounded_up_has_no_tail,
          wrong_input_is_a_usage_error)
