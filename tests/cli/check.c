/* postnas check, from outside: last lines, exit codes, refusals. */
#include "cli_fixture.h"
#include <unistd.h>

#define GOLDEN POSTNAS_SOURCE_DIR "/tests/data/golden"

/* Fails with this code and one line on standard error that holds the text. */
static void refused(const char *arguments, int code, const char *text) {
    program_result r = program(arguments);
    ck_assert_int_eq(r.code, code);
    holds(r.err, text);
    ck_assert_ptr_eq(strchr(r.err, '\n'), r.err + strlen(r.err) - 1);
    ck_assert_str_eq(r.out, "");
}

START_TEST(vectors) {
    program_result r = program("check vectors " GOLDEN);
    ck_assert_int_eq(r.code, 0);
    holds(r.out, " passed, 0 failed\n");
    r = program("check vectors " GOLDEN "/core_delta.safetensors " GOLDEN "/block_jet.safetensors");
    ck_assert_int_eq(r.code, 0);
    holds(r.out, "3 passed, 0 failed\n");
    r = program("check vectors " GOLDEN "/core_la_vector_strong.safetensors " GOLDEN "/block_gla.safetensors");
    ck_assert_int_eq(r.code, 0);
    holds(r.out, "3 passed, 0 failed\n");
    r = program("check vectors " GOLDEN "/qwen2_tiny/expected_outputs.safetensors"); /* named, and no golden file */
    ck_assert_int_eq(r.code, 1);
    holds(r.out, "0 passed, 1 failed\n");
    refused("check vectors", 2, "postnas check vectors: name golden files, or folders of them");
    refused("check vectors " POSTNAS_SOURCE_DIR "/src", 2, "no .safetensors files in this folder");
    refused("check vectors " GOLDEN "/README.md", 2, "README.md");
}
END_TEST

START_TEST(ops) {
    program_result r = program("check ops add swiglu");
    ck_assert_int_eq(r.code, 0);
    holds(r.out, "add/cpu");
    holds(r.out, "finite differences");
    holds(r.out, " passed, 0 failed\n");
    refused("check ops ad", 2, "there is no op ad; did you mean add?");
    refused("check ops add --backend gpu", 2, "--backend gpu is neither cpu nor cuda");
}
END_TEST

START_TEST(model_and_tokenizer) {
    program_result r =
        program("check model " GOLDEN "/llama_tiny --expected " GOLDEN "/llama_tiny/expected_outputs.safetensors");
    ck_assert_int_eq(r.code, 0);
    holds(r.out, "3 passed, 0 failed\n");
    r = program("check model " GOLDEN "/llama_tiny --expected " GOLDEN "/qwen2_tiny/expected_outputs.safetensors");
    ck_assert_int_eq(r.code, 2); /* another model's vocabulary */
    refused("check model " GOLDEN "/llama_tiny", 2, "--expected FILE");
    r = program("check model " GOLDEN "/llama_tiny --expected " GOLDEN
                "/llama_tiny/expected_outputs.safetensors --kl 1e-9 --top1 1");
    ck_assert_int_eq(r.code, 0);
    holds(r.out, "1 passed, 0 failed\n");
    r = program("check tokenizer " POSTNAS_SOURCE_DIR "/tests/data/tokenizer --expected " POSTNAS_SOURCE_DIR
                "/tests/data/tokenizer/expected.jsonl");
    ck_assert_int_eq(r.code, 0);
    holds(r.out, " passed, 0 failed\n");
    refused("check models " GOLDEN, 2, "models cannot be checked; did you mean model?");
}
END_TEST

TEST_MAIN("check", vectors, ops, model_and_tokenizer)
