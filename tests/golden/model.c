/* `check model` over the stored model directories, and proof that it can fail. */
#include "golden_write.h"
#include <unistd.h>

#include "check_model.h"
#include "files.h"

#define GOLDEN POSTNAS_SOURCE_DIR "/tests/data/golden"

typedef struct outcome {
    pn_status status;
    char *text; /* free() */
} outcome;

static outcome check(const char *model, const char *expected) {
    outcome o;
    size_t n;
    FILE *out = open_memstream(&o.text, &n);
    o.status = pn_check_model(model, expected, out);
    fclose(out);
    return o;
}

static void passes(const char *name, const char *const *rows, const char *last) {
    char model[PN_PATH_MAX], expected[PN_PATH_MAX];
    snprintf(model, sizeof model, "%s/%s", GOLDEN, name);
    snprintf(expected, sizeof expected, "%s/%s/expected_outputs.safetensors", GOLDEN, name);
    outcome o = check(model, expected);
    ck_assert_msg(o.status == PN_OK, "%s: %s\n%s", name, pn_error_message(), o.text);
    for (; *rows; rows++) {
        char row[64];
        snprintf(row, sizeof row, "ok    %s | cpu | rms ", *rows);
        ck_assert_msg(strstr(o.text, row) != NULL, "no \"%s\" in:\n%s", row, o.text);
    }
    ck_assert_msg(strstr(o.text, last) != NULL, "%s", o.text);
    free(o.text);
}

START_TEST(stored_models_pass) {
    passes("qwen2_tiny",
           (const char *const[]){ "hidden.0", "hidden.1", "hidden.2", "hidden.3", "hidden.4", "logits",
                                  "logits, one token at a time", "logits, in pieces", NULL },
           "\n8 passed, 0 failed\n");
    passes("llama_tiny", (const char *const[]){ "logits", "logits, one token at a time", "logits, in pieces", NULL },
           "\n3 passed, 0 failed\n");
}
END_TEST

/* The expectation altered: `alter` changes qwen2_tiny's; then this status, and this text in the rows or the message. */
static void with(void (*alter)(golden_file *g), pn_status status, const char *text) {
    char path[] = "/tmp/postnas-expected-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    golden_file g = golden_load(GOLDEN "/qwen2_tiny/expected_outputs.safetensors");
    alter(&g);
    golden_store(&g, path);
    golden_free(&g);
    outcome o = check(GOLDEN "/qwen2_tiny", path);
    const char *story = status == PN_MISMATCH ? o.text : pn_error_message();
    ck_assert_msg(o.status == status && strstr(story, text), "%s: %s\n%s", pn_status_text(o.status), pn_error_message(),
                  o.text);
    free(o.text);
    unlink(path);
}

static void nudge(golden_file *g, const char *name, float by) {
    float x;
    memcpy(&x, golden_values(g, name), sizeof x);
    x += by;
    memcpy(golden_values(g, name), &x, sizeof x);
}
static void wrong_logits(golden_file *g) {
    nudge(g, "logits", 0.5f);
}
static void wrong_hidden(golden_file *g) {
    nudge(g, "hidden.2", 0.1f);
}
static void wrong_id(golden_file *g) {
    int64_t id = 511;
    memcpy(golden_values(g, "input_ids") + 8 * 70, &id, sizeof id);
}
static void id_outside(golden_file *g) {
    int64_t id = 512;
    memcpy(golden_values(g, "input_ids"), &id, sizeof id);
}
static void id_negative(golden_file *g) {
    int64_t id = -1;
    memcpy(golden_values(g, "input_ids"), &id, sizeof id);
}
static void rename_tensor(golden_file *g, const char *from, const char *to) {
    json_object_set_new(g->header, to, json_incref(json_object_get(g->header, from)));
    json_object_del(g->header, from);
}
static void no_logits(golden_file *g) {
    rename_tensor(g, "logits", "logit");
}
static void no_ids(golden_file *g) {
    rename_tensor(g, "input_ids", "ids");
}
static void one_layer_more(golden_file *g) {
    rename_tensor(g, "hidden.0", "hidden.5");
}
static void other_vocabulary(golden_file *g) {
    json_object_set_new(json_object_get(g->header, "logits"), "shape", json_pack("[i, i, i]", 2, 150, 256));
}
static void other_sequences(golden_file *g) {
    json_object_set_new(json_object_get(g->header, "input_ids"), "shape", json_pack("[i, i]", 1, 150));
}

START_TEST(what_does_not_fit_fails) {
    with(wrong_logits, PN_MISMATCH, "FAIL  logits | cpu |");
    with(wrong_logits, PN_MISMATCH, "\n5 passed, 3 failed\n");
    with(wrong_hidden, PN_MISMATCH, "FAIL  hidden.2 | cpu |");
    with(wrong_hidden, PN_MISMATCH, "\n7 passed, 1 failed\n");
    with(wrong_id, PN_MISMATCH, "\n0 passed, 8 failed\n");
    with(other_sequences, PN_MISMATCH, "FAIL  logits | cpu |"); /* one document instead of two */
    with(id_outside, PN_FORMAT, "input_ids holds 512 at position 0; the model's vocabulary is 0 .. 511");
    with(id_negative, PN_FORMAT, "input_ids holds -1");
    with(no_logits, PN_FORMAT, "no tensor logits");
    with(no_ids, PN_FORMAT, "no tensor input_ids");
    with(one_layer_more, PN_FORMAT, "it has hidden.5, but the model has 4 layers");
    with(other_vocabulary, PN_FORMAT, "with these input_ids this model gives [2, 75, 512]");
    outcome o = check(GOLDEN "/no_such_model", GOLDEN "/qwen2_tiny/expected_outputs.safetensors");
    ck_assert_int_eq(o.status, PN_IO);
    free(o.text);
    o = check(GOLDEN "/qwen2_tiny", GOLDEN "/no_such_file.safetensors");
    ck_assert_int_eq(o.status, PN_IO);
    free(o.text);
}
END_TEST

/* Another program's logits: compared as distributions, against the two limits. */
static void agrees(const char *expected, double kl, double top1, pn_status status, const char *text) {
    outcome o;
    size_t n;
    FILE *out = open_memstream(&o.text, &n);
    o.status = pn_check_model_agrees(GOLDEN "/qwen2_tiny", expected, &(pn_check_agreement){ kl, top1 }, out);
    fclose(out);
    ck_assert_msg(o.status == status && strstr(o.text, text), "%s: %s\n%s", pn_status_text(o.status),
                  pn_error_message(), o.text);
    free(o.text);
}

START_TEST(distributions_are_compared) {
    const char *expected = GOLDEN "/qwen2_tiny/expected_outputs.safetensors";
    agrees(expected, 1e-9, 1, PN_OK, "first choice equal for 150 of 150 tokens");
    char path[] = "/tmp/postnas-expected-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    golden_file g = golden_load(expected);
    nudge(&g, "logits", 30); /* the first token's distribution moves to word 0 */
    golden_store(&g, path);
    golden_free(&g);
    agrees(path, 1e-3, 0.9, PN_MISMATCH, "FAIL  logits, 150 tokens | cpu | mean KL");
    agrees(path, 10, 0.999, PN_MISMATCH, "top-1 differs 6.7e-03/1e-03!");
    agrees(path, 10, 0.9, PN_OK, "first choice equal for 149 of 150 tokens");
    unlink(path);
}
END_TEST

TEST_MAIN("model golden", stored_models_pass, what_does_not_fit_fails, distributions_are_compared)
