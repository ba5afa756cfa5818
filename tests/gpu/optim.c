/* AdamW on the GPU: against the CPU's, against itself, and what a BF16 value is to its master. */
#include "gpu.h"

#include <math.h>
#include <string.h>

#include "master.h"
#include "optim.h"
#include "rng.h"

/* Shorter than a vector, not a multiple of one, a whole part, one more, several parts. */
enum { SLOTS = 6, MOST = 100003, STEPS = 6 };
static const int64_t sizes[SLOTS] = { 1, 7, 4099, 8192, 8193, MOST };
static const pn_adamw_settings settings = {
    .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1, .clip = 2
};

typedef struct rig {
    pn_pool *pool;
    pn_tensor *value[SLOTS];
    pn_adamw *optim;
    double norm;
} rig;

static float drawn[MOST];
static const float *draw(const char *what, int index, int64_t n, double deviation) {
    pn_rng rng;
    pn_rng_stream(20, what, (uint64_t)index, &rng);
    for (int64_t i = 0; i < n; i++) drawn[i] = (float)(pn_rng_normal(&rng) * deviation);
    return drawn;
}

/* Values that BF16 holds, whatever the type. */
static void rig_open(rig *r, pn_pool_kind kind, pn_dtype type) {
    static const char *const names[SLOTS] = { "a", "b", "c", "d", "e", "f" };
    static uint16_t narrow[MOST];
    pn_adamw_slot slots[SLOTS];
    *r = (rig){ 0 };
    ck_ok(pn_pool_create(kind, &r->pool));
    for (int i = 0; i < SLOTS; i++) {
        ck_ok(pn_tensor_create(r->pool, type, 1, &sizes[i], &r->value[i]));
        pn_convert(narrow, PN_BF16, draw("value", i, sizes[i], 1), PN_F32, sizes[i]);
        ck_ok(pn_tensor_write(r->value[i], narrow, PN_BF16));
        r->value[i]->wants_grad = true;
        slots[i] = (pn_adamw_slot){ r->value[i], i % 2 == 0, names[i] };
    }
    ck_ok(pn_adamw_create(slots, SLOTS, &settings, &r->optim));
}

static void rig_close(rig *r) {
    pn_adamw_destroy(&r->optim);
    for (int i = 0; i < SLOTS; i++) pn_tensor_release(&r->value[i]);
    pn_pool_destroy(&r->pool);
}

static void give_gradients(rig *r, int step) {
    for (int i = 0; i < SLOTS; i++) {
        pn_tensor **g = &r->value[i]->grad;
        ck_assert_ptr_null(*g); /* a step drops what it used */
        ck_ok(pn_tensor_create(r->pool, PN_F32, 1, &sizes[i], g));
        ck_ok(pn_tensor_write(*g, draw("gradient", step * SLOTS + i, sizes[i], step < 3 ? 1 : 1e-3), PN_F32));
    }
}

static void run(rig *r, int first, int steps) {
    for (int step = first; step < first + steps; step++) {
        give_gradients(r, step);
        ck_ok(pn_adamw_step(r->optim, 0.01 / (step + 1), &r->norm));
    }
}

static const float *read(const pn_tensor *t, float *into) {
    ck_ok(pn_tensor_read(t, into, PN_F32));
    return into;
}

static const float *masters(const rig *r, int i, float *into) {
    ck_ok(pn_adamw_read_master(r->optim, i, into));
    return into;
}

START_TEST(steps_agree_with_the_cpu) {
    ck_need_gpu();
    static float a[MOST], b[MOST];
    for (int narrow = 0; narrow < 2; narrow++) {
        rig cpu, gpu;
        rig_open(&cpu, PN_POOL_HOST, PN_F32);
        rig_open(&gpu, PN_POOL_DEVICE, narrow ? PN_BF16 : PN_F32);
        run(&cpu, 0, STEPS);
        run(&gpu, 0, STEPS);
        ck_assert_double_eq_tol(gpu.norm, cpu.norm, 1e-6 * cpu.norm);
        for (int i = 0; i < SLOTS; i++) {
            read(cpu.value[i], a);
            masters(&gpu, i, b);
            for (int64_t k = 0; k < sizes[i]; k++) ck_assert_double_eq_tol(b[k], a[k], 2e-6);
        }
        rig_close(&cpu);
        rig_close(&gpu);
    }
}
END_TEST

/* Stopped after two steps and gone on from what a checkpoint keeps, the rest has the same bits. */
START_TEST(going_on_gives_the_same_bits) {
    ck_need_gpu();
    static float a[MOST], b[MOST];
    for (int narrow = 0; narrow < 2; narrow++) {
        const pn_dtype type = narrow ? PN_BF16 : PN_F32;
        rig whole, first, second;
        rig_open(&whole, PN_POOL_DEVICE, type);
        run(&whole, 0, STEPS);
        rig_open(&first, PN_POOL_DEVICE, type);
        run(&first, 0, 2);
        rig_open(&second, PN_POOL_DEVICE, type);
        for (int i = 0; i < SLOTS; i++) {
            ck_ok(pn_adamw_write_master(second.optim, i, masters(&first, i, a)));
            for (int k = 0; k < 2; k++)
                ck_ok(pn_tensor_write(pn_adamw_moment(second.optim, i, k), read(pn_adamw_moment(first.optim, i, k), a),
                                      PN_F32));
        }
        *pn_adamw_steps(second.optim) = *pn_adamw_steps(first.optim);
        run(&second, 2, STEPS - 2);
        ck_assert_double_eq(second.norm, whole.norm);
        for (int i = 0; i < SLOTS; i++) {
            const size_t bytes = (size_t)sizes[i] * sizeof(float);
            masters(&whole, i, a);
            ck_assert_mem_eq(a, masters(&second, i, b), bytes);
            ck_assert_mem_eq(read(whole.value[i], a), read(second.value[i], b), bytes);
            ck_assert_mem_eq(read(pn_adamw_moment(whole.optim, i, 1), a), read(pn_adamw_moment(second.optim, i, 1), b),
                             bytes);
        }
        rig_close(&whole);
        rig_close(&first);
        rig_close(&second);
    }
}
END_TEST

START_TEST(a_bf16_value_is_the_rounding_of_its_master) {
    ck_need_gpu();
    static float master[MOST], value[MOST];
    rig r;
    rig_open(&r, PN_POOL_DEVICE, PN_BF16);
    for (int step = 0; step < 3; step++) {
        int64_t moved = 0;
        for (int i = 0; i < SLOTS; i++) {
            masters(&r, i, master);
            read(r.value[i], value);
            for (int64_t k = 0; k < sizes[i]; k++) {
                uint32_t bits[2];
                memcpy(&bits[0], &master[k], sizeof *bits);
                memcpy(&bits[1], &value[k], sizeof *bits);
                ck_assert_uint_eq(bits[1], (uint32_t)pn_master_split(bits[0]).value << 16);
                moved += bits[0] != bits[1];
            }
        }
        ck_assert(step ? moved > 0 : moved == 0); /* a master starts as its value */
        run(&r, step, 1);
    }
    rig_close(&r);
}
END_TEST

/* A step that moves nothing takes every master apart and puts it together: all upper halves, with lower halves around
 * 0, around the tie, and at random. */
START_TEST(every_master_goes_through_a_step) {
    ck_need_gpu();
    enum { LOWS = 12, N = 65536 * LOWS };
    static const uint32_t lows[] = { 0, 1, 0x7fff, 0x8000, 0x8001, 0xffff };
    static float before[N], after[N];
    static uint16_t value[N];
    const int64_t n = N;
    pn_pool *pool;
    pn_tensor *v;
    pn_adamw *o;
    uint64_t random = 1;
    for (uint32_t i = 0; i < N; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        const uint32_t low = i % LOWS < 6 ? lows[i % LOWS] : (uint32_t)(random >> 48), bits = i / LOWS << 16 | low;
        memcpy(&before[i], &bits, sizeof bits);
    }
    ck_ok(pn_pool_create(PN_POOL_DEVICE, &pool));
    ck_ok(pn_tensor_zeros(pool, PN_BF16, 1, &n, &v));
    v->wants_grad = true;
    ck_ok(pn_adamw_create(&(pn_adamw_slot){ v, true, "all" }, 1, &settings, &o));
    ck_ok(pn_adamw_write_master(o, 0, before));
    for (int step = 0; step < 2; step++) {
        ck_ok(pn_adamw_step(o, 0, NULL));
        ck_ok(pn_adamw_read_master(o, 0, after));
        ck_ok(pn_tensor_read(v, value, PN_BF16));
        for (int64_t i = 0; i < N; i++) {
            uint32_t bits;
            memcpy(&bits, &before[i], sizeof bits);
            const bool good = isnan(before[i]) ? isnan(after[i]) && (value[i] & 0x7fff) > 0x7f80
                                               : !memcmp(&before[i], &after[i], sizeof bits) &&
                                                     value[i] == pn_master_split(bits).value;
            if (!good) ck_abort_msg("step %d: %08x", step, bits);
        }
    }
    pn_adamw_destroy(&o);
    pn_tensor_release(&v);
    pn_pool_destroy(&pool);
}
END_TEST

/* A value without a gradient moves as one with a gradient of zeros; the other way round an address is taken back. */
START_TEST(no_gradient_is_zeros) {
    ck_need_gpu();
    static float a[MOST], b[MOST];
    rig none, zeros;
    rig_open(&none, PN_POOL_DEVICE, PN_BF16);
    rig_open(&zeros, PN_POOL_DEVICE, PN_BF16);
    run(&none, 0, 1);
    run(&zeros, 0, 1);
    for (int i = 0; i < SLOTS; i++) ck_ok(pn_tensor_zeros(zeros.pool, PN_F32, 1, &sizes[i], &zeros.value[i]->grad));
    ck_ok(pn_adamw_step(none.optim, 0.01, &none.norm));
    ck_ok(pn_adamw_step(zeros.optim, 0.01, &zeros.norm));
    ck_assert_double_eq(none.norm, 0);
    run(&none, 2, 1);
    run(&zeros, 2, 1);
    ck_assert_double_eq(none.norm, zeros.norm);
    for (int i = 0; i < SLOTS; i++)
        ck_assert_mem_eq(masters(&none, i, a), masters(&zeros, i, b), (size_t)sizes[i] * sizeof *a);
    rig_close(&none);
    rig_close(&zeros);
}
END_TEST

/* Asked for in two parts, with a loss that decides too and other work in between. */
START_TEST(a_loss_that_is_not_finite_changes_nothing) {
    ck_need_gpu();
    static float a[MOST], b[MOST];
    rig r;
    pn_tensor *loss;
    rig_open(&r, PN_POOL_DEVICE, PN_BF16);
    ck_ok(pn_tensor_zeros(r.pool, PN_F32, 1, (int64_t[]){ 1 }, &loss));
    masters(&r, 5, a);
    for (int finite = 0; finite < 2; finite++) {
        double norm = 0;
        give_gradients(&r, 0);
        ck_ok(pn_tensor_write(loss, &(float){ finite ? 3 : NAN }, PN_F32));
        ck_ok(pn_adamw_begin(r.optim, 0.01, loss));
        ck_ok(pn_tensor_write(loss, &(float){ finite ? NAN : 3 }, PN_F32)); /* comes after it */
        ck_assert_int_eq(pn_adamw_finish(r.optim, &norm), finite ? PN_OK : PN_NUMERIC);
        ck_assert(isfinite(norm) && norm > 0);
        ck_assert_int_eq(*pn_adamw_steps(r.optim), finite);
        ck_assert(!memcmp(a, masters(&r, 5, b), sizeof a) == !finite);
        if (!finite) ck_assert_ptr_nonnull(strstr(pn_error_message(), "the loss is not finite"));
    }
    pn_tensor_release(&loss);
    rig_close(&r);
}
END_TEST

/* What the other ranks of a run have found. */
static pn_status add_others(void *ctx, pn_tensor *x) {
    double sum[2];
    const double *others = ctx;
    PN_TRY(pn_tensor_read(x, sum, PN_F64));
    for (int i = 0; i < 2; i++) sum[i] += others[i];
    return pn_tensor_write(x, sum, PN_F64);
}

START_TEST(an_optimizer_heeds_what_others_found) {
    ck_need_gpu();
    static float before[MOST], after[MOST];
    rig alone, r;
    double others[2] = { NAN, 0 };
    rig_open(&alone, PN_POOL_DEVICE, PN_BF16);
    run(&alone, 0, 1);
    rig_open(&r, PN_POOL_DEVICE, PN_BF16);
    pn_adamw_share(r.optim, add_others, others);
    masters(&r, 5, before);
    for (int bad = 2; bad > 0; bad--) {
        give_gradients(&r, 0);
        ck_assert_int_eq(pn_adamw_step(r.optim, 0.01, &r.norm), PN_NUMERIC);
        ck_assert_mem_eq(before, masters(&r, 5, after), sizeof before);
        others[0] = 0;
        others[1] = 1;
    }
    others[0] = 3 * alone.norm * alone.norm;
    others[1] = 0;
    run(&r, 0, 1);
    ck_assert_double_eq_tol(r.norm, 2 * alone.norm, 1e-9 * alone.norm);
    rig_close(&r);
    rig_close(&alone);
}
END_TEST

START_TEST(a_gradient_that_is_not_finite_is_named_and_changes_nothing) {
    ck_need_gpu();
    static float a[MOST], b[MOST];
    rig r;
    rig_open(&r, PN_POOL_DEVICE, PN_BF16);
    run(&r, 0, 1);
    give_gradients(&r, 1);
    memcpy(a, draw("gradient", 3, sizes[3], 1), (size_t)sizes[3] * sizeof *a);
    a[8191] = NAN;
    ck_ok(pn_tensor_write(r.value[3]->grad, a, PN_F32));
    masters(&r, 5, a);
    double norm;
    ck_assert_int_eq(pn_adamw_step(r.optim, 0.01, &norm), PN_NUMERIC);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "the gradient of d is not finite"));
    ck_assert_mem_eq(a, masters(&r, 5, b), sizeof a);
    ck_assert_int_eq(*pn_adamw_steps(r.optim), 1);
    rig_close(&r);
}
END_TEST

TEST_MAIN("optim", steps_agree_with_the_cpu, going_on_gives_the_same_bits, a_bf16_value_is_the_rounding_of_its_master,
          every_master_goes_through_a_step, no_gradient_is_zeros, a_loss_that_is_not_finite_changes_nothing,
          a_gradient_that_is_not_finite_is_named_and_changes_nothing, an_optimizer_heeds_what_others_found)
