/* dplr where a table of independent random inputs says little: wrong input, the inputs that RWKV-7 makes (b along -a),
 * a few tokens that forget all among many that forget nothing, decays without end, pieces and steps against the whole,
 * and results whose bits must not depend on the number of threads. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "dplr/dplr.h"
#include "harness.h"
#include "op_check.h"
#include "tape.h"

static uint32_t seed;

static double uniform(double lo, double hi) {
    seed = seed * 1664525u + 1013904223u;
    return lo + (hi - lo) * ((double)(seed >> 8) * 0x1p-24);
}

static void ck_usage(pn_status s, const char *part) {
    ck_assert_int_eq(s, PN_USAGE);
    ck_assert_msg(strstr(pn_error_message(), part), "\"%s\" does not say \"%s\"", pn_error_message(), part);
    pn_error_clear();
}

/* ---- calls ---- */

enum { Q, K, V, A, B, DECAY, STATE, INPUTS, O = INPUTS, S_T, RESULTS };

typedef struct problem { /* inputs in float, so that every backend sees the same numbers */
    pn_dplr_attr attr;
    float *in[INPUTS];
    int64_t n[INPUTS];
} problem;

static problem make(const pn_dplr_attr *attr) {
    problem p = { .attr = *attr };
    int64_t tokens = pn_docs_tokens(&attr->docs);
    seed = 12345;
    for (int i = 0; i < INPUTS; i++) {
        p.n[i] = i == STATE ? attr->docs.n * attr->heads * attr->dk * attr->dv
                            : tokens * attr->heads * (i == V ? attr->dv : attr->dk);
        p.in[i] = malloc(sizeof(float) * (size_t)(p.n[i] + 1));
        ck_assert_ptr_nonnull(p.in[i]);
        for (int64_t k = 0; k < p.n[i]; k++) p.in[i][k] = (float)uniform(-1, 1);
    }
    /* as in RWKV-7: a = -kk of unit length, b = kk * rate */
    for (int64_t row = 0; row < tokens * attr->heads; row++) {
        float *a = p.in[A] + row * attr->dk, *b = p.in[B] + row * attr->dk;
        double sum = 0;
        for (int i = 0; i < attr->dk; i++) sum += (double)a[i] * (double)a[i];
        for (int i = 0; i < attr->dk; i++) {
            a[i] = (float)((double)a[i] / sqrt(sum));
            b[i] = -a[i] * (float)uniform(0, 1);
        }
    }
    return p;
}
static void set_decays(problem *p, double lo, double hi) {
    for (int64_t k = 0; k < p->n[DECAY]; k++) p->in[DECAY][k] = (float)uniform(lo, hi);
}
static void free_problem(problem *p) {
    for (int i = 0; i < INPUTS; i++) free(p->in[i]);
}

typedef struct results { /* gradients of the inputs in their order, then o and S_T, all as double; free() each */
    double *x[RESULTS];
    int64_t n[RESULTS];
} results;

static pn_tensor *tensor(pn_tape *t, pn_backend backend, const problem *p, int i) {
    const pn_dplr_attr *a = &p->attr;
    int64_t tokens = pn_docs_tokens(&a->docs);
    int64_t matrix[] = { tokens, (int64_t)a->heads * (i == V ? a->dv : a->dk) };
    int64_t state[] = { a->docs.n, a->heads, a->dk, a->dv };
    pn_tensor *x;
    ck_ok(pn_tape_new(t, pn_backend_dtype(backend), i == STATE ? 4 : 2, i == STATE ? state : matrix, &x));
    pn_convert(pn_data(x), x->dtype, p->in[i], PN_F32, p->n[i]);
    x->wants_grad = true;
    return x;
}

static void keep(results *r, int i, const pn_tensor *x) {
    r->n[i] = pn_tensor_elems(x);
    r->x[i] = malloc(sizeof(double) * (size_t)(r->n[i] + 1));
    ck_assert_ptr_nonnull(r->x[i]);
    pn_convert(r->x[i], PN_F64, pn_data(x), x->dtype, r->n[i]);
}

/* o and S_T, and the gradients of their sums with weights made up from a fixed seed. */
static results run(pn_backend backend, const problem *p) {
    results r = { 0 };
    pn_tape *t;
    pn_tensor *in[INPUTS], *out[2], *grad[2];
    ck_ok(pn_tape_create(backend, &t));
    for (int i = 0; i < INPUTS; i++) in[i] = tensor(t, backend, p, i);
    ck_ok(pn_dplr(t, &p->attr, in[Q], in[K], in[V], in[A], in[B], in[DECAY], in[STATE], &out[0], &out[1]));
    seed = 54321;
    for (int i = 0; i < 2; i++) {
        keep(&r, O + i, out[i]);
        ck_ok(pn_tape_new(t, out[i]->dtype, out[i]->rank, out[i]->shape, &grad[i]));
        for (int64_t k = 0; k < r.n[O + i]; k++) {
            float g = (float)uniform(-1, 1);
            pn_convert((char *)pn_data(grad[i]) + (size_t)k * pn_dtype_bytes(grad[i]->dtype), grad[i]->dtype, &g,
                       PN_F32, 1);
        }
    }
    ck_ok(pn_tape_backward_from(t, out, grad, 2));
    for (int i = 0; i < INPUTS; i++) keep(&r, i, in[i]->grad);
    pn_tape_destroy(&t);
    return r;
}
static void free_results(results *r) {
    for (int i = 0; i < RESULTS; i++) free(r->x[i]);
}

static const char *const names[] = { "dq", "dk", "dv", "da", "db", "dg", "dS0", "o", "S_T" };

/* The limits of blocks.md 13 for fp32. What vanishes in float must be 0. */
static void check_against_reference(const problem *p, const char *what) {
    static const double limit[] = { 2e-5, 2e-5, 2e-5, 1e-4, 1e-4, 1e-4, 2e-5, 1e-5, 1e-5 };
    results ref = run(PN_REF, p), cpu = run(PN_CPU, p);
    for (int i = 0; i < RESULTS; i++) {
        double diff = 0, norm = 0;
        for (int64_t k = 0; k < ref.n[i]; k++) {
            if (fabs(ref.x[i][k]) < 1e-60) ref.x[i][k] = 0;
            diff += (cpu.x[i][k] - ref.x[i][k]) * (cpu.x[i][k] - ref.x[i][k]);
            norm += ref.x[i][k] * ref.x[i][k];
        }
        ck_assert_msg(diff <= limit[i] * limit[i] * norm, "%s: error of %s is %g", what, names[i], sqrt(diff / norm));
    }
    free_results(&ref);
    free_results(&cpu);
}

/* ---- tests ---- */

START_TEST(wrong_input_is_a_usage_error) {
    static const int64_t offset[] = { 0, 5 }, too_long[] = { 0, 6 };
    const pn_dplr_attr good = { .docs = { .n = 1, .offset = offset }, .heads = 2, .dk = 3, .dv = 4, .scale = 1 };
    problem p = make(&good);
    pn_tape *t;
    pn_tensor *in[INPUTS], *o, *S;
    ck_ok(pn_tape_create(PN_CPU, &t));
    for (int i = 0; i < INPUTS; i++) in[i] = tensor(t, PN_CPU, &p, i);
#define CALL(attr) pn_dplr(t, attr, in[Q], in[K], in[V], in[A], in[B], in[DECAY], in[STATE], &o, &S)
    ck_ok(CALL(&good));
    pn_dplr_attr a = good;
    a.heads = 0;
    ck_usage(CALL(&a), "0 heads; there must be at least 1");
    a = good, a.dv = 0;
    ck_usage(CALL(&a), "dk 3, dv 0; they must be at least 1");
    a = good, a.heads = 3;
    ck_usage(CALL(&a), "input q is f32 [5, 6]; it must be f32 [any, 9]");
    a = good, a.docs.offset = too_long;
    ck_usage(CALL(&a), "dplr: document offsets run from 0 to 6, but there are 5 tokens");
    static const struct {
        int i, by; /* input i replaced by another; -1: missing */
        const char *message;
    } wrong[] = { { Q, -1, "are its inputs, in this order" },
                  { K, V, "input k is f32 [5, 8]; it must be f32 [5, 6]" },
                  { V, K, "input v is f32 [5, 6]; it must be f32 [5, 8]" },
                  { A, V, "input a is f32 [5, 8]; it must be f32 [5, 6]" },
                  { B, -1, "input b is missing" },
                  { DECAY, -1, "input g is missing" },
                  { DECAY, V, "input g is f32 [5, 8]; it must be f32 [5, 6]" },
                  { STATE, Q, "input S0 is f32 [5, 6]; it must be f32 [1, 2, 3, 4], a state per document" } };
    for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
        pn_tensor *kept = in[wrong[k].i];
        in[wrong[k].i] = wrong[k].by < 0 ? NULL : in[wrong[k].by];
        ck_usage(CALL(&good), wrong[k].message);
        in[wrong[k].i] = kept;
    }
#undef CALL
    pn_tape_destroy(&t);
    free_problem(&p);
}
END_TEST

/* Decays from none to the strongest that RWKV-7 can make, and beyond. */
START_TEST(as_rwkv7_makes_its_inputs) {
    static const int64_t offset[] = { 0, 1100, 1103, 1300 };
    static const struct {
        const char *name;
        double lo, hi;
    } decays[] = { { "none", 0, 0 },
                   { "weak", -1e-3, 0 },
                   { "rwkv7", -0.60653, 0 },
                   { "strongest", -0.60653, -0.60653 },
                   { "beyond", -1.2, -0.6 } };
    const pn_dplr_attr attr = { .docs = { .n = 3, .offset = offset }, .heads = 2, .dk = 64, .dv = 64, .scale = 1 };
    problem p = make(&attr);
    for (size_t i = 0; i < sizeof decays / sizeof *decays; i++) {
        set_decays(&p, decays[i].lo, decays[i].hi);
        check_against_reference(&p, decays[i].name);
    }
    free_problem(&p);
}
END_TEST

/* Every seventh token forgets all in every third channel: what the others barely forget must not drown in it. */
START_TEST(sudden_among_slow) {
    static const int64_t offset[] = { 0, 200 };
    const pn_dplr_attr attr = { .docs = { .n = 1, .offset = offset }, .heads = 2, .dk = 33, .dv = 20, .scale = 0.2 };
    problem p = make(&attr);
    for (double sudden = -30; sudden > -1e5; sudden *= 30) {
        set_decays(&p, -0.01, 0);
        for (int64_t k = 0; k < p.n[DECAY]; k++)
            if (k / (2 * attr.dk) % 7 == 3 && k % 3 == 0) p.in[DECAY][k] = (float)sudden;
        check_against_reference(&p, "sudden");
    }
    free_problem(&p);
}
END_TEST

/* Each token forgets all before it, but still writes what the state answered to a. Decays have no gradient then. */
START_TEST(decays_without_end) {
    static const int64_t offset[] = { 0, 1, 70, 150 };
    static const double decays[] = { -400, -1e5, -1e30, -3e38 };
    const pn_dplr_attr attr = { .docs = { .n = 3, .offset = offset }, .heads = 3, .dk = 20, .dv = 30, .scale = 0.5 };
    problem p = make(&attr);
    for (size_t i = 0; i < sizeof decays / sizeof *decays; i++) {
        set_decays(&p, decays[i], decays[i] / 2);
        check_against_reference(&p, "without end");
    }
    free_problem(&p);
}
END_TEST

/* The whole at once, in pieces with the state handed on, and token by token with nothing to differentiate: the last is
 * another implementation. */
START_TEST(pieces_and_steps) {
    enum { T = 137, HEADS = 2, DK = 20, DV = 70 };
    static const int64_t offset[] = { 0, T };
    const pn_dplr_attr attr = {
        .docs = { .n = 1, .offset = offset }, .heads = HEADS, .dk = DK, .dv = DV, .scale = 0.5
    };
    problem p = make(&attr);
    set_decays(&p, -0.6, 0);
    results whole = run(PN_REF, &p);
    static const int pieces[] = { 1, 2, 3, 5, 64, 65 };
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        pn_tape *t;
        pn_tensor *in[INPUTS], *state;
        ck_ok(pn_tape_create(PN_CPU, &t));
        for (int k = 0; k < INPUTS; k++) {
            in[k] = tensor(t, PN_CPU, &p, k);
            in[k]->wants_grad = false;
        }
        state = in[STATE];
        double diff = 0, norm = 0;
        for (int64_t first = 0; first < T; first += pieces[i]) {
            const int64_t n = first + pieces[i] < T ? pieces[i] : T - first, part[] = { 0, n };
            pn_dplr_attr a = attr;
            a.docs.offset = part;
            pn_tensor *rows[STATE], *o;
            for (int k = 0; k < STATE; k++) ck_ok(pn_tensor_rows(in[k], first, first + n, &rows[k]));
            ck_ok(pn_dplr(t, &a, rows[Q], rows[K], rows[V], rows[A], rows[B], rows[DECAY], state, &o, &state));
            for (int k = 0; k < STATE; k++) pn_tensor_release(&rows[k]);
            for (int64_t k = 0; k < n * HEADS * DV; k++) {
                double x = whole.x[O][first * HEADS * DV + k], d = (double)pn_f32(o)[k] - x;
                diff += d * d, norm += x * x;
            }
        }
        ck_assert_msg(diff <= 1e-10 * norm, "pieces of %d: error of o is %g", pieces[i], sqrt(diff / norm));
        double error = pn_relative_error(pn_f32(state), whole.x[S_T], whole.n[S_T]);
        ck_assert_msg(error <= 1e-5, "pieces of %d: error of S_T is %g", pieces[i], error);
        pn_tape_destroy(&t);
    }
    free_results(&whole);
    free_problem(&p);
}
END_TEST

/* What a token gives is not touched by later ones, not even by a rounding: decays are shared out between the tokens of
 * a chunk, and how may depend on earlier tokens only. */
START_TEST(later_tokens_change_nothing) {
    enum { T = 150, HEADS = 2, DK = 20, DV = 30 };
    static const int64_t offset[] = { 0, T };
    const pn_dplr_attr attr = {
        .docs = { .n = 1, .offset = offset }, .heads = HEADS, .dk = DK, .dv = DV, .scale = 0.5
    };
    static const double decays[] = { -0.6, -3, -20 };
    problem p = make(&attr);
    for (size_t i = 0; i < sizeof decays / sizeof *decays; i++) {
        set_decays(&p, decays[i], 0);
        results before = run(PN_CPU, &p);
        for (int64_t kept = T - 1; kept > 0; kept -= 13) {
            for (int k = Q; k <= DECAY; k++)
                for (int64_t at = kept * (p.n[k] / T); at < p.n[k]; at++) p.in[k][at] *= k == DECAY ? 0.5f : -1;
            results after = run(PN_CPU, &p);
            ck_assert_msg(!memcmp(before.x[O], after.x[O], sizeof(double) * (size_t)(kept * HEADS * DV)),
                          "decays down to %g: tokens from %d on change earlier outputs", decays[i], (int)kept);
            ck_assert_msg(memcmp(before.x[S_T], after.x[S_T], sizeof(double) * (size_t)before.n[S_T]) != 0,
                          "tokens from %d on change nothing", (int)kept);
            free_results(&after);
        }
        free_results(&before);
    }
    free_problem(&p);
}
END_TEST

START_TEST(bits_do_not_depend_on_the_number_of_threads) {
    static const int64_t offset[] = { 0, 1, 70, 150 };
    const pn_dplr_attr attr = { .docs = { .n = 3, .offset = offset }, .heads = 1, .dk = 20, .dv = 200, .scale = 0.5 };
    problem p = make(&attr);
    int before = omp_get_max_threads();
    for (int strong = 0; strong < 2; strong++) {
        set_decays(&p, strong ? -5 : -0.6, 0);
        omp_set_num_threads(1);
        results one = run(PN_CPU, &p);
        for (int threads = 2; threads <= 8; threads += 3) {
            omp_set_num_threads(threads);
            results more = run(PN_CPU, &p);
            for (int i = 0; i < RESULTS; i++)
                ck_assert_msg(!memcmp(one.x[i], more.x[i], sizeof(double) * (size_t)one.n[i]),
                              "%d threads give other bits of %s than one", threads, names[i]);
            free_results(&more);
        }
        free_results(&one);
    }
    omp_set_num_threads(before);
    free_problem(&p);
}
END_TEST

TEST_MAIN("dplr", wrong_input_is_a_usage_error, as_rwkv7_makes_its_inputs, sudden_among_slow, decays_without_end,
          pieces_and_steps, later_tokens_change_nothing, bits_do_not_depend_on_the_number_of_threads)
