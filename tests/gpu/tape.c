/* A tape on the GPU: an MLP with a loss, forward and backward, against the same on the CPU and against itself. */
#include "gpu.h"

#include <math.h>
#include <string.h>

#include "add/add.h"
#include "embedding/embedding.h"
#include "feature_loss/feature_loss.h"
#include "linear/linear.h"
#include "op_check.h"
#include "rms_norm/rms_norm.h"
#include "rng.h"
#include "swiglu/swiglu.h"
#include "tape.h"
#include "weighted_sum/weighted_sum.h"

enum { N = 130, V = 50, D = 96, I = 160, LAYERS = 2, LEAVES = 6 };
/* Table, norm, gate, up, down, and the target, which trains nothing. */
static const int64_t shapes[LEAVES][2] = { { V, D }, { D, 0 }, { I, D }, { I, D }, { D, I }, { N, D } };
enum { TABLE, NORM, GATE, UP, DOWN, TARGET };

typedef struct net {
    pn_tensor *leaf[LEAVES], *ids;
} net;

typedef struct outcome {
    double loss;
    float *grad[TARGET]; /* owned */
} outcome;

static pn_status layer(pn_tape *t, const void *ctx, pn_tensor *const *in, int n_in, pn_tensor **out, int n_out) {
    (void)n_in, (void)n_out;
    const net *n = ctx;
    pn_tensor *x, *gate, *up, *mixed;
    PN_TRY(pn_rms_norm(t, in[0], n->leaf[NORM], 1e-6, &x));
    PN_TRY(pn_linear(t, x, n->leaf[GATE], NULL, &gate));
    PN_TRY(pn_linear(t, x, n->leaf[UP], NULL, &up));
    PN_TRY(pn_swiglu(t, gate, up, &mixed));
    PN_TRY(pn_linear(t, mixed, n->leaf[DOWN], NULL, &x));
    PN_TRY(pn_add(t, in[0], x, out));
    return PN_OK;
}

static net net_create(pn_pool *pool) {
    net n = { 0 };
    pn_rng rng;
    pn_rng_stream(20, "gpu tape", 0, &rng);
    for (int k = 0; k < LEAVES; k++) {
        ck_ok(pn_tensor_create(pool, PN_F32, shapes[k][1] ? 2 : 1, shapes[k], &n.leaf[k]));
        int64_t count = pn_tensor_elems(n.leaf[k]);
        double *x = malloc((size_t)count * sizeof *x);
        for (int64_t i = 0; i < count; i++) x[i] = pn_rng_normal(&rng) * (k == NORM || k == TABLE ? 1 : 0.1);
        ck_ok(pn_tensor_write(n.leaf[k], x, PN_F64));
        free(x);
        n.leaf[k]->wants_grad = k != TARGET;
    }
    int32_t ids[N];
    for (int i = 0; i < N; i++) ids[i] = (i * i + 3) % V;
    ck_ok(pn_tensor_create(pool, PN_I32, 1, (int64_t[]){ N }, &n.ids));
    ck_ok(pn_tensor_write(n.ids, ids, PN_I32));
    return n;
}

/* A step of training but for the optimizer, three times over: the third must need no more memory than the second. */
static outcome step(pn_backend backend, bool recompute) {
    pn_tape *t;
    pn_pool *pool;
    outcome o = { 0 };
    ck_ok(pn_tape_create(backend, &t));
    ck_ok(pn_pool_create(pn_backend_pool(backend), &pool));
    net n = net_create(pool);
    size_t taken = 0;
    for (int again = 0; again < 3; again++) {
        pn_tensor *x, *y, *loss;
        for (int k = 0; k < LEAVES; k++) pn_tensor_release(&n.leaf[k]->grad);
        ck_ok(pn_embedding(t, n.ids, n.leaf[TABLE], &x));
        for (int l = 0; l < LAYERS; l++, x = y) {
            if (recompute)
                ck_ok(pn_tape_recompute(t, layer, &n, sizeof n, &x, 1, &y, 1));
            else
                ck_ok(layer(t, &n, &x, 1, &y, 1));
        }
        ck_ok(pn_feature_loss(t, x, n.leaf[TARGET], &loss));
        ck_ok(pn_weighted_sum(t, &loss, &(double){ 0.7 }, 1, &loss));
        ck_ok(pn_tensor_read(loss, &o.loss, PN_F64));
        ck_ok(pn_tape_backward(t, loss));
        pn_tape_reset(t);
        if (again == 1) taken = pn_pool_system_bytes(pn_tape_pool(t));
    }
    ck_assert_uint_eq(pn_pool_system_bytes(pn_tape_pool(t)), taken);
    for (int k = 0; k < TARGET; k++) {
        ck_assert_ptr_nonnull(n.leaf[k]->grad);
        o.grad[k] = malloc(pn_tensor_bytes(n.leaf[k]));
        ck_ok(pn_tensor_read(n.leaf[k]->grad, o.grad[k], PN_F32));
    }
    for (int k = 0; k < LEAVES; k++) pn_tensor_release(&n.leaf[k]);
    pn_tensor_release(&n.ids);
    pn_tape_destroy(&t);
    pn_pool_destroy(&pool);
    return o;
}

static int64_t elems(int k) {
    return shapes[k][0] * (shapes[k][1] ? shapes[k][1] : 1);
}

static void outcome_free(outcome *o) {
    for (int k = 0; k < TARGET; k++) free(o->grad[k]);
}

START_TEST(a_step_agrees_with_the_cpu) {
    ck_need_gpu();
    outcome cpu = step(PN_CPU, false), gpu = step(PN_CUDA, false);
    ck_assert_double_gt(cpu.loss, 0);
    ck_assert_double_eq_tol(gpu.loss, cpu.loss, 1e-5 * cpu.loss);
    for (int k = 0; k < TARGET; k++) {
        double *expected = malloc((size_t)elems(k) * sizeof *expected), norm = 0;
        for (int64_t i = 0; i < elems(k); i++) norm += fabs(expected[i] = (double)cpu.grad[k][i]);
        ck_assert_double_gt(norm, 0);
        double error = pn_relative_error(gpu.grad[k], expected, elems(k));
        ck_assert_msg(error <= 2e-5, "gradient %d is %g from the CPU's", k, error);
        free(expected);
    }
    outcome_free(&cpu);
    outcome_free(&gpu);
}
END_TEST

static void ck_same_bits(const outcome *a, const outcome *b, const char *what) {
    ck_assert_msg(!memcmp(&a->loss, &b->loss, sizeof a->loss), "%s: the loss has other bits", what);
    for (int k = 0; k < TARGET; k++)
        ck_assert_msg(!memcmp(a->grad[k], b->grad[k], (size_t)elems(k) * sizeof(float)),
                      "%s: gradient %d has other bits", what, k);
}

START_TEST(a_step_has_the_same_bits_every_time) {
    ck_need_gpu();
    outcome first = step(PN_CUDA, false);
    for (int i = 0; i < 3; i++) {
        outcome again = step(PN_CUDA, false);
        ck_same_bits(&first, &again, "run again");
        outcome_free(&again);
    }
    outcome_free(&first);
}
END_TEST

START_TEST(recomputing_changes_nothing_that_counts) {
    ck_need_gpu();
    outcome kept = step(PN_CUDA, false), made_again = step(PN_CUDA, true);
    ck_assert_double_eq(kept.loss, made_again.loss);
    for (int k = 0; k < TARGET; k++) {
        double *expected = malloc((size_t)elems(k) * sizeof *expected);
        for (int64_t i = 0; i < elems(k); i++) expected[i] = (double)kept.grad[k][i];
        ck_assert_double_le(pn_relative_error(made_again.grad[k], expected, elems(k)), 1e-6);
        free(expected);
    }
    outcome_free(&kept);
    outcome_free(&made_again);
}
END_TEST

START_TEST(a_loss_that_is_not_finite_is_refused) {
    ck_need_gpu();
    pn_tape *t;
    pn_tensor *x, *loss;
    ck_ok(pn_tape_create(PN_CUDA, &t));
    ck_ok(pn_tape_new(t, PN_F32, 1, (int64_t[]){ 1 }, &x));
    x->wants_grad = true;
    ck_ok(pn_tensor_write(x, &(double){ INFINITY }, PN_F64));
    ck_ok(pn_weighted_sum(t, &x, &(double){ 1 }, 1, &loss));
    ck_assert_int_eq(pn_tape_backward(t, loss), PN_NUMERIC);
    pn_tape_destroy(&t);
}
END_TEST

/* What an op without CUDA says: its name and the backend's. */
START_TEST(an_op_without_cuda_says_so) {
    ck_need_gpu();
    int n;
    const pn_op *const *ops = pn_op_list(&n);
    for (int i = 0; i < n; i++) {
        if (ops[i]->impl[PN_CUDA][0]) continue;
        const pn_op_impl *impl;
        const pn_op_call c = { .op = ops[i] };
        ck_assert_int_eq(pn_op_pick(&c, PN_CUDA, &impl), PN_UNSUPPORTED);
        ck_assert_ptr_nonnull(strstr(pn_error_message(), ops[i]->name));
        ck_assert_ptr_nonnull(strstr(pn_error_message(), "cuda"));
    }
}
END_TEST

TEST_MAIN("tape", a_step_agrees_with_the_cpu, a_step_has_the_same_bits_every_time,
          recomputing_changes_nothing_that_counts, a_loss_that_is_not_finite_is_refused, an_op_without_cuda_says_so)
