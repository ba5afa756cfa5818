/* postnas bench, from outside: rows, the file, refusals. What it measures is not a test's business. */
#include "cli_fixture.h"

#include <jansson.h>
#include <unistd.h>

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

static double number(const json_t *row, const char *key) {
    return json_number_value(json_object_get(row, key));
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
        ck_assert(number(row, "min_us") > 0 && number(row, "median_us") >= number(row, "min_us"));
        ck_assert(number(row, "flops") > 0 && number(row, "share_of_bound") > 0);
    }
    ck_assert_uint_eq(linear, 5 * 2 + 5); /* five widths; both directions, then decoding without gradients */
    ck_assert_uint_eq(steps, 5);
    /* 64 x 64 -> 64 by the first row: 2 n^3 */
    ck_assert(number(json_array_get(rows, 0), "flops") == 2.0 * 64 * 64 * 64);
    json_decref(root);
}
END_TEST

START_TEST(train) {
    json_t *root = measured("bench train --shape quickstart --layers 2 --steps 3 --tokens 64");
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
    ck_assert(inside > 0 && inside <= number(root, "seconds"));
    ck_assert(number(root, "of_sgemm") > 0);
    json_decref(root);
}
END_TEST

START_TEST(refusals) {
    refused("bench opt", "postnas bench: opt cannot be measured; did you mean ops?");
    refused("bench ops --op linar", "there is no op linar; did you mean linear?");
    refused("bench ops --shape smollm", "there is no shape smollm; ");
    refused("bench ops --device cuda", "device cuda is not in this version");
    refused("bench ops --repeat 2", "--repeat");
    refused("bench ops --layers 2", "--config, --steps and --layers are of bench train");
    refused("bench train --op add", "--op and --repeat are of bench ops");
    refused("bench train --set seed=1", "--set needs a --config");
    refused("bench train --config x.yaml --layers 2", "--config says what --shape, --layers and --tokens say");
    refused("bench train --config no-such-file.yaml", "no-such-file.yaml");
}
END_TEST

TEST_MAIN("bench", ops, train, refusals)
