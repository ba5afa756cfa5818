/* Values of small tensors, read later: on the host at once, as they were when they were added. */
#include "readback.h"

#include "harness.h"

START_TEST(values_come_in_order_as_they_were) {
    pn_pool *pool;
    pn_tensor *a, *b;
    pn_readback *r;
    double v[PN_READBACK_VALUES];
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    ck_ok(pn_tensor_create(pool, PN_F32, 1, (int64_t[]){ 1 }, &a));
    ck_ok(pn_tensor_create(pool, PN_F64, 1, (int64_t[]){ 2 }, &b));
    ck_ok(pn_readback_create(PN_POOL_HOST, &r));
    for (int round = 0; round < 2; round++) {
        pn_f32(a)[0] = 1.5f + (float)round;
        pn_f64(b)[0] = 2;
        pn_f64(b)[1] = -1e300;
        ck_ok(pn_readback_add(r, a));
        ck_ok(pn_readback_add(r, NULL));
        ck_ok(pn_readback_add(r, b));
        pn_f32(a)[0] = 0;
        ck_ok(pn_readback_wait(r, v));
        ck_assert(v[0] == 1.5 + round && v[1] == 0 && v[2] == 2 && v[3] == -1e300);
    }
    ck_ok(pn_readback_wait(r, v)); /* nothing was added */
    pn_readback_destroy(&r);
    pn_readback_destroy(&r);
    pn_tensor_release(&a);
    pn_tensor_release(&b);
    pn_pool_destroy(&pool);
}
END_TEST

TEST_MAIN("readback", values_come_in_order_as_they_were)
