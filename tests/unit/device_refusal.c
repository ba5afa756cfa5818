/* What is said of machines whose GPU cannot be used: every sentence ends in what to do, and the exit code is that of
 * bad input. */
#include "device_refusal.h"

#include <string.h>

#include "harness.h"

static void refused(pn_status s, pn_status expected, const char *reason, const char *remedy) {
    const char *said = pn_error_message();
    ck_assert_int_eq(s, expected);
    ck_assert_int_eq(pn_exit_code(s), 2);
    ck_assert_msg(strstr(said, reason), "\"%s\" is not in: %s", reason, said);
    ck_assert_msg(strstr(said, remedy), "\"%s\" is not in: %s", remedy, said);
    ck_assert_msg(strstr(said, "use the CPU (--device cpu)"), "no other way in: %s", said);
    pn_error_clear();
}

START_TEST(a_gpu_is_found) {
    const pn_gpu_search same = { .driver = 12020, .runtime = 12080, .n = 2 }; /* one major version serves another's */
    ck_ok(pn_gpu_search_check(&same));
}
END_TEST

START_TEST(without_a_driver) {
    const int errors[] = { 0, PN_CUDA_OLD_DRIVER, PN_CUDA_NO_DEVICE, 999 }; /* versions of CUDA differ here */
    for (int i = 0; i < 4; i++)
        refused(pn_gpu_search_check(&(pn_gpu_search){ .error = errors[i], .words = "unknown", .runtime = 12080 }),
                PN_UNSUPPORTED, "no NVIDIA driver on this machine", "install it");
}
END_TEST

START_TEST(an_old_driver) {
    for (int error = PN_CUDA_OLD_DRIVER; error <= PN_CUDA_NEWER_DRIVER; error++)
        refused(pn_gpu_search_check(&(pn_gpu_search){ .error = error, .driver = 11040, .runtime = 13000 }),
                PN_UNSUPPORTED, "the NVIDIA driver knows CUDA 11.4, this build of postnas needs 13.0",
                "update the driver");
    const pn_gpu_failure late = { .error = PN_CUDA_NEWER_DRIVER, .words = "needs a newer driver", .name = "cudaError" };
    refused(pn_gpu_failed(&late, "making a CUDA graph"), PN_UNSUPPORTED, "making a CUDA graph: needs a newer driver",
            "update the driver");
}
END_TEST

START_TEST(no_gpu) {
    pn_gpu_search found = { .error = PN_CUDA_NO_DEVICE, .driver = 13000, .runtime = 12080 };
    refused(pn_gpu_search_check(&found), PN_UNSUPPORTED, "no GPU that CUDA can use on this machine:", "nvidia-smi");
    found.error = 0; /* a driver that counts none */
    refused(pn_gpu_search_check(&found), PN_UNSUPPORTED, "no GPU that CUDA can use on this machine:", "nvidia-smi");
    found.visible = "-1";
    refused(pn_gpu_search_check(&found), PN_UNSUPPORTED, "(CUDA_VISIBLE_DEVICES is \"-1\"):", "nvidia-smi");
}
END_TEST

START_TEST(what_cuda_cannot_say) {
    const pn_gpu_search found = { .error = 999, .words = "unknown error", .driver = 13000, .runtime = 12080 };
    ck_assert_int_eq(pn_gpu_search_check(&found), PN_DEVICE);
    ck_assert_str_eq(pn_error_message(), "looking for a GPU: unknown error");
    const pn_gpu_failure f = { .error = 700, .words = "an illegal access", .name = "cudaErrorIllegalAddress" };
    ck_assert_int_eq(pn_gpu_failed(&f, "silu/cuda"), PN_DEVICE);
    ck_assert_str_eq(pn_error_message(), "silu/cuda: an illegal access (cudaErrorIllegalAddress)");
    ck_assert_int_eq(pn_exit_code(PN_DEVICE), 3);
}
END_TEST

START_TEST(an_old_architecture) {
    refused(pn_gpu_architecture_check("Tesla V100", 7, 0), PN_UNSUPPORTED,
            "Tesla V100 has compute capability 7.0, postnas needs 8.0", "CUDA_VISIBLE_DEVICES");
    ck_ok(pn_gpu_architecture_check("A100", 8, 0));
    ck_ok(pn_gpu_architecture_check("B200", 10, 0));
}
END_TEST

START_TEST(a_build_for_other_gpus) {
    pn_gpu_failure f = { .error = PN_CUDA_NO_CODE,
                         .words = "no kernel image",
                         .name = "cudaErrorNoKernelImageForDevice",
                         .major = 8,
                         .minor = 6,
                         .archs = "90a-real" };
    refused(pn_gpu_failed(&f, "silu/cuda"), PN_UNSUPPORTED,
            "silu/cuda: this build has code for 90a-real and none for this GPU (compute capability 8.6)",
            "build with -DCMAKE_CUDA_ARCHITECTURES=86");
    f.error = PN_CUDA_NEWER_PTX;
    f.major = 12, f.minor = 0;
    refused(pn_gpu_failed(&f, "silu/cuda"), PN_UNSUPPORTED, "newer than the driver",
            "update the driver, build with -DCMAKE_CUDA_ARCHITECTURES=120,");
}
END_TEST

START_TEST(memory_is_not_the_users_input) {
    const pn_gpu_failure f = { .error = PN_CUDA_NO_MEMORY, .words = "out of memory", .name = "cudaError" };
    ck_assert_int_eq(pn_gpu_failed(&f, "pinned memory"), PN_MEMORY);
    ck_assert_str_eq(pn_error_message(), "pinned memory: the GPU's memory is exhausted");
}
END_TEST

START_TEST(more_ranks_than_gpus) {
    refused(pn_gpu_ranks_check(4, 2), PN_USAGE, "4 ranks on this machine and 2 GPUs", "--ranks 2");
    ck_ok(pn_gpu_ranks_check(2, 2));
    ck_ok(pn_gpu_ranks_check(4, 8));
    ck_ok(pn_gpu_ranks_check(8, 1)); /* each sees the one that its launcher gave it */
}
END_TEST

TEST_MAIN("device_refusal", a_gpu_is_found, without_a_driver, an_old_driver, no_gpu, what_cuda_cannot_say,
          an_old_architecture, a_build_for_other_gpus, memory_is_not_the_users_input, more_ranks_than_gpus)
