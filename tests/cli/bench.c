/* postnas bench, from outside: rows, the file, refusals. What it measures is not a test's business. */
#include "cli_fixture.h"

#include <jansson.h>
#include <unistd.h>

#include "bench_row.h"

static void refused(const char *arguments, const char *text) {
    program_result r = program(arguments);
    ck_assert_int_eq(r.code, 2);
    holds(r.err, text);
    ck_assert_ptr_eq(strchr(r.err, '\n'), r.err + strlen(r.err) - 1);
    ck_assert_str_eq(r.out, "");
}

/* The parsed result of a run that wrote bench.json. */
static json_t *measured(const char *arguments) {
    char command[512], file[] = "/tmp/postnas-bench-XXXXXX";
    int fd = mkstemp(file);
    ck_assert_int_ge(fd, 0);
    close(fd);
    snprintf(command, sizeof command, "%s --json %s", arguments, file);
    program_result r = program(command);
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, "sgemm 2048^3");
    json_t *root = json_load_file(file, 0, NULL);
    unlink(file);
    ck_assert_ptr_nonnull(root);
    ck_assert(json_number_value(json_object_get(json_object_get(root, "machine"), "sgemm_gflops")) > 0);
    return root;
}

START_TEST(ops) {
    json_t *root =
        measured("bench ops --op linear --op gated_delta --shape quickstart --tokens 64 --tokens 0 --repeat 3");
    json_t *rows = json_object_get(root, "rows"), *row;
    size_t i, linear = 0, steps = 0;
    json_array_foreach(rows, i, row) {
        const char *name = json_string_value(json_object_get(row, "op"));
        linear += !strcmp(name, "linear/cpu");
        steps += !strcmp(name, "gated_delta/cpu-step");
        ck_bench_row(row, "us");
        ck_assert(number(row, "flops") > 0 && number(row, "share_of_bound") > 0);
    }
    ck_assert_uint_eq(linear, 5 * 2 + 5); /* five widths; both directions, then decoding without gradients */
    ck_assert_uint_eq(steps, 5);
    /* 64 x 64 -> 64 by the first row: 2 n^3 */
    ck_assert(number(json_array_get(rows, 0), "flops") == 2.0 * 64 * 64 * 64);
    json_decref(root);

    root = measured("bench ops --op gated_delta --op linear --shape quickstart --tokens 8 --only 96x256 --chosen "
                    "--repeat 3");
    rows = json_object_get(root, "rows");
    ck_assert_uint_eq(json_array_size(rows), 2); /* there and back, of one implementation */
    json_array_foreach(rows, i, row) holds(json_string_value(json_object_get(row, "shape")), "96x256");
    json_decref(root);
}
END_TEST

START_TEST(train) {
    json_t *root = measured("bench train --shape quickstart --layers 2 --steps 3 --tokens 64 --repeat 4");
    json_t *rows = json_object_get(root, "rows"), *row;
    double inside = 0;
    size_t i, adamw = 0;
    json_array_foreach(rows, i, row) {
        inside += number(row, "seconds");
        if (strcmp(json_string_value(json_object_get(row, "op")), "adamw")) continue;
        adamw++;
        ck_assert(number(row, "calls") == 2 * 3);
    }
    ck_assert_uint_eq(adamw, 1);
    ck_assert(inside > 0 && inside <= number(root, "profiled_seconds"));
    ck_bench_row(root, "ms");
    ck_assert(number(root, "runs") == 4 && number(root, "steps") == 3);
    ck_assert_double_eq_tol(number(root, "seconds") * 1e3, number(root, "median_ms"), 1e-9);
    ck_positive(root, "of_sgemm");
    ck_positive(root, "of_product");
    json_decref(root);
}
END_TEST

static json_t *find_row(const json_t *rows, const char *key, const char *value) {
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) if (!strcmp(json_string_value(json_object_get(row, key)), value)) return row;
    ck_abort_msg("no row with %s %s", key, value);
    return NULL;
}

START_TEST(layer) {
    json_t *root = measured("bench layer --shape quickstart --tokens 64 --repeat 2 --block attention "
                            "--block \"{ type: gated_deltanet, num_heads: 2, head_dim: 16, expand_v: 2 }\"");
    json_t *rows = json_object_get(root, "rows"), *row;
    size_t i;
    ck_assert_uint_eq(json_array_size(rows), 4);
    json_array_foreach(rows, i, row) {
        ck_assert_str_eq(json_string_value(json_object_get(row, "direction")), i % 2 ? "both" : "fwd");
        ck_bench_row(row, "ms");
        ck_assert(number(row, "runs") >= 1 && number(row, "share_of_bound") > 0);
        if (i % 2) ck_assert(number(row, "flops") > 2 * number(json_array_get(rows, i - 1), "flops"));
    }
    /* q, k, v with biases, o; and per token those products, 3 flops per rotated channel, 4 Hq d n keys (blocks.md 3.5)
     */
    ck_assert(number(json_array_get(rows, 0), "parameters") == 64 * 64 * 2 + 32 * 64 * 2 + 64 + 32 * 2);
    ck_assert(number(json_array_get(rows, 0), "flops") ==
              64 * (2 * (64 * 64 * 2 + 32 * 64 * 2) + 64 + 32 * 2 + 3 * 96 + 4 * 64 * 32.5));
    json_decref(root);
    root = measured("bench layer --shape quickstart --tokens 64 --sequences 4 --repeat 1 --block attention");
    row = json_array_get(json_object_get(root, "rows"), 0); /* keys of the token's own sequence only */
    ck_assert(number(row, "flops") == 64 * (2 * (64 * 64 * 2 + 32 * 64 * 2) + 64 + 32 * 2 + 3 * 96 + 4 * 64 * 8.5));
    json_decref(root);
    root = measured("bench layer --shape quickstart --tokens 16 --repeat 1"); /* all there are */
    ck_assert_uint_ge(json_array_size(json_object_get(root, "rows")), 16);
    json_decref(root);
}
END_TEST

START_TEST(decode_and_prefill) {
    json_t *root = measured("bench decode --shape quickstart --layers 3 --block gated_deltanet --block attention "
                            "--batch 2 --context 30 --context 600 --repeat 2");
    json_t *rows = json_object_get(root, "rows"), *row;
    ck_assert_uint_eq(json_array_size(rows), 2 * 6); /* two mixers, the rest, the ends, their sum, the whole */
    row = find_row(rows, "part", "gated_deltanet");
    ck_assert(number(row, "layers") == 2 && number(row, "context") == 30 && number(row, "batch") == 2);
    row = find_row(rows, "part", "attention"); /* weights, and the keys and values of two sequences */
    ck_assert(number(row, "bytes") == 4 * (64 * 64 * 2 + 32 * 64 * 2 + 64 + 32 * 2) + 2 * 2 * 32 * 4 * 30);
    size_t i;
    json_array_foreach(rows, i, row) ck_bench_row(row, "ms");
    row = find_row(rows, "part", "the whole model");
    ck_assert(number(row, "flops") == number(find_row(rows, "part", "the sum of the parts"), "flops"));
    json_decref(root);

    root = measured("bench prefill " POSTNAS_SOURCE_DIR "/data/quickstart-base --context 600 --chunk 64 --repeat 2");
    rows = json_object_get(root, "rows");
    ck_assert_uint_eq(json_array_size(rows), 5);
    ck_assert(number(find_row(rows, "part", "attention"), "layers") == 8);
    ck_assert(number(find_row(rows, "part", "the whole model"), "median_ms") > 0);
    json_decref(root);
}
END_TEST

START_TEST(refusals) {
    refused("bench opt", "postnas bench: opt cannot be measured; did you mean ops?");
    refused("bench ops --op linar", "there is no op linar; did you mean linear?");
    refused("bench ops --shape smollm", "there is no shape smollm; ");
    refused("bench ops --device gpu", "--device gpu is neither cpu nor cuda");
    refused("bench ops --repeat 2", "--repeat");
    refused("bench ops --layers 2", "takes no --layers; it takes --device, --dtype, --shape, --op, --only, --chosen, "
                                    "--tokens, --sequences, --repeat, --json");
    refused("bench train --op add", "takes no --op; it takes ");
    refused("bench ops --op add --only 7x7", "no shape has 7x7 in its name");
    refused("bench layer --tokens 4 --sequences 5", "give each one");
    refused("bench layer --context 5", "takes no --context; it takes ");
    refused("bench layer data/quickstart-base", "takes no model directory");
    refused("bench layer --block attension", "no token mixer is named \"attension\"");
    refused("bench layer --block mlp", "no token mixer is named \"mlp\"");
    refused("bench layer --block '{ type: jet, expand_vv: 2 }'", "unknown key block.expand_vv; did you mean expand_v?");
    refused("bench layer --block '{ type: gated_deltanet, expand_v: 1.0001 }'", "gated_deltanet: ");
    refused("bench layer --block '{ type: jet'", "--block");
    refused("bench decode --chunk 5", "takes no --chunk; it takes ");
    refused("bench decode no-such-directory", "no-such-directory");
    refused("bench decode no-such-directory --layers 2", "says what --shape, --layers and --block say");
    refused("bench decode --context 0", "--context");
    refused("bench prefill --batch 5", "takes no --batch; it takes ");
    refused("bench train --set seed=1", "--set needs a --config");
    refused("bench train --config x.yaml --layers 2", "--config says what --shape, --layers and --tokens say");
    refused("bench train --config no-such-file.yaml", "no-such-file.yaml");
}
END_TEST

START_TEST(step_trains_whole_models) {
    static const char *const stages[] = { "--stage 2", "--stage 1 --block gated_deltanet --recompute cores" };
    for (int i = 0; i < 2; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments,
                 "bench step --shape quickstart --layers 2 --tokens 64 --sequences 2 --steps 2 %s", stages[i]);
        program_result r = program(arguments);
        ck_assert_msg(r.code == 0, "%s", r.err);
        holds(r.out, "64 tokens in 2 sequences");
        holds(r.out, i ? "linear_kl/cpu" : "linear_cross_entropy/cpu");
        holds(r.out, "adamw");
    }
    json_t *root = measured("bench step --shape quickstart --layers 2 --tokens 64 --steps 4");
    ck_bench_row(root, "ms");
    ck_positive(root, "of_product");
    ck_positive(root, "share_of_bound");
    ck_positive(root, "tokens_per_second");
    ck_assert(json_is_true(json_object_get(root, "deterministic")));
    json_decref(root);
    refused("bench step --tokens 4 --sequences 3", "4 tokens in 3 sequences");
}
END_TEST

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* whose own addresses are more than the limit */
START_TEST(too_little_memory_names_the_options_of_the_command) {
    char command[4096];
    program_result r = { 0 };
    FILE *out = tmpfile(), *err = tmpfile();
    ck_assert(out && err);
    /* An activation has 9.7 GB. */
    snprintf(command, sizeof command,
             "ulimit -v 8000000; %s bench step --tokens 4194304 --layers 1 --shape smollm2-135m --steps 1 --threads 1",
             program_path());
    const int status = run_shell(command, out, err);
    read_back(out, r.out, sizeof r.out);
    read_back(err, r.err, sizeof r.err);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 3, "%s", r.err);
    holds(r.err, "host memory exhausted: 9663.7 MB more are wanted on top of ");
    holds(r.err, " MB are free; lower --tokens, --batch, --context or --layers, or name a smaller --shape");
}
END_TEST
#else
START_TEST(too_little_memory_names_the_options_of_the_command) {}
END_TEST
#endif

TEST_MAIN("bench", step_trains_whole_models, ops, train, layer, decode_and_prefill, refusals,
          too_little_memory_names_the_options_of_the_command)
