/* gated_linear where a table of random cases says little: wrong input, decays without end, and results whose bits must
 * not depend on the number of threads. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "gated_linear/gated_linear.h"
#include "harness.h"
#include "tape.h"

static pn_tape *tape;

static pn_tensor *tensor(int rank, const int64_t *shape, float lo, float hi) {
    pn_tensor *t;
    ck_ok(pn_tape_new(tape, PN_F32, rank, shape, &t));
    uint32_t s = 12345;
    for (int64_t i = 0, n = pn_tensor_elems(t); i < n; i++) {
        s = s * 1664525u + 1013904223u;
        pn_f32(t)[i] = lo + (hi - lo) * ((float)(s >> 8) * 0x1p-24f);
    }
    t->wants_grad = true;
    return t;
}
static pn_tensor *matrix(int64_t rows, int64_t cols, float lo, float hi) {
    return tensor(2, (int64_t[]){ rows, cols }, lo, hi);
}

static void ck_usage(pn_status s, const char *part) {
    ck_assert_int_eq(s, PN_USAGE);
    ck_assert_msg(strstr(pn_error_message(), part), "\"%s\" does not say \"%s\"", pn_error_message(), part);
    pn_error_clear();
}

START_TEST(wrong_input_is_a_usage_error) {
    ck_ok(pn_tape_create(PN_CPU, &tape));
    static const int64_t offset[] = { 0, 5 }, too_long[] = { 0, 6 };
    const pn_gated_linear_attr good = { .docs = { .n = 1, .offset = offset },
                                        .heads = 4,
                                        .q_heads = 4,
                                        .k_heads = 2,
                                        .v_heads = 1,
                                        .g_heads = 2,
                                        .dk = 3,
                                        .dv = 2,
                                        .vector_gate = true,
                                        .scale = 1 };
    pn_tensor *q = matrix(5, 12, -1, 1), *k = matrix(5, 6, -1, 1), *v = matrix(5, 2, -1, 1), *g = matrix(5, 6, -1, 0);
    pn_tensor *S0 = tensor(4, (int64_t[]){ 1, 4, 3, 2 }, -1, 1), *o, *S;
    ck_ok(pn_gated_linear(tape, &good, q, k, v, g, S0, &o, &S));
    pn_gated_linear_attr a = good;
    a.k_heads = 3;
    ck_usage(pn_gated_linear(tape, &a, q, k, v, g, S0, &o, &S), "3 heads of k for 4 heads; their number must divide");
    a = good, a.g_heads = 8;
    ck_usage(pn_gated_linear(tape, &a, q, k, v, g, S0, &o, &S), "8 heads of g for 4 heads");
    a = good, a.heads = 0;
    ck_usage(pn_gated_linear(tape, &a, q, k, v, g, S0, &o, &S), "0 heads; there must be at least 1");
    a = good, a.dv = 0;
    ck_usage(pn_gated_linear(tape, &a, q, k, v, g, S0, &o, &S), "dk 3, dv 0; they must be at least 1");
    a = good, a.vector_gate = false;
    ck_usage(pn_gated_linear(tape, &a, q, k, v, g, S0, &o, &S), "input g is f32 [5, 6]; it must be f32 [5, 2]");
    a = good, a.docs.offset = too_long;
    ck_usage(pn_gated_linear(tape, &a, q, k, v, g, S0, &o, &S), "gated_linear");
    ck_usage(pn_gated_linear(tape, &good, q, v, v, g, S0, &o, &S), "input k is f32 [5, 2]; it must be f32 [5, 6]");
    ck_usage(pn_gated_linear(tape, &good, q, k, k, g, S0, &o, &S), "input v is f32 [5, 6]; it must be f32 [5, 2]");
    ck_usage(pn_gated_linear(tape, &good, q, k, v, g, q, &o, &S), "S0 is f32 [5, 12]; it must be f32 [1, 4, 3, 2]");
    ck_usage(pn_gated_linear(tape, &good, NULL, k, v, g, S0, &o, &S), "are its inputs, in this order");
    pn_tape_destroy(&tape);
}
END_TEST

enum { T = 150, HEADS = 3, DK = 20, DV = 130 };
static const int64_t documents[] = { 0, 1, 70, T };

/* o, S_T and all gradients of a call with shared keys, values and gates, one after another. */
static size_t everything(bool vector_gate, float decay, float *bits) {
    ck_ok(pn_tape_create(PN_CPU, &tape));
    const pn_gated_linear_attr a = { .docs = { .n = 3, .offset = documents },
                                     .heads = HEADS,
                                     .q_heads = HEADS,
                                     .k_heads = 1,
                                     .v_heads = 1,
                                     .g_heads = 1,
                                     .dk = DK,
                                     .dv = DV,
                                     .vector_gate = vector_gate,
                                     .scale = 0.5 };
    pn_tensor *in[] = { matrix(T, HEADS * DK, -1, 1), matrix(T, DK, -1, 1), matrix(T, DV, -1, 1),
                        matrix(T, vector_gate ? DK : 1, decay, decay / 2),
                        tensor(4, (int64_t[]){ 3, HEADS, DK, DV }, -1, 1) };
    pn_tensor *out[2], *grad[2];
    ck_ok(pn_gated_linear(tape, &a, in[0], in[1], in[2], in[3], in[4], &out[0], &out[1]));
    for (int i = 0; i < 2; i++) {
        out[i] = pn_tensor_retain(out[i]);
        grad[i] = tensor(out[i]->rank, out[i]->shape, -1, 1);
    }
    ck_ok(pn_tape_backward_from(tape, out, grad, 2));
    size_t n = 0;
    for (int i = 0; i < 7; i++) {
        const pn_tensor *t = i < 2 ? out[i] : in[i - 2]->grad;
        memcpy(bits + n, pn_f32(t), pn_tensor_bytes(t));
        n += (size_t)pn_tensor_elems(t);
    }
    for (int i = 0; i < 2; i++) pn_tensor_release(&out[i]);
    pn_tape_destroy(&tape);
    return n;
}
enum { VALUES = 1 << 18 };

START_TEST(bits_do_not_depend_on_the_number_of_threads) {
    float *one = calloc(VALUES, sizeof *one), *more = calloc(VALUES, sizeof *more);
    int before = omp_get_max_threads();
    for (int vector = 0; vector < 2; vector++) {
        omp_set_num_threads(1);
        size_t n = everything(vector, -1, one);
        ck_assert_uint_le(n, VALUES);
        for (int threads = 2; threads <= 8; threads += 3) {
            omp_set_num_threads(threads);
            ck_assert_uint_eq(everything(vector, -1, more), n);
            ck_assert_msg(!memcmp(one, more, n * sizeof *one), "%d threads give other bits than one", threads);
        }
    }
    omp_set_num_threads(before);
    free(one);
    free(more);
}
END_TEST

/* Each token forgets all before it: o = scale <q, k> v, the state is the last k v^T, nothing reaches S0 or the gate. */
START_TEST(decays_without_end) {
    float *x = calloc(VALUES, sizeof *x);
    static const float decays[] = { -200, -1e5f, -1e30f };
    for (int k = 0; k < 6; k++) {
        size_t n = everything(k % 2, decays[k / 2], x), state = 3 * (size_t)HEADS * DK * DV, gate = T;
        if (k % 2) gate *= DK;
        for (size_t i = 0; i < n; i++) ck_assert_msg(isfinite(x[i]), "value %zu is %g", i, (double)x[i]);
        for (size_t i = n - state - gate; i < n; i++) ck_assert_float_eq(x[i], 0);
        ck_ok(pn_tape_create(PN_CPU, &tape));
        const float *q = pn_f32(matrix(T, HEADS * DK, -1, 1)), *key = pn_f32(matrix(T, DK, -1, 1));
        const float *v = pn_f32(matrix(T, DV, -1, 1));
        for (int t = 0; t < T; t++)
            for (int h = 0; h < HEADS; h++) {
                double score = 0;
                for (int i = 0; i < DK; i++) score += (double)q[(t * HEADS + h) * DK + i] * (double)key[t * DK + i];
                for (int c = 0; c < DV; c++)
                    ck_assert_double_eq_tol((double)x[(t * HEADS + h) * DV + c], 0.5 * score * (double)v[t * DV + c],
                                            1e-5);
            }
        const float *last = x + T * HEADS * DV + 2 * HEADS * DK * DV; /* of the third document's first head */
        for (int i = 0; i < DK; i++)
            for (int c = 0; c < DV; c++)
                ck_assert_float_eq(last[i * DV + c], key[(T - 1) * DK + i] * v[(T - 1) * DV + c]);
        pn_tape_destroy(&tape);
    }
    free(x);
}
END_TEST

TEST_MAIN("gated_linear", wrong_input_is_a_usage_error, bits_do_not_depend_on_the_number_of_threads, decays_without_end)
