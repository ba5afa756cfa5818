/* fast_math.h against libm in double, over every 1021st float, and its special values. */
#include "harness.h"
#include "cpu/clones.h"
#include "cpu/fast_math.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>

static double silu(double x) {
    return x / (1 + exp(-x));
}
static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}
static double softplus(double x) {
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}
static double silu_grad(double x) {
    double s = sigmoid(x), r = 1 / (1 + exp(x));
    return s * (1 + x * r);
}

/* Loops of the kind kernels run: the compiler vectorises them, twice. */
enum { BLOCK = 1024 };
#define LOOP(name)                                                                                                     \
    PN_CLONES static void name##_loop(const float *x, float *y) {                                                      \
        for (int i = 0; i < BLOCK; i++) y[i] = name(x[i]);                                                             \
    }                                                                                                                  \
    static void name##_block(const float *x, float *y) {                                                               \
        name##_loop(x, y);                                                                                             \
    }
LOOP(pn_expf)
LOOP(pn_exp_nonposf)
LOOP(pn_sigmoidf)
LOOP(pn_tanhf)
LOOP(pn_siluf)
LOOP(pn_silu_gradf)
LOOP(pn_softplusf)

/* Worst relative error where the exact result is normal; others must be within two of the smallest denormal. */
static double worst(void (*block)(const float *, float *), double (*exact)(double), float lo, float hi, bool flushes) {
    double worst = 0;
    float x[BLOCK], y[BLOCK];
    int fill = 0;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 1021) {
        float f = pn_bits_float((uint32_t)bits);
        if (!(f >= lo && f <= hi)) continue;
        x[fill++] = f;
        if (fill < BLOCK) continue;
        fill = 0;
        block(x, y);
        for (int i = 0; i < BLOCK; i++) {
            double want = exact(x[i]);
            if (fabs(want) > FLT_MAX) {
                ck_assert_msg(isinf(y[i]), "f(%a) = %a, want infinity", (double)x[i], (double)y[i]);
            } else if (fabs(want) >= 1.2e-38) {
                double e = fabs(y[i] - want) / fabs(want);
                worst = e > worst || isnan(e) ? e : worst;
            } else if (!flushes) {
                ck_assert_msg(fabs(y[i] - want) <= 0x1p-148, "f(%a) = %a, want %a", (double)x[i], (double)y[i], want);
            }
        }
    }
    return worst;
}

START_TEST(accurate_over_the_whole_range) {
    struct {
        const char *name;
        void (*block)(const float *, float *);
        double (*exact)(double);
        float lo, hi;
        bool flushes;
    } f[] = {
        { "exp", pn_expf_block, exp, -FLT_MAX, FLT_MAX, false },
        { "exp_nonpos", pn_exp_nonposf_block, exp, -87.2f, 0, true },
        { "sigmoid", pn_sigmoidf_block, sigmoid, -FLT_MAX, FLT_MAX, false },
        { "tanh", pn_tanhf_block, tanh, -FLT_MAX, FLT_MAX, false },
        { "silu", pn_siluf_block, silu, -80, FLT_MAX, false },
        { "silu_grad", pn_silu_gradf_block, silu_grad, -1.0f, FLT_MAX, false },
        { "silu_grad (left of its zero)", pn_silu_gradf_block, silu_grad, -80, -3, false },
        { "softplus", pn_softplusf_block, softplus, -FLT_MAX, FLT_MAX, false },
    };
    for (size_t i = 0; i < sizeof f / sizeof *f; i++) {
        double e = worst(f[i].block, f[i].exact, f[i].lo, f[i].hi, f[i].flushes);
        /* The derivative of silu is a sum with cancellation left of 0: 3.4e-7 measured there. */
        double limit = f[i].exact == silu_grad ? 5e-7 : 3e-7;
        printf("%-30s %.2e\n", f[i].name, e);
        ck_assert_msg(e <= limit, "%s: relative error %.2e", f[i].name, e);
    }
}
END_TEST

START_TEST(special_values) {
    ck_assert(pn_expf(-INFINITY) == 0 && isinf(pn_expf(INFINITY)) && isnan(pn_expf(NAN)));
    ck_assert(pn_expf(0) == 1 && pn_expf(-0.0f) == 1);
    ck_assert(pn_exp_nonposf(-INFINITY) == 0 && pn_exp_nonposf(0) == 1 && isnan(pn_exp_nonposf(NAN)));
    ck_assert(pn_exp_nonposf(-87.4f) == 0 && pn_exp_nonposf(-1e30f) == 0);
    ck_assert(pn_sigmoidf(-INFINITY) == 0 && pn_sigmoidf(INFINITY) == 1 && isnan(pn_sigmoidf(NAN)));
    ck_assert(pn_sigmoidf(0) == 0.5f);
    ck_assert(pn_tanhf(-INFINITY) == -1 && pn_tanhf(INFINITY) == 1 && isnan(pn_tanhf(NAN)) && pn_tanhf(0) == 0);
    ck_assert(pn_siluf(-INFINITY) == 0 && isinf(pn_siluf(INFINITY)) && isnan(pn_siluf(NAN)) && pn_siluf(0) == 0);
    ck_assert(pn_silu_gradf(-INFINITY) == 0 && pn_silu_gradf(INFINITY) == 1 && isnan(pn_silu_gradf(NAN)));
    ck_assert(pn_softplusf(-INFINITY) == 0 && isinf(pn_softplusf(INFINITY)) && isnan(pn_softplusf(NAN)));
}
END_TEST

TEST_MAIN("fast_math", accurate_over_the_whole_range, special_values)
