/* The tape: gradients, scopes and what they give back, recompute, and the plan backend against the real one. */
#include "harness.h"
#include <math.h>
#include <string.h>

#include "add/add.h"
#include "linear/linear.h"
#include "linear_cross_entropy/linear_cross_entropy.h"
#include "rms_norm/rms_norm.h"
#include "rng.h"
#include "swiglu/swiglu.h"
#include "tape.h"
#include "weighted_sum/weighted_sum.h"

enum { N = 6, D = 8, I = 12 };

/* A pre-norm residual MLP: x + W_down swiglu(W_gate n, W_up n), n = rms(x). Every weight is a leaf. */
typedef struct net {
    pn_tensor *norm, *gate, *up, *down;
} net;

static pn_pool *weights;
static pn_rng rng;

static pn_tensor *leaf(pn_dtype type, int64_t rows, int64_t cols) {
    pn_tensor *t;
    const int64_t shape[] = { rows, cols };
    ck_ok(pn_tensor_create(weights, type, cols ? 2 : 1, shape, &t));
    for (int64_t i = 0; i < pn_tensor_elems(t); i++) {
        double x = pn_rng_normal(&rng);
        if (type == PN_F64)
            pn_f64(t)[i] = x;
        else
            pn_f32(t)[i] = (float)x;
    }
    t->wants_grad = true;
    return t;
}

static void setup(void) {
    ck_ok(pn_pool_create(PN_POOL_HOST, &weights));
    pn_rng_stream(20, "tape", 0, &rng);
}
static void teardown(void) {
    ck_assert_uint_eq(pn_pool_live_bytes(weights), 0);
    pn_pool_destroy(&weights);
}

static net net_create(pn_dtype type) {
    return (net){ leaf(type, D, 0), leaf(type, I, D), leaf(type, I, D), leaf(type, D, I) };
}
static void net_destroy(net *n) {
    pn_tensor_release(&n->norm);
    pn_tensor_release(&n->gate);
    pn_tensor_release(&n->up);
    pn_tensor_release(&n->down);
}
static pn_tensor **net_leaf(net *n, int i) {
    pn_tensor **const at[] = { &n->norm, &n->gate, &n->up, &n->down };
    return at[i];
}

static pn_status net_forward(pn_tape *t, const void *ctx, pn_tensor *const *in, int n_in, pn_tensor **out, int n_out) {
    (void)n_in, (void)n_out;
    const net *n = ctx;
    pn_tensor *x, *gate, *up, *mixed;
    PN_TRY(pn_rms_norm(t, in[0], n->norm, 1e-6, &x));
    PN_TRY(pn_linear(t, x, n->gate, NULL, &gate));
    PN_TRY(pn_linear(t, x, n->up, NULL, &up));
    PN_TRY(pn_swiglu(t, gate, up, &mixed));
    PN_TRY(pn_linear(t, mixed, n->down, NULL, &x));
    PN_TRY(pn_add(t, in[0], x, out));
    return PN_OK;
}

/* Twice the net (the same weights), each in its own scope or recomputed. */
static pn_tensor *twice(pn_tape *t, const net *n, pn_tensor *x, bool recompute) {
    for (int i = 0; i < 2; i++) {
        pn_tensor *y;
        if (recompute) {
            ck_ok(pn_tape_recompute(t, net_forward, n, sizeof *n, &x, 1, &y, 1));
        } else {
            pn_scope s = pn_scope_open(t);
            ck_ok(net_forward(t, n, &x, 1, &y, 1));
            pn_scope_close(t, s, &y, 1);
        }
        x = y;
    }
    return x;
}

static double dot(const pn_tensor *a, const pn_tensor *b) {
    double sum = 0;
    for (int64_t i = 0; i < pn_tensor_elems(a); i++) sum += pn_f64(a)[i] * pn_f64(b)[i];
    return sum;
}

START_TEST(gradients_are_derivatives) {
    setup();
    pn_tape *t;
    ck_ok(pn_tape_create(PN_REF, &t));
    net n = net_create(PN_F64);
    pn_tensor *x = leaf(PN_F64, N, D), *dy = leaf(PN_F64, N, D);
    pn_tensor *y = twice(t, &n, x, false);
    ck_ok(pn_tape_backward_from(t, &y, &dy, 1));
    pn_tape_reset(t);
    pn_tape_record(t, false);
    for (int l = 0; l < 5; l++) {
        pn_tensor *w = l < 4 ? *net_leaf(&n, l) : x;
        ck_assert_ptr_nonnull(w->grad);
        for (int64_t i = 0; i < pn_tensor_elems(w); i += 5) {
            double keep = pn_f64(w)[i], side[2];
            for (int k = 0; k < 2; k++) {
                pn_f64(w)[i] = keep + (k ? 1e-5 : -1e-5);
                side[k] = dot(twice(t, &n, x, false), dy);
                pn_tape_reset(t);
            }
            pn_f64(w)[i] = keep;
            ck_assert_double_eq_tol((side[1] - side[0]) / 2e-5, pn_f64(w->grad)[i], 1e-6);
        }
    }
    pn_tape_destroy(&t);
    net_destroy(&n);
    pn_tensor_release(&x);
    pn_tensor_release(&dy);
    teardown();
}
END_TEST

START_TEST(gradients_accumulate) {
    setup();
    pn_tape *t;
    ck_ok(pn_tape_create(PN_CPU, &t));
    pn_tensor *x = leaf(PN_F32, N, D), *dy = leaf(PN_F32, N, D), *y, *both[2], *grads[] = { dy, dy };
    for (int pass = 1; pass <= 2; pass++) { /* x + x, then 1.5 x more per pass through two outputs */
        ck_ok(pn_add(t, x, x, &y));
        ck_ok(pn_tape_backward_from(t, &y, &dy, 1));
        for (int i = 0; i < N * D; i++)
            ck_assert_float_eq_tol(pn_f32(x->grad)[i], pn_f32(dy)[i] * (float)(5 * pass - 3), 1e-4f);
        ck_ok(pn_add(t, x, x, &both[0]));
        ck_ok(pn_add(t, x, dy, &both[1]));
        dy->wants_grad = false;
        ck_ok(pn_tape_backward_from(t, both, grads, 2));
        for (int i = 0; i < N * D; i++)
            ck_assert_float_eq_tol(pn_f32(x->grad)[i], pn_f32(dy)[i] * (float)(5 * pass), 1e-4f);
        pn_tape_reset(t);
    }
    pn_tape_destroy(&t);
    pn_tensor_release(&x);
    pn_tensor_release(&dy);
    teardown();
}
END_TEST

START_TEST(scopes_give_memory_back) {
    setup();
    pn_tape *t;
    ck_ok(pn_tape_create(PN_CPU, &t));
    pn_tape_record(t, false);
    pn_tensor *x = leaf(PN_F32, 64, 64), *y = x;
    size_t one = 64 * 64 * 4;
    pn_scope outer = pn_scope_open(t);
    for (int i = 0; i < 10; i++) {
        pn_scope inner = pn_scope_open(t);
        for (int k = 0; k < 10; k++) ck_ok(pn_add(t, y, x, &y));
        ck_assert_uint_eq(pn_pool_live_bytes(pn_tape_pool(t)), one * (i ? 11 : 10));
        pn_scope_close(t, inner, &y, 1);
        pn_scope_close(t, outer, &y, 1); /* drops what the previous round kept */
        ck_assert_uint_eq(pn_pool_live_bytes(pn_tape_pool(t)), one);
    }
    ck_assert_float_eq_tol(pn_f32(y)[7], 101 * pn_f32(x)[7], 1e-3f);
    ck_assert_uint_eq(pn_pool_peak_bytes(pn_tape_pool(t)), 11 * one);
    pn_tensor *kept = pn_tensor_retain(y); /* a caller's own reference outlives the tape's */
    pn_scope_close(t, outer, NULL, 0);
    ck_assert_uint_eq(pn_pool_live_bytes(pn_tape_pool(t)), one);
    pn_tensor_release(&kept);
    ck_assert_uint_eq(pn_pool_live_bytes(pn_tape_pool(t)), 0);
    pn_tape_destroy(&t);
    pn_tensor_release(&x);
    teardown();
}
END_TEST

/* Recording keeps what backward needs and no more: a sum keeps nothing, a product only the side that a wanted gradient
 * reads. */
START_TEST(saves_keep_what_backward_reads) {
    setup();
    pn_tape *t;
    ck_ok(pn_tape_create(PN_CPU, &t));
    pn_pool *pool = pn_tape_pool(t);
    pn_tensor *x = leaf(PN_F32, 64, 64), *w = leaf(PN_F32, 64, 64), *dy = leaf(PN_F32, 64, 64), *h, *y;
    size_t one = 64 * 64 * 4;
    for (int frozen = 0; frozen < 2; frozen++) {
        w->wants_grad = !frozen;
        pn_scope s = pn_scope_open(t);
        ck_ok(pn_add(t, x, x, &h));
        ck_ok(pn_add(t, h, x, &h));
        ck_ok(pn_linear(t, h, w, NULL, &y)); /* keeps h for dw, unless w is frozen */
        pn_scope_close(t, s, &y, 1);
        ck_assert_uint_eq(pn_pool_live_bytes(pool), frozen ? one : 2 * one);
        ck_ok(pn_tape_backward_from(t, &y, &dy, 1));
        ck_assert_uint_eq(pn_pool_live_bytes(pool), one * (frozen ? 2 : 3)); /* y and the leaves' gradients */
        pn_tape_reset(t);
        pn_tensor_release(&x->grad);
        pn_tensor_release(&w->grad);
        ck_assert_uint_eq(pn_pool_live_bytes(pool), 0);
    }
    w->wants_grad = true;
    pn_tape_record(t, false);
    pn_scope s = pn_scope_open(t);
    ck_ok(pn_linear(t, x, w, NULL, &y));
    ck_assert(!y->wants_grad);
    pn_scope_close(t, s, NULL, 0);
    ck_assert_uint_eq(pn_pool_live_bytes(pool), 0);
    pn_tape_destroy(&t);
    pn_tensor_release(&x);
    pn_tensor_release(&w);
    pn_tensor_release(&dy);
    teardown();
}
END_TEST

/* A gradient of an intermediate value lives only between its consumers and its producer. */
START_TEST(a_steady_step_allocates_nothing) {
    setup();
    pn_tape *t;
    ck_ok(pn_tape_create(PN_CPU, &t));
    pn_pool *pool = pn_tape_pool(t);
    net n = net_create(PN_F32);
    pn_tensor *x = leaf(PN_F32, N, D), *dy = leaf(PN_F32, N, D);
    x->wants_grad = false;
    size_t after_first = 0, live = 0;
    for (int step = 0; step < 4; step++) {
        pn_tensor *y = twice(t, &n, x, step % 2);
        ck_ok(pn_tape_backward_from(t, &y, &dy, 1));
        pn_tape_reset(t);
        if (step == 1) after_first = pn_pool_system_bytes(pool), live = pn_pool_live_bytes(pool);
        ck_assert_ptr_null(x->grad);
    }
    ck_assert_uint_eq(pn_pool_system_bytes(pool), after_first);
    ck_assert_uint_eq(pn_pool_live_bytes(pool), live); /* the weights' gradients */
    pn_tape_destroy(&t);
    ck_assert_float_eq(pn_f32(n.up->grad)[0], pn_f32(n.up->grad)[0]); /* which outlive the tape, and are no NaN */
    net_destroy(&n);
    pn_tensor_release(&x);
    pn_tensor_release(&dy);
    teardown();
}
END_TEST

/* ctx of the nested body: recompute inside recompute. */
static pn_status nested(pn_tape *t, const void *ctx, pn_tensor *const *in, int n_in, pn_tensor **out, int n_out) {
    (void)n_in, (void)n_out;
    pn_tensor *y;
    PN_TRY(pn_tape_recompute(t, net_forward, ctx, sizeof(net), in, 1, &y, 1));
    PN_TRY(pn_tape_recompute(t, net_forward, ctx, sizeof(net), &y, 1, out, 1));
    return PN_OK;
}

START_TEST(recompute_changes_no_gradient) {
    setup();
    pn_tape *t;
    ck_ok(pn_tape_create(PN_CPU, &t));
    net n = net_create(PN_F32);
    pn_tensor *x = leaf(PN_F32, N, D), *dy = leaf(PN_F32, N, D), *want[5] = { 0 };
    for (int way = 0; way < 3; way++) {
        pn_tensor *y;
        size_t before = pn_pool_live_bytes(pn_tape_pool(t));
        if (way < 2)
            y = twice(t, &n, x, way == 1);
        else
            ck_ok(pn_tape_recompute(t, nested, &n, sizeof n, &x, 1, &y, 1));
        size_t kept = pn_pool_live_bytes(pn_tape_pool(t)) - before;
        if (way == 1) ck_assert_uint_eq(kept, 2 * N * D * 4); /* the two outputs; x is not the tape's */
        if (way == 2) ck_assert_uint_eq(kept, N * D * 4);
        ck_ok(pn_tape_backward_from(t, &y, &dy, 1));
        ck_assert(pn_tape_recording(t));
        pn_tape_reset(t);
        for (int l = 0; l < 5; l++) {
            pn_tensor *w = l < 4 ? *net_leaf(&n, l) : x;
            if (!way) {
                want[l] = w->grad;
                w->grad = NULL;
                continue;
            }
            ck_assert_mem_eq(pn_f32(want[l]), pn_f32(w->grad), pn_tensor_bytes(w));
            pn_tensor_release(&w->grad);
        }
        if (way) continue;
        for (int l = 0; l < 5; l++) ck_assert_ptr_nonnull(want[l]);
    }
    for (int l = 0; l < 5; l++) pn_tensor_release(&want[l]);
    ck_assert_uint_eq(pn_pool_live_bytes(pn_tape_pool(t)), 0);
    pn_tape_destroy(&t);
    net_destroy(&n);
    pn_tensor_release(&x);
    pn_tensor_release(&dy);
    teardown();
}
END_TEST

/* A recomputed body that nothing trainable enters or leaves costs nothing in backward and harms nothing. */
START_TEST(recompute_of_frozen_parts) {
    setup();
    pn_tape *t;
    ck_ok(pn_tape_create(PN_CPU, &t));
    net n = net_create(PN_F32);
    pn_tensor *x = leaf(PN_F32, N, D), *w = leaf(PN_F32, D, D), *dy = leaf(PN_F32, N, D), *h, *y;
    for (int l = 0; l < 4; l++) (*net_leaf(&n, l))->wants_grad = false;
    x->wants_grad = false;
    ck_ok(pn_tape_recompute(t, net_forward, &n, sizeof n, &x, 1, &h, 1));
    ck_assert(!h->wants_grad);
    ck_ok(pn_linear(t, h, w, NULL, &y));
    ck_ok(pn_tape_backward_from(t, &y, &dy, 1));
    ck_assert_ptr_nonnull(w->grad);
    ck_assert_ptr_null(x->grad);
    for (int l = 0; l < 4; l++) ck_assert_ptr_null((*net_leaf(&n, l))->grad);
    pn_tape_destroy(&t);
    net_destroy(&n);
    pn_tensor_release(&x);
    pn_tensor_release(&w);
    pn_tensor_release(&dy);
    teardown();
}
END_TEST

/* Hands its input on beside the net's output, as a layer without a mixer does. */
static pn_status passing(pn_tape *t, const void *ctx, pn_tensor *const *in, int n_in, pn_tensor **out, int n_out) {
    PN_TRY(net_forward(t, ctx, in, n_in, out, n_out));
    out[1] = in[0];
    return PN_OK;
}

START_TEST(recompute_of_a_body_that_returns_its_input) {
    setup();
    pn_tape *t;
    ck_ok(pn_tape_create(PN_CPU, &t));
    net n = net_create(PN_F32);
    pn_tensor *x = leaf(PN_F32, N, D), *dy = leaf(PN_F32, N, D), *want[2] = { 0 };
    pn_tensor *leaves[] = { n.gate, x }, *grads[] = { dy, dy };
    for (int way = 0; way < 2; way++) { /* both outputs of the second body are used */
        pn_tensor *h, *out[2];
        ck_ok(net_forward(t, &n, &x, 1, &h, 1));
        if (way)
            ck_ok(pn_tape_recompute(t, passing, &n, sizeof n, &h, 1, out, 2));
        else
            ck_ok(passing(t, &n, &h, 1, out, 2));
        ck_ok(pn_tape_backward_from(t, out, grads, 2));
        pn_tape_reset(t);
        for (int l = 0; l < 2; l++) {
            ck_assert_ptr_nonnull(leaves[l]->grad);
            for (int64_t i = 0; way && i < pn_tensor_elems(leaves[l]); i++) /* two addends more, in another order */
                ck_assert_float_eq_tol(pn_f32(want[l])[i], pn_f32(leaves[l]->grad)[i], 1e-4f);
            if (way) continue;
            want[l] = leaves[l]->grad;
            leaves[l]->grad = NULL;
        }
    }
    for (int l = 0; l < 2; l++) pn_tensor_release(&want[l]);
    pn_tape_destroy(&t);
    net_destroy(&n);
    pn_tensor_release(&x);
    pn_tensor_release(&dy);
    teardown();
}
END_TEST

/* A loss of the net's output over a vocabulary of 16. */
static pn_status loss_of(pn_tape *t, const net *n, pn_tensor *x, pn_tensor *head, pn_tensor *targets, pn_tensor **loss,
                         pn_tensor **nll) {
    pn_tensor *y;
    PN_TRY(net_forward(t, n, &x, 1, &y, 1));
    PN_TRY(pn_linear_cross_entropy(t, y, head, targets, NULL, loss, nll));
    return PN_OK;
}

START_TEST(a_plan_reports_what_a_run_needs) {
    setup();
    net n = net_create(PN_F32);
    pn_tensor *x = leaf(PN_F32, N, D), *head = leaf(PN_F32, 16, D), *targets, *loss, *nll;
    ck_ok(pn_tensor_zeros(weights, PN_I32, 1, (int64_t[]){ N }, &targets));
    size_t peak[2], live[2], took[2];
    pn_op_cost cost[2];
    for (int plan = 1; plan >= 0; plan--) {
        pn_tape *t;
        ck_ok(pn_tape_create(plan ? PN_PLAN : PN_CPU, &t));
        ck_ok(loss_of(t, &n, x, head, targets, &loss, &nll));
        ck_assert(loss->wants_grad && !nll->wants_grad);
        ck_ok(pn_tape_backward(t, loss));
        peak[plan] = pn_pool_peak_bytes(pn_tape_pool(t));
        live[plan] = pn_pool_live_bytes(pn_tape_pool(t));
        cost[plan] = pn_tape_cost(t);
        took[plan] = pn_pool_system_bytes(pn_tape_pool(t));
        pn_tape_reset(t);
        ck_assert_double_eq(pn_tape_cost(t).flops, 0);
        ck_assert_int_eq(head->grad == NULL, plan); /* a plan leaves nothing behind */
        ck_assert_int_eq(n.gate->grad == NULL, plan);
        pn_tape_destroy(&t);
    }
    ck_assert_uint_eq(peak[0], peak[1]);
    ck_assert_uint_eq(live[0], live[1]);
    ck_assert_uint_eq(took[0], took[1]);
    ck_assert_uint_ge(took[0], peak[0]);
    ck_assert_double_eq(cost[0].flops, cost[1].flops);
    ck_assert_double_eq(cost[0].bytes, cost[1].bytes);
    /* forward 2, backward 4 per multiply-add: three matrices of the net, one of the head */
    double products = 6.0 * N * (3 * D * I + 16 * D);
    ck_assert_double_ge(cost[0].flops, products);
    ck_assert_double_le(cost[0].flops, 1.3 * products);
    net_destroy(&n);
    pn_tensor_release(&x);
    pn_tensor_release(&head);
    pn_tensor_release(&targets);
    teardown();
}
END_TEST

START_TEST(failures_leave_the_tape_usable) {
    setup();
    pn_tape *t;
    ck_ok(pn_tape_create(PN_CPU, &t));
    net n = net_create(PN_F32);
    pn_tensor *x = leaf(PN_F32, N, D), *wrong = leaf(PN_F32, N, D + 1), *dy = leaf(PN_F32, N, D), *y, *sum;
    pn_scope s = pn_scope_open(t);
    (void)s;
    pn_tape_again(t, PN_AGAIN_CORE);
    ck_assert_int_eq(pn_linear(t, wrong, n.gate, NULL, &y), PN_USAGE);
    pn_tape_reset(t);
    ck_assert_int_eq((int)pn_tape_again(t, PN_AGAIN_NEVER), PN_AGAIN_NEVER);
    ck_ok(net_forward(t, &n, &x, 1, &y, 1));
    ck_assert_int_eq(pn_tape_backward(t, y), PN_USAGE); /* not one element */
    ck_assert_int_eq(pn_tape_backward_from(t, &y, &wrong, 1), PN_USAGE);
    ck_assert_int_eq(pn_tape_backward_from(t, &dy, &dy, 1), PN_OK); /* a leaf is its own gradient's end */
    pn_tape_reset(t);
    pn_tape_record(t, false);
    ck_ok(net_forward(t, &n, &x, 1, &y, 1));
    ck_assert_int_eq(pn_tape_backward_from(t, &y, &dy, 1), PN_USAGE); /* was not recorded */
    pn_tape_reset(t);
    pn_tape_record(t, true);
    pn_tensor *one;
    ck_ok(pn_tensor_zeros(weights, PN_F32, 1, (int64_t[]){ 1 }, &one));
    one->wants_grad = true;
    pn_f32(one)[0] = NAN;
    ck_ok(pn_weighted_sum(t, &one, (double[]){ 2 }, 1, &sum));
    ck_assert_int_eq(pn_tape_backward(t, sum), PN_NUMERIC);
    pn_tape_reset(t);
    ck_assert_uint_eq(pn_pool_live_bytes(pn_tape_pool(t)), pn_tensor_bytes(dy)); /* dy->grad */
    pn_f32(one)[0] = 3;
    ck_ok(pn_weighted_sum(t, &one, (double[]){ 2 }, 1, &sum));
    ck_ok(pn_tape_backward(t, sum));
    ck_assert_float_eq(pn_f32(one->grad)[0], 2);
    pn_tape_destroy(&t);
    net_destroy(&n);
    pn_tensor_release(&one);
    pn_tensor_release(&x);
    pn_tensor_release(&wrong);
    pn_tensor_release(&dy);
    teardown();
}
END_TEST

/* A flat array for the gradients of a net's weights, and when backward was through with what. */
typedef struct flat {
    const net *n;
    pn_tensor *all;
    int64_t at[4];
    int made, passed[4], n_passed;
} flat;

static pn_status place(void *ctx, pn_tape *t, pn_tensor *w, pn_tensor **grad) {
    flat *f = ctx;
    (void)t;
    for (int l = 0; l < 4; l++) {
        if (w != *net_leaf((net *)f->n, l)) continue;
        PN_TRY(pn_tensor_rows(f->all, f->at[l], f->at[l] + pn_tensor_elems(w), grad));
        (*grad)->rank = w->rank;
        memcpy((*grad)->shape, w->shape, sizeof w->shape);
        f->made++;
    }
    return PN_OK; /* the tape makes that of x */
}

static pn_status passed(void *ctx, pn_tape *t, int index) {
    flat *f = ctx;
    (void)t;
    f->passed[f->n_passed++] = index;
    return PN_OK;
}

START_TEST(gradients_have_a_home_and_marks_are_passed) {
    setup();
    net n = net_create(PN_F32);
    pn_tensor *x = leaf(PN_F32, N, D), *dy = leaf(PN_F32, N, D), *want[4];
    for (int way = 0; way < 3; way++) { /* the tape's own; in a flat array; with recompute */
        pn_tape *t;
        flat f = { .n = &n };
        int64_t size = 0;
        for (int l = 0; l < 4; l++) f.at[l] = size, size += pn_tensor_elems(*net_leaf(&n, l));
        ck_ok(pn_tensor_create(weights, PN_F32, 1, &size, &f.all));
        memset(pn_f32(f.all), 0xff, pn_tensor_bytes(f.all)); /* NaN: whoever makes a gradient there begins with zeros */
        ck_ok(pn_tape_create(PN_CPU, &t));
        if (way) pn_tape_gradient_home(t, place, &f);
        ck_ok(pn_tape_mark(t, passed, &f, 0));
        pn_tensor *y = x, *next;
        for (int i = 0; i < 2; i++, y = next) {
            ck_ok(pn_tape_mark(t, passed, &f, 1 + i));
            if (way == 2)
                ck_ok(pn_tape_recompute(t, net_forward, &n, sizeof n, &y, 1, &next, 1));
            else
                ck_ok(net_forward(t, &n, &y, 1, &next, 1));
        }
        pn_tape_record(t, false);
        ck_ok(pn_tape_mark(t, passed, &f, 7)); /* not recording: nothing */
        pn_tape_record(t, true);
        ck_assert_int_eq(f.n_passed, 0);
        ck_ok(pn_tape_backward_from(t, &y, &dy, 1));
        ck_assert_int_eq(f.n_passed, 3);
        for (int i = 0; i < 3; i++) ck_assert_int_eq(f.passed[i], 2 - i);
        for (int l = 0; l < 4; l++) {
            pn_tensor *w = *net_leaf(&n, l);
            if (!way) want[l] = pn_tensor_retain(w->grad);
            ck_assert_int_eq(w->grad->storage == f.all->storage, way > 0);
            ck_assert_mem_eq(pn_f32(w->grad), pn_f32(want[l]), pn_tensor_bytes(w));
            pn_tensor_release(&w->grad);
        }
        pn_tensor_release(&x->grad);
        pn_tensor_release(&f.all);
        pn_tape_destroy(&t);
    }
    for (int l = 0; l < 4; l++) pn_tensor_release(&want[l]);
    net_destroy(&n);
    pn_tensor_release(&x);
    pn_tensor_release(&dy);
    teardown();
}
END_TEST

TEST_MAIN("tape", gradients_are_derivatives, gradients_accumulate, scopes_give_memory_back,
          saves_keep_what_backward_reads, a_steady_step_allocates_nothing, recompute_changes_no_gradient,
          recompute_of_frozen_parts, recompute_of_a_body_that_returns_its_input, a_plan_reports_what_a_run_needs,
          failures_leave_the_tape_usable, gradients_have_a_home_and_marks_are_passed)
