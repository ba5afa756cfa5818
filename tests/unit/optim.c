/* AdamW against its formulas in double precision, and masters in halves. */
#include "optim.h"

#include "harness.h"

#include <math.h>
#include <string.h>

#include "master.h"
#include "rng.h"

enum { SLOTS = 3, MOST = 5000, STEPS = 5 };
static const int64_t sizes[SLOTS] = { 1, 17, MOST };
static const pn_adamw_settings settings = {
    .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1, .clip = 2
};

typedef struct rig {
    pn_pool *pool;
    pn_tensor *value[SLOTS];
    pn_adamw *optim;
    double w[SLOTS][MOST], g[SLOTS][MOST], m[SLOTS][MOST], v[SLOTS][MOST];
} rig;

static void rig_open(rig *r) {
    static const char *const names[SLOTS] = { "first", "second", "third" };
    pn_adamw_slot slots[SLOTS];
    pn_rng rng;
    memset(r, 0, sizeof *r);
    pn_rng_stream(20, "optim", 0, &rng);
    ck_ok(pn_pool_create(PN_POOL_HOST, &r->pool));
    for (int i = 0; i < SLOTS; i++) {
        ck_ok(pn_tensor_create(r->pool, PN_F32, 1, &sizes[i], &r->value[i]));
        for (int64_t k = 0; k < sizes[i]; k++) r->w[i][k] = pn_f32(r->value[i])[k] = (float)pn_rng_normal(&rng);
        r->value[i]->wants_grad = true;
        slots[i] = (pn_adamw_slot){ r->value[i], i != 1, names[i] };
    }
    ck_ok(pn_adamw_create(slots, SLOTS, &settings, &r->optim));
}

static void rig_close(rig *r) {
    pn_adamw_destroy(&r->optim);
    for (int i = 0; i < SLOTS; i++) pn_tensor_release(&r->value[i]);
    pn_pool_destroy(&r->pool);
}

/* In the last step but one the first value has none. */
static void draw_gradients(rig *r, int step) {
    pn_rng rng;
    pn_rng_stream(20, "gradients", (uint64_t)step, &rng);
    for (int i = 0; i < SLOTS; i++) {
        const bool none = i == 0 && step == STEPS - 2;
        if (!none) ck_ok(pn_tensor_create(r->pool, PN_F32, 1, &sizes[i], &r->value[i]->grad));
        for (int64_t k = 0; k < sizes[i]; k++) {
            r->g[i][k] = none ? 0 : (float)(pn_rng_normal(&rng) * (step < 2 ? 1 : 1e-3));
            if (!none) pn_f32(r->value[i]->grad)[k] = (float)r->g[i][k];
        }
    }
}

/* The norm before clipping. */
static double expect(rig *r, int step, double rate) {
    double squares = 0;
    for (int i = 0; i < SLOTS; i++)
        for (int64_t k = 0; k < sizes[i]; k++) squares += r->g[i][k] * r->g[i][k];
    double norm = sqrt(squares), scale = norm > settings.clip ? settings.clip / norm : 1;
    double c1 = 1 - pow(settings.beta1, step + 1), c2 = 1 - pow(settings.beta2, step + 1);
    for (int i = 0; i < SLOTS; i++)
        for (int64_t k = 0; k < sizes[i]; k++) {
            double g = scale * r->g[i][k];
            r->m[i][k] = settings.beta1 * r->m[i][k] + (1 - settings.beta1) * g;
            r->v[i][k] = settings.beta2 * r->v[i][k] + (1 - settings.beta2) * g * g;
            r->w[i][k] *= i != 1 ? 1 - rate * settings.weight_decay : 1;
            r->w[i][k] -= rate * (r->m[i][k] / c1) / (sqrt(r->v[i][k] / c2) + settings.epsilon);
        }
    return norm;
}

START_TEST(steps_follow_the_formulas) {
    static rig r;
    rig_open(&r);
    for (int step = 0; step < STEPS; step++) {
        double norm, rate = 0.01 / (step + 1);
        draw_gradients(&r, step);
        ck_ok(pn_adamw_step(r.optim, rate, &norm));
        double exact = expect(&r, step, rate);
        ck_assert_double_eq_tol(norm, exact, 1e-6 * exact);
        for (int i = 0; i < SLOTS; i++)
            for (int64_t k = 0; k < sizes[i]; k++) ck_assert_double_eq_tol(pn_f32(r.value[i])[k], r.w[i][k], 2e-6);
        for (int i = 0; i < SLOTS; i++) ck_assert_ptr_null(r.value[i]->grad); /* a step drops what it used */
    }
    ck_assert_int_eq(*pn_adamw_steps(r.optim), STEPS);
    static float masters[MOST];
    ck_ok(pn_adamw_read_master(r.optim, 2, masters)); /* a value in F32 is its own master */
    ck_assert_mem_eq(masters, pn_f32(r.value[2]), sizeof masters);
    masters[7] = 0.1f;
    ck_ok(pn_adamw_write_master(r.optim, 2, masters));
    ck_assert_mem_eq(masters, pn_f32(r.value[2]), sizeof masters);
    rig_close(&r);
}
END_TEST

START_TEST(a_gradient_that_is_not_finite_is_named_and_changes_nothing) {
    static rig r;
    static float before[MOST];
    rig_open(&r);
    draw_gradients(&r, 0);
    memcpy(before, pn_f32(r.value[2]), sizeof before);
    pn_f32(r.value[1]->grad)[16] = NAN;
    pn_f32(r.value[2]->grad)[0] = INFINITY;
    double norm = 0;
    ck_assert_int_eq(pn_adamw_step(r.optim, 0.1, &norm), PN_NUMERIC);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "the gradient of second is not finite"));
    ck_assert(!isfinite(norm));
    ck_assert_mem_eq(before, pn_f32(r.value[2]), sizeof before);
    ck_assert_int_eq(*pn_adamw_steps(r.optim), 0);
    ck_assert(pn_f32(pn_adamw_moment(r.optim, 0, 0))[0] == 0);
    rig_close(&r);
}
END_TEST

/* Asked for in two parts, with a loss that decides too. */
START_TEST(a_loss_that_is_not_finite_changes_nothing) {
    static rig r;
    static float before[MOST];
    rig_open(&r);
    pn_tensor *loss;
    double norm = 0;
    ck_ok(pn_tensor_zeros(r.pool, PN_F32, 1, (int64_t[]){ 1 }, &loss));
    memcpy(before, pn_f32(r.value[2]), sizeof before);
    for (int finite = 0; finite < 2; finite++) {
        draw_gradients(&r, 0);
        pn_f32(loss)[0] = finite ? 3 : INFINITY;
        ck_ok(pn_adamw_begin(r.optim, 0.1, loss));
        ck_assert_int_eq(pn_adamw_finish(r.optim, &norm), finite ? PN_OK : PN_NUMERIC);
        ck_assert(isfinite(norm) && norm > 0);
        ck_assert_int_eq(*pn_adamw_steps(r.optim), finite);
        ck_assert(!memcmp(before, pn_f32(r.value[2]), sizeof before) == !finite);
        if (!finite) ck_assert_ptr_nonnull(strstr(pn_error_message(), "the loss is not finite"));
    }
    pn_tensor_release(&loss);
    rig_close(&r);
}
END_TEST

/* Another rank's part of the sums. */
typedef struct other {
    double squares, faults;
    int calls;
} other;

static pn_status add_other(void *ctx, pn_tensor *x) {
    other *o = ctx;
    ck_assert_int_eq(pn_tensor_elems(x), 2);
    pn_f64(x)[0] += o->squares;
    pn_f64(x)[1] += o->faults;
    o->calls++;
    return PN_OK;
}

/* An optimizer of some values that is told what the others have does with them what one of all values does. */
START_TEST(parts_of_an_optimizer_step_together) {
    static rig whole, r;
    rig_open(&whole);
    draw_gradients(&whole, 0);
    double norm[2];
    ck_ok(pn_adamw_step(whole.optim, 0.1, &norm[0]));
    rig_open(&r);
    pn_adamw_destroy(&r.optim);
    const pn_adamw_slot last = { r.value[2], true, "third" };
    other rest = { 0 };
    ck_ok(pn_adamw_create(&last, 1, &settings, &r.optim));
    pn_adamw_share(r.optim, add_other, &rest);
    for (int bad = 2; bad >= 0; bad--) {
        draw_gradients(&r, 0);
        for (int64_t k = 0; k < sizes[0]; k++) rest.squares = r.g[0][k] * r.g[0][k];
        for (int64_t k = 0; k < sizes[1]; k++) rest.squares += r.g[1][k] * r.g[1][k];
        if (bad == 2) rest.squares = NAN;
        rest.faults = bad == 1;
        ck_assert_int_eq(pn_adamw_step(r.optim, 0.1, &norm[1]), bad ? PN_NUMERIC : PN_OK);
        for (int i = 0; i < 2; i++) pn_tensor_release(&r.value[i]->grad);
    }
    ck_assert_int_eq(rest.calls, 3);
    ck_assert_double_eq_tol(norm[1], norm[0], 1e-6 * norm[0]); /* single precision adds up what is summed here */
    for (int k = 0; k < MOST; k++) ck_assert_float_eq_tol(pn_f32(r.value[2])[k], pn_f32(whole.value[2])[k], 1e-6F);
    rig_close(&r);
    rig_close(&whole);
}
END_TEST

/* Whether the halves of a master are its nearest BF16 and the rest of it. Of two as near the value is the larger, where
 * pn_convert takes the even one. */
static bool exact_halves(uint32_t bits) {
    const pn_master_halves h = pn_master_split(bits);
    const uint32_t joined = pn_master_join(h);
    float master, again;
    uint16_t even;
    memcpy(&master, &bits, sizeof master);
    memcpy(&again, &joined, sizeof again);
    pn_convert(&even, PN_BF16, &master, PN_F32, 1);
    if (isnan(master)) return isnan(again) && !signbit(again) == !signbit(master) && (h.value & 0x7fff) > 0x7f80;
    return joined == bits && h.value == ((bits & 0xffff) == 0x8000 ? (bits >> 16) + 1 : even);
}

/* Every upper half with lower halves around 0, around the tie, and at random. */
START_TEST(halves_of_a_master_are_exact) {
    static const uint32_t lows[] = { 0, 1, 2, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff };
    enum { LOWS = sizeof lows / sizeof *lows, MORE = 16 };
    uint64_t random = 1;
    for (uint32_t high = 0; high < 0x10000; high++)
        for (int i = 0; i < LOWS + MORE; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            const uint32_t bits = high << 16 | (i < LOWS ? lows[i] : (uint32_t)(random >> 48));
            if (!exact_halves(bits)) ck_abort_msg("%08x", bits);
        }
}
END_TEST

START_TEST(bytes_beside_the_values) {
    ck_assert_double_eq(pn_adamw_bytes(10, PN_F32), 80);   /* two moments */
    ck_assert_double_eq(pn_adamw_bytes(10, PN_BF16), 100); /* and half a master */
}
END_TEST

TEST_MAIN("optim", steps_follow_the_formulas, a_gradient_that_is_not_finite_is_named_and_changes_nothing,
          a_loss_that_is_not_finite_changes_nothing, halves_of_a_master_are_exact, bytes_beside_the_values,
          parts_of_an_optimizer_step_together)
