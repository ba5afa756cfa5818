/* Random streams are part of every result: the pinned values (from an independent implementation) never change. */
#include "harness.h"
#include <math.h>

#include "rng.h"

START_TEST(pinned_values) {
    static const uint64_t want[] = { 0x56014db116d324e7, 0xd99762530c7e9695, 0xaf51d9cdb3b792c3, 0x0a242fc59b8ace7c };
    pn_rng r;
    pn_rng_stream(1, "data", 0, &r);
    for (int i = 0; i < 4; i++) ck_assert_uint_eq(pn_rng_u64(&r), want[i]);
    pn_rng_stream(42, "layer 3", 7, &r);
    ck_assert_uint_eq(pn_rng_u64(&r), 0xe39486f1e87606cf);
    ck_assert_uint_eq(pn_rng_below(&r, 1000), 416);
    ck_assert_double_eq(pn_rng_uniform(&r), 0x1.520dd20cb1fccp-1);
    ck_assert_double_eq_tol(pn_rng_normal(&r), -0.33557415, 1e-12);
}
END_TEST

START_TEST(streams_differ_by_each_part) {
    pn_rng r[4];
    pn_rng_stream(1, "a", 0, &r[0]);
    pn_rng_stream(2, "a", 0, &r[1]);
    pn_rng_stream(1, "b", 0, &r[2]);
    pn_rng_stream(1, "a", 1, &r[3]);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < i; j++) ck_assert_uint_ne(r[i].s[0], r[j].s[0]);
}
END_TEST

START_TEST(a_copy_goes_on_the_same) {
    pn_rng a, b;
    pn_rng_stream(3, "x", 0, &a);
    for (int i = 0; i < 100; i++) pn_rng_u64(&a);
    b = a;
    for (int i = 0; i < 100; i++) ck_assert_double_eq(pn_rng_normal(&a), pn_rng_normal(&b));
}
END_TEST

START_TEST(skipping_is_drawing) {
    static const uint64_t n[] = { 0, 1, 2, 63, 64, 1000, 65537, 300000 };
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        pn_rng a, b;
        pn_rng_stream(4, "skip", i, &a);
        b = a;
        pn_rng_skip(&a, n[i]);
        for (uint64_t k = 0; k < n[i]; k++) pn_rng_u64(&b);
        ck_assert_uint_eq(pn_rng_u64(&a), pn_rng_u64(&b));
    }
    pn_rng a, b; /* all powers: 2^64 - 1 = (2^32 - 1) (2^32 + 1) */
    pn_rng_stream(4, "far", 0, &a);
    b = a;
    pn_rng_skip(&a, UINT64_MAX);
    for (int k = 0; k < 3; k++) pn_rng_skip(&b, UINT64_MAX / 3);
    ck_assert_uint_eq(pn_rng_u64(&a), pn_rng_u64(&b));
}
END_TEST

START_TEST(below_is_even) {
    enum { N = 7, DRAWS = 70000 };
    int count[N] = { 0 };
    pn_rng r;
    pn_rng_stream(5, "below", 0, &r);
    for (int i = 0; i < DRAWS; i++) {
        uint64_t x = pn_rng_below(&r, N);
        ck_assert_uint_lt(x, N);
        count[x]++;
    }
    double chi2 = 0, expected = (double)DRAWS / N;
    for (int i = 0; i < N; i++) chi2 += (count[i] - expected) * (count[i] - expected) / expected;
    ck_assert_double_lt(chi2, 22.46); /* 6 degrees of freedom: 1 in 1000 */
    ck_assert_uint_eq(pn_rng_below(&r, 1), 0);
    /* a bound above 2^63 rejects about half of all draws */
    uint64_t n = (UINT64_C(1) << 63) + 1;
    for (int i = 0; i < 1000; i++) ck_assert_uint_lt(pn_rng_below(&r, n), n);
}
END_TEST

START_TEST(moments) {
    enum { N = 100000 };
    double u1 = 0, z1 = 0, z2 = 0, z4 = 0;
    pn_rng r;
    pn_rng_stream(6, "moments", 0, &r);
    for (int i = 0; i < N; i++) {
        double u = pn_rng_uniform(&r);
        ck_assert(u >= 0 && u < 1);
        double z = pn_rng_normal(&r);
        ck_assert(isfinite(z));
        u1 += u, z1 += z, z2 += z * z, z4 += z * z * z * z;
    }
    /* four standard deviations of each mean */
    ck_assert_double_eq_tol(u1 / N, 0.5, 4 * sqrt(1.0 / 12 / N));
    ck_assert_double_eq_tol(z1 / N, 0, 4 * sqrt(1.0 / N));
    ck_assert_double_eq_tol(z2 / N, 1, 4 * sqrt(2.0 / N));
    ck_assert_double_eq_tol(z4 / N, 3, 4 * sqrt(96.0 / N));
}
END_TEST

TEST_MAIN("rng", pinned_values, skipping_is_drawing, streams_differ_by_each_part, a_copy_goes_on_the_same,
          below_is_even, moments)
