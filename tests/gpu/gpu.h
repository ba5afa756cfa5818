/* What tests that need a GPU start with. */
#ifndef PN_TESTS_GPU_H
#define PN_TESTS_GPU_H

#include "device.h"
#include "harness.h"

/* Without a GPU that this build can use the test is skipped, saying why; one that fails in another way fails it. */
#define ck_need_gpu()                                                                                                  \
    do {                                                                                                               \
        pn_status ck_gpu_ = pn_device_open();                                                                          \
        if (ck_gpu_ == PN_UNSUPPORTED) ck_skip("%s", pn_error_message());                                              \
        ck_assert_msg(ck_gpu_ == PN_OK, "%s", pn_error_message());                                                     \
    } while (0)

#endif
