/* postnas bench on the GPU, each kind on a small shape: the keys that readers of its JSON rely on are there and
 * positive, and the machine is told with its clock. */
#include "gpu.h"

#include <unistd.h>

#include "cli/bench_row.h"
#include "cli/cli_fixture.h"

static json_t *measured(const char *arguments) {
    char command[512], file[] = "/tmp/postnas-gpu-bench-XXXXXX";
    const int fd = mkstemp(file);
    ck_assert_int_ge(fd, 0);
    close(fd);
    snprintf(command, sizeof command, "bench %s --device cuda --json %s", arguments, file);
    program_result r = program(command);
    json_t *root = r.code ? NULL : json_load_file(file, 0, NULL);
    unlink(file);
    ck_assert_msg(r.code == 0, "%s: exit code %d: %s", arguments, r.code, r.err);
    ck_assert_ptr_nonnull(root);
    holds(r.out, " MHz ");
    holds(r.out, "TFLOP/s");
    return root;
}

static void ck_machine(const json_t *root, const char *dtype) {
    const json_t *m = json_object_get(root, "machine");
    ck_assert_str_eq(json_string_value(json_object_get(m, "dtype")), dtype);
    holds(json_string_value(json_object_get(m, "gpu")), " MHz ");
    const char *source = json_string_value(json_object_get(m, "clock_mhz_is"));
    ck_assert_ptr_nonnull(source);
    ck_positive(m, "gemm_gflops");
    ck_positive(m, "stream_gbytes");
    ck_positive(m, "clock_mhz");
    ck_positive(m, "clock_limit_mhz");
    if (strcmp(source, "measured")) {
        ck_assert_str_eq(source, "maximum");
        return;
    }
    ck_positive(m, "clock_min_mhz");
    ck_assert(number(m, "clock_min_mhz") <= number(m, "clock_mhz"));
    ck_assert(number(m, "clock_mhz") <= number(m, "clock_max_mhz"));
}

static void ck_rows(const json_t *root, size_t least, const char *unit) {
    const json_t *rows = json_object_get(root, "rows"), *row;
    size_t i;
    ck_assert_uint_ge(json_array_size(rows), least);
    json_array_foreach(rows, i, row) {
        ck_bench_row(row, unit);
        ck_positive(row, "bytes");
        ck_positive(row, "gbytes_per_second");
        ck_positive(row, "share_of_bound");
    }
}

START_TEST(ops) {
    ck_need_gpu();
    static const char *const dtypes[] = { "bf16", "f32" };
    for (int d = 0; d < 2; d++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments,
                 "ops --op linear --op attention --op silu --shape quickstart --tokens 256 --repeat 3 --dtype %s",
                 dtypes[d]);
        json_t *root = measured(arguments);
        ck_machine(root, dtypes[d]);
        ck_rows(root, 2 * 3, "us"); /* there and back */
        const json_t *row = json_array_get(json_object_get(root, "rows"), 0);
        holds(json_string_value(json_object_get(row, "op")), "linear/");
        ck_positive(row, "tflops");
        json_decref(root);
    }
}
END_TEST

START_TEST(layer) {
    ck_need_gpu();
    json_t *root =
        measured("layer --shape quickstart --tokens 256 --repeat 3 --block attention --block gated_deltanet");
    ck_machine(root, "bf16");
    ck_rows(root, 2 * 2, "ms");
    ck_positive(json_array_get(json_object_get(root, "rows"), 1), "tokens_per_second");
    json_decref(root);
}
END_TEST

START_TEST(decode_and_prefill) {
    ck_need_gpu();
    static const char *const passes[] = { "decode --batch 2", "prefill --chunk 128" };
    for (int i = 0; i < 2; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "%s --shape quickstart --layers 2 --context 256 --repeat 3", passes[i]);
        json_t *root = measured(arguments);
        ck_machine(root, "bf16");
        ck_rows(root, 5, "ms");
        json_decref(root);
    }
}
END_TEST

START_TEST(train) {
    ck_need_gpu();
    json_t *root = measured("train --shape quickstart --layers 2 --steps 3 --tokens 256");
    ck_machine(root, "bf16");
    ck_bench_row(root, "ms");
    ck_assert(number(root, "runs") == 3);
    ck_positive(root, "layer_tokens_per_second");
    ck_positive(root, "of_product");
    json_decref(root);
}
END_TEST

/* PN_CUDA_VARY: on shapes too small for cuDNN it changes nothing but what is said. */
START_TEST(step) {
    ck_need_gpu();
    for (int vary = 0; vary < 2; vary++) {
        setenv("PN_CUDA_VARY", vary ? "1" : "0", 1);
        json_t *root = measured("step --shape quickstart --layers 2 --tokens 256 --sequences 2 --steps 4");
        ck_machine(root, "bf16");
        ck_bench_row(root, "ms");
        ck_assert(json_is_true(json_object_get(root, "deterministic")) == !vary);
        static const char *const keys[] = { "tokens", "tokens_per_second", "of_product",        "share_of_bound",
                                            "tflops", "gpu_bytes",         "first_step_seconds" };
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) ck_positive(root, keys[i]);
        json_decref(root);
    }
}
END_TEST

TEST_MAIN("bench", ops, layer, decode_and_prefill, train, step)
