/* add_rms_norm is add and then rms_norm, to the bit, whichever of its outputs are used and where x and r are one
 * tensor. */
#include <string.h>

#include "add/add.h"
#include "add_rms_norm/add_rms_norm.h"
#include "harness.h"
#include "rms_norm/rms_norm.h"
#include "tape.h"

enum { N = 150, D = 60, S = 1, Y = 2, MOST = 5 * N * D };

static pn_tensor *filled(pn_tape *t, uint32_t seed, int rank) {
    pn_tensor *x;
    ck_ok(pn_tape_new(t, PN_F32, rank, rank == 2 ? (const int64_t[]){ N, D } : (const int64_t[]){ D }, &x));
    for (int64_t i = 0; i < pn_tensor_elems(x); i++) {
        seed = seed * 1664525u + 1013904223u;
        pn_f32(x)[i] = (float)(seed >> 8) * 0x1p-23f - 1;
    }
    return x;
}

/* Outputs and gradients, one after the other; `used`: outputs that gradients come to. Returns how many values. */
static size_t run(bool joined, int used, bool same, float value[MOST]) {
    pn_tape *t;
    ck_ok(pn_tape_create(PN_CPU, &t));
    pn_tensor *x = filled(t, 1, 2), *r = same ? x : filled(t, 2, 2), *w = filled(t, 3, 1), *s, *y;
    x->wants_grad = r->wants_grad = w->wants_grad = true;
    if (joined) {
        ck_ok(pn_add_rms_norm(t, x, r, w, 1e-6, &s, &y));
    } else {
        ck_ok(pn_add(t, x, r, &s));
        ck_ok(pn_rms_norm(t, s, w, 1e-6, &y));
    }
    pn_tensor *out[2], *grad[2];
    int n = 0;
    if (used & S) out[n] = s, grad[n++] = filled(t, 4, 2);
    if (used & Y) out[n] = y, grad[n++] = filled(t, 5, 2);
    ck_ok(pn_tape_backward_from(t, out, grad, n));
    pn_tensor *all[] = { s, y, x->grad, same ? NULL : r->grad, w->grad };
    size_t at = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!all[i]) continue;
        memcpy(value + at, pn_f32(all[i]), pn_tensor_bytes(all[i]));
        at += (size_t)pn_tensor_elems(all[i]);
    }
    for (int i = 0; i < 3; i++) pn_tensor_release(&(pn_tensor *[]){ x, r, w }[i]->grad);
    pn_tape_destroy(&t);
    return at;
}

START_TEST(it_is_add_and_then_rms_norm) {
    static float apart[MOST], joined[MOST];
    for (int used = S; used <= (S | Y); used++)
        for (int same = 0; same < 2; same++) {
            size_t n = run(false, used, same, apart), m = run(true, used, same, joined);
            /* A gradient that is zero may not have been made. */
            if (used != S) ck_assert_uint_eq(m, n);
            for (size_t i = 0; i < n; i++) ck_assert_float_eq(joined[i], apart[i]);
        }
}
END_TEST

TEST_MAIN("add_rms_norm", it_is_add_and_then_rms_norm)
