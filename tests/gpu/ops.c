/* Every op that has CUDA implementations, in F32 and BF16: each against the double-precision reference on the quick
 * cases of its contract, run twice for equal bits. `test_gpu_ops NAME` runs one op with a row per case. The small
 * cases without a name: scripts/gpu-tests.sh runs all of them, ops in parallel. */
#include "gpu.h"

#include <math.h>
#include <string.h>

#include "add/add.h"
#include "add_rms_norm/add_rms_norm.h"
#include "attention/attention.h"
#include "embedding/embedding.h"
#include "linear/linear.h"
#include "linear_cross_entropy/linear_cross_entropy.h"
#include "op_case.h"
#include "op_check.h"
#include "op_each.h"
#include "tape.h"

static bool asked(const pn_op *op) {
    const char *only = *ck_argument();
    return op->impl[PN_CUDA][0] && (!only || !strcmp(only, op->name));
}

static void against_reference(pn_dtype type) {
    int n, passed = 0, failed = 0, tested = 0;
    const pn_op *const *ops = pn_op_list(&n);
    for (int i = 0; i < n; i++) {
        if (!asked(ops[i])) continue;
        pn_op_check_options o = {
            .backend = PN_CUDA, .type = type, .small = !*ck_argument(), .out = stdout, .failures_only = !*ck_argument()
        };
        int before = failed;
        ck_ok(pn_op_check(ops[i], &o, &passed, &failed));
        ck_assert_msg(failed == before, "%s: %d cases failed", ops[i]->name, failed - before);
        tested++;
    }
    printf("cuda: %d cases of %d ops passed in %s\n", passed, tested, pn_dtype_name(type));
    ck_assert_int_gt(passed, 0);
}

START_TEST(f32_against_reference) {
    ck_need_gpu();
    against_reference(PN_F32);
}
END_TEST
START_TEST(bf16_against_reference) {
    ck_need_gpu();
    against_reference(PN_BF16);
}
END_TEST

/* In either type; only shapes are looked at. */
static bool takes(const pn_op_impl *impl, const pn_op *op, const pn_op_case *c) {
    pn_case_call x;
    bool taken = false;
    for (int i = 0; i < 2 && !taken; i++) {
        ck_ok(pn_case_call_make(op, c, PN_PLAN, i ? PN_BF16 : PN_F32, &x));
        taken = pn_op_takes(impl, &x.call);
        pn_case_call_free(&x);
    }
    return taken;
}

/* An implementation that refuses every case would pass them all. */
START_TEST(every_implementation_takes_a_case) {
    ck_need_gpu();
    int n;
    const pn_op *const *ops = pn_op_list(&n);
    for (int i = 0; i < n; i++)
        for (const pn_op_impl *const *impl = ops[i]->impl[PN_CUDA]; *impl; impl++) {
            pn_op_case c;
            bool taken = false;
            for (int k = 0; !taken; k++) {
                memset(&c, 0, sizeof c);
                ck_assert_msg(ops[i]->contract->case_at(k, &c), "no case of %s is one for %s", ops[i]->name,
                              (*impl)->name);
                taken = takes(*impl, ops[i], &c);
            }
        }
}
END_TEST

/* What sanitizers run must reach all that this GPU has, in one type or the other. */
START_TEST(each_runs_every_implementation) {
    ck_need_gpu();
    int n, count[2];
    const pn_op *const *ops = pn_op_list(&n);
    for (int i = 0; i < n; i++) {
        pn_op_sample *sample[2];
        for (int k = 0; k < 2; k++) ck_ok(pn_op_each(ops[i], PN_CUDA, k ? PN_BF16 : PN_F32, &sample[k], &count[k]));
        for (const pn_op_impl *const *impl = ops[i]->impl[PN_CUDA]; *impl; impl++) {
            bool run = false;
            for (int k = 0; k < 2; k++)
                for (int s = 0; s < count[k]; s++) run = run || sample[k][s].impl == *impl;
            ck_assert_msg(run, "%s is in no sample", (*impl)->name);
        }
        for (int k = 0; k < 2; k++) free(sample[k]);
    }
}
END_TEST

/* Attention's backward of some documents of `all`, from gradient dy: gradients of q, k and v, as floats, in out. */
enum { LONG = 2112, HEADS = 32, WIDTH = 64, DOCS = 4 };
static void attention_backward(pn_tape *t, pn_tensor *const all[4], int64_t first, int64_t n, float *out[3]) {
    int64_t offset[DOCS + 1];
    pn_tensor *in[4], *y;
    for (int64_t i = 0; i <= n; i++) offset[i] = i * LONG;
    const pn_attention_attr a = {
        .docs = { .n = n, .offset = offset }, .heads = HEADS, .kv_heads = HEADS / 4, .head_dim = WIDTH, .scale = 0.125
    };
    for (int i = 0; i < 4; i++) {
        ck_ok(pn_tensor_rows(all[i], first * LONG, (first + n) * LONG, &in[i]));
        in[i]->wants_grad = i < 3;
    }
    ck_ok(pn_attention(t, in[0], in[1], in[2], &a, &y));
    ck_ok(pn_tape_backward_from(t, &y, &in[3], 1));
    for (int i = 0; i < 3; i++) {
        ck_ok(pn_tensor_read(in[i]->grad, out[i] + first * LONG * all[i]->shape[1], PN_F32));
        pn_tensor_release(&in[i]->grad);
    }
    pn_tape_reset(t);
    for (int i = 0; i < 4; i++) pn_tensor_release(&in[i]);
}

/* Many long documents are taken a few at a time (attention_cudnn_cuda.c): as if each were alone. */
START_TEST(attention_of_long_documents_in_parts) {
    ck_need_gpu();
    static const int64_t cols[] = { HEADS * WIDTH, HEADS / 4 * WIDTH, HEADS / 4 * WIDTH, HEADS * WIDTH };
    pn_tensor *all[4];
    float *together[3], *alone[3];
    pn_tape *t;
    ck_ok(pn_tape_create_typed(PN_CUDA, PN_BF16, &t));
    for (int i = 0; i < 4; i++) {
        const int64_t n = (int64_t)DOCS * LONG * cols[i];
        float *values = malloc((size_t)n * sizeof *values);
        uint32_t random = (uint32_t)i + 1;
        for (int64_t k = 0; k < n; k++) {
            random = random * 1664525u + 1013904223u;
            values[k] = (float)(random >> 8) * 0x1p-23F - 1;
        }
        ck_ok(pn_tensor_create(pn_tape_pool(t), PN_BF16, 2, (int64_t[]){ DOCS * LONG, cols[i] }, &all[i]));
        ck_ok(pn_tensor_write(all[i], values, PN_F32));
        free(values);
        if (i == 3) break;
        together[i] = malloc((size_t)n * sizeof(float));
        alone[i] = malloc((size_t)n * sizeof(float));
    }
    attention_backward(t, all, 0, DOCS, together);
    for (int d = 0; d < DOCS; d++) attention_backward(t, all, d, 1, alone);
    for (int i = 0; i < 3; i++) {
        double difference = 0, size = 0;
        for (int64_t k = 0; k < DOCS * LONG * cols[i]; k++) {
            const double x = alone[i][k], d = together[i][k] - x;
            difference += d * d;
            size += x * x;
        }
        ck_assert_msg(size > 0 && difference <= 1e-4 * size, "gradient %d is off by %g of it", i,
                      sqrt(difference / size));
        free(together[i]);
        free(alone[i]);
    }
    for (int i = 0; i < 4; i++) pn_tensor_release(&all[i]);
    pn_tape_destroy(&t);
}
END_TEST

/* The kernel may not read outside the table; the next wait says which id it was, once. */
START_TEST(an_id_outside_the_table_is_reported) {
    ck_need_gpu();
    enum { N = 300, V = 40, D = 17 };
    int32_t id[N];
    float table_values[V * D], y_values[N * D];
    for (int i = 0; i < N; i++) id[i] = i % V;
    for (int i = 0; i < V * D; i++) table_values[i] = (float)i;
    pn_tape *t;
    pn_tensor *ids, *table, *y;
    ck_ok(pn_tape_create(PN_CUDA, &t));
    ck_ok(pn_tape_new(t, PN_I32, 1, (int64_t[]){ N }, &ids));
    ck_ok(pn_tape_new(t, PN_F32, 2, (int64_t[]){ V, D }, &table));
    ck_ok(pn_tensor_write(table, table_values, PN_F32));
    static const int32_t wrong[] = { V, -1, INT32_MAX, INT32_MIN };
    for (int k = 0; k < 4; k++) {
        char message[64];
        id[217] = wrong[k];
        ck_ok(pn_tensor_write(ids, id, PN_I32));
        ck_ok(pn_embedding(t, ids, table, &y));
        ck_assert_int_eq(pn_device_sync(), PN_USAGE);
        snprintf(message, sizeof message, "embedding: token id %d at position 217 is outside 0 .. 39", (int)wrong[k]);
        ck_assert_msg(strstr(pn_error_message(), message), "%s", pn_error_message());
        ck_ok(pn_device_sync());
    }
    id[217] = 3;
    ck_ok(pn_tensor_write(ids, id, PN_I32));
    ck_ok(pn_embedding(t, ids, table, &y));
    ck_ok(pn_tensor_read(y, y_values, PN_F32));
    for (int i = 0; i < N * D; i++) ck_assert_float_eq(y_values[i], table_values[id[i / D] * D + i % D]);
    pn_tape_destroy(&t);
}
END_TEST

static pn_tensor *made(pn_tape *t, int64_t rows, int64_t cols, double first, double step) {
    pn_tensor *x;
    double *values = malloc((size_t)(rows * (cols ? cols : 1)) * sizeof *values);
    ck_ok(pn_tape_new(t, PN_F32, cols ? 2 : 1, (int64_t[]){ rows, cols }, &x));
    for (int64_t i = 0; i < pn_tensor_elems(x); i++) values[i] = first + step * (double)(i % 23);
    ck_ok(pn_tensor_write(x, values, PN_F64));
    free(values);
    return x;
}

START_TEST(targets_and_weights_outside_the_contract_are_reported) {
    ck_need_gpu();
    enum { N = 70, V = 30, D = 8 };
    pn_tape *t;
    pn_tensor *targets, *loss;
    int32_t target[N];
    float weight[N];
    ck_ok(pn_tape_create(PN_CUDA, &t));
    pn_tensor *h = made(t, N, D, -1, 0.1), *W = made(t, V, D, 1, -0.1), *weights = made(t, N, 0, 1, 0);
    ck_ok(pn_tape_new(t, PN_I32, 1, (int64_t[]){ N }, &targets));
    for (int i = 0; i < N; i++) target[i] = i % V, weight[i] = 1;
    for (int wrong = 0; wrong < 4; wrong++) {
        target[41] = wrong == 0 ? V : wrong == 1 ? PN_IGNORE - 1 : PN_IGNORE;
        weight[13] = wrong == 2 ? -0.5f : wrong == 3 ? NAN : 1;
        ck_ok(pn_tensor_write(targets, target, PN_I32));
        ck_ok(pn_tensor_write(weights, weight, PN_F32));
        ck_ok(pn_linear_cross_entropy(t, h, W, targets, weights, &loss, NULL));
        ck_assert_int_eq(pn_device_sync(), PN_USAGE);
        ck_assert_ptr_nonnull(strstr(pn_error_message(), wrong < 2 ? "target " : "weight "));
        ck_assert_ptr_nonnull(strstr(pn_error_message(), wrong < 2 ? "at position 41 is outside -1 .. 29"
                                                                   : "of row 13 is not a finite number >= 0"));
    }
    weight[13] = 0;
    ck_ok(pn_tensor_write(weights, weight, PN_F32));
    ck_ok(pn_linear_cross_entropy(t, h, W, targets, weights, &loss, NULL));
    ck_ok(pn_device_sync());
    pn_tape_destroy(&t);
}
END_TEST

/* More logits than fit one tile, the last of which is not full: against the CPU. */
START_TEST(a_large_vocabulary_takes_several_tiles) {
    ck_need_gpu();
    enum { N = 901, V = 151936, D = 16 };
    float loss[2], *dh[2], *dW[2];
    for (int gpu = 0; gpu < 2; gpu++) {
        pn_tape *t;
        pn_tensor *targets, *y;
        int32_t target[N];
        ck_ok(pn_tape_create(gpu ? PN_CUDA : PN_CPU, &t));
        pn_tensor *h = made(t, N, D, -1, 0.1), *W = made(t, V, D, 1, -0.07);
        h->wants_grad = W->wants_grad = true;
        for (int i = 0; i < N; i++) target[i] = i % 7 ? (i * 7919) % V : PN_IGNORE;
        ck_ok(pn_tape_new(t, PN_I32, 1, (int64_t[]){ N }, &targets));
        ck_ok(pn_tensor_write(targets, target, PN_I32));
        ck_ok(pn_linear_cross_entropy(t, h, W, targets, NULL, &y, NULL));
        ck_ok(pn_tensor_read(y, &loss[gpu], PN_F32));
        ck_ok(pn_tape_backward(t, y));
        dh[gpu] = malloc(pn_tensor_bytes(h));
        dW[gpu] = malloc(pn_tensor_bytes(W));
        ck_ok(pn_tensor_read(h->grad, dh[gpu], PN_F32));
        ck_ok(pn_tensor_read(W->grad, dW[gpu], PN_F32));
        pn_tensor_release(&h->grad);
        pn_tensor_release(&W->grad);
        pn_tape_destroy(&t);
    }
    ck_assert_float_eq_tol(loss[1], loss[0], 1e-5f * loss[0]);
    for (int k = 0; k < 2; k++) {
        int64_t n = (int64_t)(k ? V : N) * D;
        const float *cpu = k ? dW[0] : dh[0];
        double *expected = malloc((size_t)n * sizeof *expected);
        for (int64_t i = 0; i < n; i++) expected[i] = (double)cpu[i];
        ck_assert_double_le(pn_relative_error(k ? dW[1] : dh[1], expected, n), 2e-5);
        free(expected);
    }
    for (int gpu = 0; gpu < 2; gpu++) free(dh[gpu]), free(dW[gpu]);
}
END_TEST

/* Rows of a matrix of 5 columns start anywhere: kernels and cuBLASLt's plans must not assume 16 bytes. */
START_TEST(views_of_rows_need_no_alignment) {
    ck_need_gpu();
    enum { N = 90, K = 5, M = 7 };
    float got[2][N * M], dx[2][N * K];
    for (int64_t begin = 0; begin < 4; begin++) {
        for (int gpu = 0; gpu < 2; gpu++) {
            pn_tape *t;
            pn_tensor *x, *y, *z;
            ck_ok(pn_tape_create(gpu ? PN_CUDA : PN_CPU, &t));
            pn_tensor *base = made(t, N + 4, K, -1, 0.07), *w = made(t, M, K, 0.9, -0.05);
            ck_ok(pn_tensor_rows(base, begin, begin + N, &x));
            ck_ok(pn_tape_own(t, x));
            x->wants_grad = w->wants_grad = true;
            ck_ok(pn_add(t, x, x, &y));
            ck_ok(pn_linear(t, x, w, NULL, &z));
            ck_ok(pn_linear(t, y, w, NULL, &y));
            ck_ok(pn_add(t, y, z, &y));
            pn_tensor *dy = made(t, N, M, 0.3, 0.02);
            ck_ok(pn_tensor_read(y, got[gpu], PN_F32));
            ck_ok(pn_tape_backward_from(t, &y, &dy, 1));
            ck_ok(pn_tensor_read(x->grad, dx[gpu], PN_F32));
            pn_tensor_release(&x->grad);
            pn_tensor_release(&w->grad);
            pn_tape_destroy(&t);
        }
        for (int i = 0; i < N * M; i++) ck_assert_float_eq_tol(got[1][i], got[0][i], 1e-4f);
        for (int i = 0; i < N * K; i++) ck_assert_float_eq_tol(dx[1][i], dx[0][i], 1e-4f);
    }
}
END_TEST

/* Whichever of its outputs gradients come to, and where its inputs are one tensor: against the CPU. */
START_TEST(add_rms_norm_with_some_gradients) {
    ck_need_gpu();
    enum { N = 70, D = 48, S = 1, Y = 2 };
    float got[2][2 * N * D];
    for (int k = 0; k < 6; k++) {
        const int used = k % 3 + 1;
        for (int gpu = 0; gpu < 2; gpu++) {
            pn_tape *t;
            ck_ok(pn_tape_create(gpu ? PN_CUDA : PN_CPU, &t));
            pn_tensor *x = made(t, N, D, -1, 0.07), *r = k < 3 ? made(t, N, D, 0.8, -0.09) : x, *s, *y;
            pn_tensor *w = made(t, D, 0, 0.5, 0.04), *grad[] = { made(t, N, D, 0.3, 0.02), made(t, N, D, -0.2, 0.03) };
            x->wants_grad = r->wants_grad = true;
            ck_ok(pn_add_rms_norm(t, x, r, w, 1e-6, &s, &y));
            pn_tensor *out[] = { used & S ? s : y, y };
            ck_ok(pn_tape_backward_from(t, out, grad, used == (S | Y) ? 2 : 1));
            ck_ok(pn_tensor_read(x->grad, got[gpu], PN_F32));
            ck_ok(pn_tensor_read(r->grad, got[gpu] + N * D, PN_F32));
            pn_tensor_release(&x->grad);
            pn_tensor_release(&r->grad);
            pn_tape_destroy(&t);
        }
        for (int i = 0; i < 2 * N * D; i++) ck_assert_float_eq_tol(got[1][i], got[0][i], 1e-5f);
    }
}
END_TEST

TEST_MAIN("ops", every_implementation_takes_a_case, each_runs_every_implementation, f32_against_reference,
          bf16_against_reference, attention_of_long_documents_in_parts, an_id_outside_the_table_is_reported,
          targets_and_weights_outside_the_contract_are_reported, a_large_vocabulary_takes_several_tiles,
          views_of_rows_need_no_alignment, add_rms_norm_with_some_gradients)
