/* The profile: what a tape runs, by implementation and direction, on a clock that moves when it is read. */
#include "harness.h"
#include <string.h>

#include "silu/silu.h"
#include "profile.h"
#include "tape.h"

static double ticks;
static double tick(void) {
    return ticks += 1;
}

static const pn_profile_row *row_of(const char *name, bool backward) {
    int n;
    const pn_profile_row *rows = pn_profile_rows(&n);
    for (int i = 0; i < n; i++)
        if (!strcmp(rows[i].name, name) && rows[i].backward == backward) return &rows[i];
    return NULL;
}

/* y = silu(silu(x)), and backward from it. */
static void run_tape(void) {
    pn_tape *t;
    pn_tensor *x, *y, *one;
    const int64_t shape[] = { 2, 3 };
    ck_ok(pn_tape_create(PN_CPU, &t));
    ck_ok(pn_tensor_zeros(pn_tape_pool(t), PN_F32, 2, shape, &x));
    ck_ok(pn_tensor_zeros(pn_tape_pool(t), PN_F32, 2, shape, &one));
    x->wants_grad = true;
    ck_ok(pn_silu(t, x, &y));
    ck_ok(pn_silu(t, y, &y));
    ck_ok(pn_tape_backward_from(t, &y, &one, 1));
    pn_tensor_release(&x->grad);
    pn_tensor_release(&x);
    pn_tensor_release(&one);
    pn_tape_destroy(&t);
}

START_TEST(counts) {
    int n;
    run_tape();
    pn_profile_rows(&n);
    ck_assert_int_eq(n, 0); /* off until it is started */
    pn_profile_start(tick);
    run_tape();
    pn_profile_end(pn_profile_begin() - 100, "long", false, NULL);
    pn_profile_stop();
    run_tape();
    const pn_profile_row *forward = row_of("silu/cpu", false), *backward = row_of("silu/cpu", true);
    ck_assert(forward && backward);
    ck_assert_int_eq(forward->calls, 2);
    ck_assert_int_eq(backward->calls, 2);
    ck_assert(forward->seconds == 2 && backward->seconds == 2); /* a tick each */
    ck_assert(forward->cost.flops == 2 * 4 * 6 && forward->cost.bytes == 2 * 2 * 6 * 4);
    const pn_profile_row *rows = pn_profile_rows(&n);
    ck_assert_int_eq(n, 3);
    ck_assert_str_eq(rows[0].name, "long");
    ck_assert(rows[0].seconds == 101 && rows[0].cost.flops == 0);
    pn_profile_start(tick);
    pn_profile_stop();
    pn_profile_rows(&n);
    ck_assert_int_eq(n, 0);
}
END_TEST

TEST_MAIN("profile", counts)
