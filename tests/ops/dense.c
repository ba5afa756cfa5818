/* The dense ops and losses where a table of random cases says little: wrong input, known values, extreme logits, what a
 * frozen weight costs, and sums whose bits must not depend on the number of threads. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "add/add.h"
#include "decay_gate/decay_gate.h"
#include "embedding/embedding.h"
#include "feature_loss/feature_loss.h"
#include "gate_softmax/gate_softmax.h"
#include "gated_rms_norm/gated_rms_norm.h"
#include "head_scale/head_scale.h"
#include "harness.h"
#include "l2_norm/l2_norm.h"
#include "linear/linear.h"
#include "linear_argmax/linear_argmax.h"
#include "linear_cross_entropy/linear_cross_entropy.h"
#include "linear_kl/linear_kl.h"
#include "linear_pair/linear_pair.h"
#include "mix/mix.h"
#include "rms_norm/rms_norm.h"
#include "split/split.h"
#include "swiglu/swiglu.h"
#include "swiglu_linear/swiglu_linear.h"
#include "tape.h"
#include "time_step/time_step.h"
#include "weighted_sum/weighted_sum.h"

static pn_tape *tape;

static void setup(void) {
    ck_ok(pn_tape_create(PN_CPU, &tape));
}
static void teardown(void) {
    pn_tape_destroy(&tape);
}

static pn_tensor *filled(int64_t rows, int64_t cols, float scale, bool wants_grad) {
    pn_tensor *t;
    ck_ok(pn_tape_new(tape, PN_F32, cols ? 2 : 1, (const int64_t[]){ rows, cols }, &t));
    uint32_t s = 12345;
    for (int64_t i = 0, n = pn_tensor_elems(t); i < n; i++) {
        s = s * 1664525u + 1013904223u;
        pn_f32(t)[i] = scale * ((float)(s >> 8) * 0x1p-23f - 1);
    }
    t->wants_grad = wants_grad;
    return t;
}

static pn_tensor *ids(int64_t n, const int32_t *value) {
    pn_tensor *t;
    ck_ok(pn_tape_new(tape, PN_I32, 1, &n, &t));
    memcpy(pn_i32(t), value, (size_t)n * sizeof *value);
    return t;
}

static void ck_usage(pn_status s, const char *part) {
    ck_assert_int_eq(s, PN_USAGE);
    ck_assert_msg(strstr(pn_error_message(), part), "\"%s\" does not say \"%s\"", pn_error_message(), part);
    pn_error_clear();
}

START_TEST(wrong_input_is_a_usage_error) {
    setup();
    pn_tensor *y, *loss, *h = filled(2, 4, 1, false), *W = filled(5, 4, 1, false), *odd = filled(5, 3, 1, false);
    ck_usage(pn_linear(tape, h, odd, NULL, &y), "linear: input x is f32 [2, 4]; it must be f32 [any, 3]");
    ck_usage(pn_linear(tape, h, W, filled(4, 0, 1, false), &y), "input b is f32 [4]; it must be f32 [5]");
    ck_usage(pn_linear(tape, h, NULL, NULL, &y), "input w is missing");
    pn_tensor *z;
    ck_usage(pn_linear_pair(tape, h, W, odd, &y, &z), "linear_pair: input w1 is f32 [5, 3]; it must be f32 [any, 4]");
    ck_usage(pn_swiglu_linear(tape, h, odd, W, &y), "input up is f32 [5, 3]; it must be f32 [2, 4]");
    ck_usage(pn_embedding(tape, ids(2, (int32_t[]){ 4, 5 }), W, &y), "token id 5 at position 1 is outside 0 .. 4");
    ck_usage(pn_embedding(tape, ids(1, (int32_t[]){ -1 }), W, &y), "token id -1");
    ck_usage(pn_linear_cross_entropy(tape, h, W, ids(2, (int32_t[]){ 0, -2 }), NULL, &loss, NULL), "target -2");
    ck_usage(pn_linear_cross_entropy(tape, h, W, ids(2, (int32_t[]){ 0, 5 }), NULL, &loss, NULL), "target 5");
    pn_tensor *weights = filled(2, 0, 1, false);
    for (int k = 0; k < 3; k++) {
        pn_f32(weights)[0] = 1;
        pn_f32(weights)[1] = (float[]){ -1, NAN, INFINITY }[k];
        ck_usage(pn_linear_cross_entropy(tape, h, W, ids(2, (int32_t[]){ 0, 1 }), weights, &loss, NULL), "of row 1");
        ck_usage(pn_linear_kl(tape, h, W, h, W, weights, 1, &loss, NULL, NULL), "of row 1");
    }
    ck_usage(pn_linear_kl(tape, h, W, h, odd, NULL, 1, &loss, NULL, NULL), "input W_t");
    ck_usage(pn_linear_kl(tape, h, W, h, W, NULL, 0, &loss, NULL, NULL), "temperature");
    ck_usage(pn_l2_norm(tape, h, 3, false, &y), "4 channels are not a whole number of heads of 3");
    ck_usage(pn_gated_rms_norm(tape, h, NULL, filled(0, 0, 1, false), 0, 1e-6, &y), "heads of 0");
    ck_usage(pn_group_rms_norm(tape, h, filled(4, 0, 1, false), 3, 1e-6, &y), "4 channels are not 3 equal groups");
    ck_usage(pn_group_rms_norm(tape, h, filled(4, 0, 1, false), 0, 1e-6, &y), "4 channels are not 0 equal groups");
    ck_usage(pn_head_scale(tape, h, NULL, NULL, &y), "input s is missing");
    ck_usage(pn_head_scale(tape, h, W, NULL, &y), "input s is f32 [5, 4]; it must be f32 [2, any]");
    ck_usage(pn_head_scale(tape, h, filled(3, 0, 1, false), NULL, &y), "4 channels are not 3 equal heads");
    ck_usage(pn_head_scale(tape, h, filled(2, 0, 1, false), odd, &y), "input a is f32 [5, 3]; it must be f32 [2, 4]");
    pn_tensor *part[PN_OP_OUT];
    ck_usage(pn_split(tape, h, (int64_t[]){ 1, 4 }, 2, part), "part 1 has 4 columns, of the 3 that are left");
    ck_usage(pn_split(tape, h, (int64_t[]){ 1, 2 }, 2, part), "1 of the 4 columns are in no part");
    ck_usage(pn_split(tape, h, (int64_t[]){ 0, 4 }, 2, part), "part 0 has 0 columns");
    ck_usage(pn_split(tape, h, (int64_t[]){ 1, 1, 1, 1, 1 }, 5, part), "5 parts; it makes 1 .. 4");
    pn_tensor *four = filled(4, 0, 1, false), *step;
    ck_usage(pn_time_step(tape, h, four, filled(3, 0, 1, false), 0, 1, &step, &y), "dt_bias is f32 [3]");
    ck_usage(pn_time_step(tape, h, four, four, 0.5, 0.1, &step, &y), "limits 0.5 .. 0.1");
    ck_usage(pn_time_step(tape, h, four, four, -1, 1, &step, &y), "limits -1 .. 1");
    ck_usage(pn_feature_loss(tape, h, W, &loss), "target");
    pn_tensor *terms[] = { NULL, h, W }, *p = filled(2, 3, 1, false), *cost;
    ck_usage(pn_mix(tape, p, 0, terms, 1, &y), "every term is absent");
    ck_usage(pn_mix(tape, p, 0, terms, 2, &y), "input p is f32 [2, 3]; it must be f32 [any, 2]");
    ck_usage(pn_mix(tape, p, 0, terms, 3, &y), "input x is f32 [5, 4]; it must be f32 [2, 4]");
    terms[2] = h;
    ck_usage(pn_mix(tape, p, 2, terms, 3, &y), "row 2 of p, which has 2");
    ck_usage(pn_mix(tape, p, 0, terms, PN_MIX_MAX + 1, &y), "it takes up to 9");
    ck_usage(pn_gate_softmax(tape, p, NULL, 0, -1, &y, &cost), "temperature 0 must be above 0");
    ck_usage(pn_gate_softmax(tape, p, NULL, 1, 3, &y, &cost), "a budget of 3 layers, of 2");
    ck_usage(pn_gate_softmax(tape, p, h, 1, -1, &y, &cost), "input w is f32 [2, 4]; it must be f32 [2, 3]");
    teardown();
}
END_TEST

START_TEST(known_values) {
    setup();
    enum { N = 5, D = 8, V = 1500 };
    pn_tensor *h = filled(N, D, 1, true), *zero = filled(V, D, 0, true), *W = filled(V, D, 1, true), *loss, *report;
    pn_tensor *target = ids(N, (int32_t[]){ 0, 7, PN_IGNORE, 1499, 1023 });

    /* Equal logits: every word has probability 1 / V. */
    ck_ok(pn_linear_cross_entropy(tape, h, zero, target, NULL, &loss, &report));
    ck_assert_float_eq_tol(pn_f32(loss)[0], (float)log(V), 1e-6f);
    ck_assert_float_eq(pn_f32(report)[2], 0);

    /* A student that is its teacher: no divergence and no gradient. */
    ck_ok(pn_linear_kl(tape, h, W, h, W, NULL, 2, &loss, &report, NULL));
    ck_assert_float_eq_tol(pn_f32(loss)[0], 0, 1e-6f);
    ck_ok(pn_tape_backward(tape, loss));
    for (int i = 0; i < N * D; i++) ck_assert_float_eq(pn_f32(h->grad)[i], 0);

    /* Predicting the mean of the target is worth 1, the target itself 0. */
    pn_tensor *t = filled(N, D, 3, false), *mean = filled(N, D, 0, false);
    for (int c = 0; c < D; c++) {
        double sum = 0;
        for (int n = 0; n < N; n++) sum += (double)pn_f32(t)[n * D + c];
        for (int n = 0; n < N; n++) pn_f32(mean)[n * D + c] = (float)(sum / N);
    }
    ck_ok(pn_feature_loss(tape, mean, t, &loss));
    ck_assert_float_eq_tol(pn_f32(loss)[0], 1, 1e-6f);
    ck_ok(pn_feature_loss(tape, t, t, &loss));
    ck_assert_float_eq(pn_f32(loss)[0], 0);
    teardown();
}
END_TEST

/* Gates under a budget: it is spent to the last bit that a float has, by layers as different as they may be; what all
 * layers gain alike moves none; a candidate that is not there takes no part. */
START_TEST(gates_spend_their_budget) {
    setup();
    enum { L = 6, C = 3 };
    static const double budgets[] = { 0, 0.5, 2, 5.5, 6 };
    pn_tensor *a = filled(L, C, 1, true), *p, *cost, *terms[C] = { 0 }, *y;
    pn_f32(a)[0] = 300, pn_f32(a)[C] = -300; /* layer 0 wants candidate 0 before all others, layer 1 after them */
    pn_f32(a)[2 * C + 1] = -INFINITY;
    for (int i = 0; i < 5; i++) {
        double spent = 0;
        ck_ok(pn_gate_softmax(tape, a, NULL, 0.5, budgets[i], &p, &cost));
        for (int l = 0; l < L; l++) {
            double sum = 0;
            for (int c = 0; c < C; c++) sum += (double)pn_f32(p)[l * C + c];
            ck_assert_double_eq_tol(sum, 1, 1e-6);
            spent += (double)pn_f32(p)[l * C];
        }
        ck_assert_double_eq_tol(spent, budgets[i], 1e-6);
        ck_assert_float_eq(pn_f32(p)[2 * C + 1], 0);
    }
    ck_ok(pn_gate_softmax(tape, a, NULL, 0.5, 2, &p, &cost));
    ck_assert_float_eq(pn_f32(p)[0], 1);
    ck_assert_float_eq(pn_f32(p)[C], 0);
    terms[0] = filled(4, 4, 1, false); /* the same term in every layer */
    pn_tensor *sum = NULL, *loss, *zero = filled(4, 4, 0, false);
    for (int l = 0; l < L; l++) {
        ck_ok(pn_mix(tape, p, l, terms, C, &y));
        if (sum) ck_ok(pn_add(tape, sum, y, &y));
        sum = y;
    }
    ck_ok(pn_feature_loss(tape, sum, zero, &loss));
    ck_ok(pn_tape_backward(tape, loss));
    for (int i = 0; i < L * C; i++) ck_assert_float_eq_tol(pn_f32(a->grad)[i], 0, 1e-5f);
    teardown();
}
END_TEST

/* Logits of +-40000: softmax is 0 or 1, the losses are differences of logits, nothing overflows. */
START_TEST(extreme_logits) {
    setup();
    pn_tensor *h = filled(2, 1, 0, true), *W = filled(2000, 1, 0, true), *h_t = filled(2, 1, 0, false), *loss, *sum;
    pn_f32(h)[0] = 200, pn_f32(h)[1] = -200;
    pn_f32(h_t)[0] = -200, pn_f32(h_t)[1] = -200;
    pn_f32(W)[3] = 200, pn_f32(W)[1999] = -200; /* the student's best words: 3 and 1999 */
    pn_tensor *losses[2];
    ck_ok(pn_linear_cross_entropy(tape, h, W, ids(2, (int32_t[]){ 1999, 1999 }), NULL, &loss, NULL));
    ck_assert_float_eq_tol(pn_f32(loss)[0], 40000, 1e-2f); /* (80000 + 0) / 2 */
    losses[0] = loss;
    pn_tensor *first;
    ck_ok(pn_linear_kl(tape, h, W, h_t, W, NULL, 1, &loss, NULL, &first)); /* the teacher says 1999 twice */
    ck_assert_mem_eq(pn_i32(first), ((int32_t[]){ 3, 1999, 1999, 1999 }), 4 * sizeof(int32_t));
    ck_assert_float_eq_tol(pn_f32(loss)[0], 40000, 1e-2f);
    losses[1] = loss;
    ck_ok(pn_weighted_sum(tape, losses, (double[]){ 1, 0.5 }, 2, &sum));
    ck_assert_float_eq_tol(pn_f32(sum)[0], 60000, 1e-1f);
    ck_ok(pn_tape_backward(tape, sum));
    /* dz of row 0 is 1/2 at word 3 and -1/2 at 1999, times the 1.5 of the sum; row 1 is right already. */
    ck_assert_float_eq_tol(pn_f32(h->grad)[0], 1.5f * 200, 1e-3f);
    ck_assert_float_eq_tol(pn_f32(h->grad)[1], 0, 1e-3f);
    ck_assert_float_eq_tol(pn_f32(W->grad)[3], 1.5f * 100, 1e-3f);
    pn_tensor *best;
    pn_tape_record(tape, false);
    ck_ok(pn_linear_argmax(tape, h, W, &best));
    ck_assert_int_eq(pn_i32(best)[0], 3);
    ck_assert_int_eq(pn_i32(best)[1], 1999);
    teardown();
}
END_TEST

/* The op keeps nothing for a weight that does not train, and its gradient is not made. */
START_TEST(frozen_weights_keep_no_activations) {
    setup();
    pn_tensor *x = filled(3, 4, 1, true), *W = filled(5, 4, 1, false), *y, *z, *loss;
    pn_op_call call = { .op = &pn_op_linear, .n_in = 3, .in = { x, W }, .wants = { true, false, false } };
    ck_assert_uint_eq(pn_op_linear.contract->saves(&call), PN_SAVE_IN(1));
    call.wants[0] = false, call.wants[1] = true;
    ck_assert_uint_eq(pn_op_linear.contract->saves(&call), PN_SAVE_IN(0));
    pn_scope scope = pn_scope_open(tape);
    pn_tensor *h;
    ck_ok(pn_linear(tape, x, filled(4, 4, 1, false), NULL, &h));
    pn_tensor_retain_shell(h);
    ck_ok(pn_linear(tape, h, W, NULL, &y));
    ck_ok(pn_swiglu(tape, y, y, &z));
    ck_ok(pn_feature_loss(tape, z, filled(3, 5, 1, false), &loss));
    pn_scope_close(tape, scope, &loss, 1);
    ck_assert_ptr_null(h->storage);
    pn_tensor_release_shell(&h);
    ck_ok(pn_tape_backward(tape, loss));
    ck_assert_ptr_nonnull(x->grad);
    ck_assert_ptr_null(W->grad);
    teardown();
}
END_TEST

/* One pass through every op that sums over tokens; appends the bits of all gradients to `bits`. */
static size_t reductions(float *bits) {
    enum { N = 700, D = 300, H = 12 };
    setup();
    size_t n_bits = 0;
    pn_tensor *x = filled(N, D, 1, true), *w = filled(D, 0, 1, true), *b = filled(D, 0, 1, true);
    pn_tensor *eye = filled(D, D, 0, false), *head = filled(D / 5, 0, 1, true), *table = filled(40, D, 1, true);
    pn_tensor *a = filled(N, H, 3, true), *A_log = filled(H, 0, 2, true), *dt = filled(H, 0, 2, true), *y[9], *loss[3];
    pn_tensor *p = filled(2, 2, 1, true), *skip = filled(H, 0, 1, true);
    for (int i = 0; i < D; i++) pn_f32(eye)[i * D + i] = 1;
    int32_t id[N];
    for (int i = 0; i < N; i++) id[i] = (i * i + 3) % 40;
    ck_ok(pn_embedding(tape, ids(N, id), table, &y[0]));
    ck_ok(pn_linear(tape, x, eye, b, &y[1]));
    ck_ok(pn_rms_norm(tape, y[1], w, 1e-6, &y[2]));
    ck_ok(pn_gated_rms_norm(tape, y[2], y[0], head, D / 5, 1e-6, &y[3]));
    ck_ok(pn_l2_norm(tape, y[3], D / 5, true, &y[4]));
    ck_ok(pn_mix(tape, p, 1, (pn_tensor *[]){ y[4], y[2] }, 2, &y[6]));
    ck_ok(pn_time_step(tape, a, A_log, dt, 0.01, 1, &y[7], &y[8]));
    ck_ok(pn_head_scale(tape, y[6], y[7], y[2], &y[6]));
    ck_ok(pn_head_scale(tape, y[6], skip, NULL, &y[6]));
    ck_ok(pn_group_rms_norm(tape, y[6], w, 4, 1e-6, &y[6]));
    ck_ok(pn_feature_loss(tape, y[6], x, &loss[0]));
    ck_ok(pn_decay_gate(tape, y[8], A_log, dt, &y[5]));
    ck_ok(pn_feature_loss(tape, y[5], a, &loss[1]));
    ck_ok(pn_weighted_sum(tape, loss, (double[]){ 1, 0.25 }, 2, &loss[2]));
    ck_ok(pn_tape_backward(tape, loss[2]));
    pn_tensor *all[] = { x, w, b, head, table, a, A_log, dt, p, skip };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        size_t n = (size_t)pn_tensor_elems(all[i]->grad);
        memcpy(bits + n_bits, pn_f32(all[i]->grad), n * sizeof *bits);
        n_bits += n;
    }
    teardown();
    return n_bits;
}

START_TEST(sums_do_not_depend_on_the_number_of_threads) {
    float *one = calloc(1 << 19, sizeof *one), *more = calloc(1 << 19, sizeof *more);
    int before = omp_get_max_threads();
    omp_set_num_threads(1);
    size_t n = reductions(one);
    ck_assert_uint_le(n, 1 << 19);
    for (int threads = 2; threads <= 5; threads += 3) {
        omp_set_num_threads(threads);
        ck_assert_uint_eq(reductions(more), n);
        ck_assert_msg(!memcmp(one, more, n * sizeof *one), "%d threads give other bits than one", threads);
    }
    omp_set_num_threads(before);
    double norm = 0;
    for (size_t i = 0; i < n; i++) norm += (double)one[i] * (double)one[i];
    ck_assert_double_gt(norm, 0);
    free(one);
    free(more);
}
END_TEST

/* Losses, dh and dW of both projection losses, one after another, and the argmax of every row as a number. */
static size_t projections(double *value) {
    enum { N = 40, D = 12, V = 5000 };
    setup();
    size_t n_values = 0;
    pn_tensor *h = filled(N, D, 1, true), *W = filled(V, D, 1, true), *h_t = filled(N, D, 0.7f, false), *loss[3], *best;
    int32_t id[N];
    for (int i = 0; i < N; i++) id[i] = i % 7 ? i * 127 : PN_IGNORE;
    ck_ok(pn_linear_cross_entropy(tape, h, W, ids(N, id), NULL, &loss[0], NULL));
    ck_ok(pn_linear_kl(tape, h, W, h_t, W, NULL, 2, &loss[1], NULL, NULL));
    ck_ok(pn_weighted_sum(tape, loss, (double[]){ 1, 1 }, 2, &loss[2]));
    ck_ok(pn_tape_backward(tape, loss[2]));
    pn_tensor *all[] = { loss[0], loss[1], h->grad, W->grad };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (int64_t k = 0; k < pn_tensor_elems(all[i]); k++) value[n_values++] = (double)pn_f32(all[i])[k];
    pn_tape_record(tape, false);
    ck_ok(pn_linear_argmax(tape, h, W, &best));
    for (int i = 0; i < N; i++) value[n_values++] = pn_i32(best)[i];
    teardown();
    return n_values;
}

/* Threads share out the vocabulary: how many there are changes rounding and nothing else. */
START_TEST(projections_agree_for_any_number_of_threads) {
    double *one = calloc(1 << 17, sizeof *one), *more = calloc(1 << 17, sizeof *more);
    int before = omp_get_max_threads();
    omp_set_num_threads(1);
    size_t n = projections(one);
    ck_assert_uint_le(n, 1 << 17);
    for (int threads = 2; threads <= 11; threads += 3) {
        omp_set_num_threads(threads);
        ck_assert_uint_eq(projections(more), n);
        for (size_t i = 0; i < n; i++) ck_assert_double_le(fabs(more[i] - one[i]), 1e-6 * (0.01 + fabs(one[i])));
    }
    omp_set_num_threads(before);
    free(one);
    free(more);
}
END_TEST

TEST_MAIN("dense", wrong_input_is_a_usage_error, known_values, gates_spend_their_budget, extreme_logits,
          frozen_weights_keep_no_activations, sums_do_not_depend_on_the_number_of_threads,
          projections_agree_for_any_number_of_threads)
