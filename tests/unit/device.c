/* This machine and build without a usable GPU: one sentence with the remedy, wherever the GPU is asked for. Other
 * machines are played in device_refusal.c; the GPU itself is tested in tests/gpu. */
#include "device.h"

#include <string.h>

#include "harness.h"
#include "op.h"
#include "pool.h"
#include "tape.h"

static void refused(pn_status s) {
    ck_assert_int_eq(s, PN_UNSUPPORTED);
    ck_assert_int_eq(pn_exit_code(s), 2);
    ck_assert_msg(strstr(pn_error_message(), "use the CPU"), "no remedy in: %s", pn_error_message());
    pn_error_clear();
}

START_TEST(without_a_gpu_everything_says_why) {
    pn_status s = pn_device_open();
    if (s == PN_OK) ck_skip("this machine has a GPU");
    refused(s);
    pn_pool *pool;
    pn_tape *tape;
    pn_device_info gpu;
    refused(pn_pool_create(PN_POOL_DEVICE, &pool));
    refused(pn_tape_create(PN_CUDA, &tape));
    refused(pn_device_describe(&gpu));
    refused(pn_device_sync());
}
END_TEST

TEST_MAIN("device", without_a_gpu_everything_says_why)
