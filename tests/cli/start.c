/* A search whose linear blocks start from attention and keep its biases and positions: the configuration is obeyed, the
 * result says where training began, and the exported model, under its own layer type, is read back. */
#include "cli_fixture.h"

#include "../io/io_fixture.h"

#include "files.h"
#include "json.h"

#define CONFIG                                                                                                         \
    "--config " POSTNAS_SOURCE_DIR "/configs/quickstart.yaml --set model=" POSTNAS_SOURCE_DIR "/data/quickstart-base " \
    "--set supernet.tokens=8192 --set distill.tokens=0 --set compare.exhaustive=false --set heldout.samples=1 "        \
    "--set 'search.tasks=[{name: recall, kind: recall, skill: recall, documents: 2, document_bytes: 255, seed: 1}]' "  \
    "--set supernet.blocks.0.rope=true --set supernet.blocks.0.qkv_bias=true "

/* The local errors at step 0, summed. */
static double search(const char *run, const char *init) {
    char command[2048], path[512];
    snprintf(command, sizeof command, "search -q " CONFIG "--set supernet.blocks.0.init=%s --set output=%s", init, run);
    program_result r = program(command);
    ck_assert_msg(r.code == 0, "%s", r.err);
    json_t *result, *row;
    size_t i;
    double sum = 0, start, first;
    snprintf(path, sizeof path, "%s/result.json", run);
    ck_ok(pn_json_load(path, 1 << 24, &result));
    const json_t *errors = json_object_get(result, "local_errors");
    ck_assert_uint_eq(json_array_size(errors), 8);
    json_array_foreach(errors, i, row) {
        ck_ok(pn_json_get_f64(row, "result.json", "start", 0, 1e9, &start));
        ck_ok(pn_json_get_f64(row, "result.json", "first", 0, 1e9, &first));
        ck_assert_double_eq(start, first); /* a tenth of 4 steps is one */
        sum += start;
    }
    json_decref(result);
    return sum;
}

static int mentions(const char *run, const char *file, const char *text) {
    char path[512];
    char *data;
    size_t n_bytes;
    int n = 0;
    snprintf(path, sizeof path, "%s/%s", run, file);
    ck_ok(pn_file_read(path, 1 << 24, &data, &n_bytes));
    for (const char *p = data; (p = strstr(p, text)); p++) n++;
    free(data);
    return n;
}

START_TEST(attention_is_a_start) {
    char random[256], attention[256], command[1024];
    strcpy(random, scratch("random"));
    strcpy(attention, scratch("attention"));
    ck_assert_double_ne(search(random, "random"), search(attention, "attention"));
    ck_assert_int_eq(mentions(random, "log.jsonl", "start_from_attention"), 0);
    ck_assert_int_eq(mentions(attention, "log.jsonl", "\"start_from_attention\""), 8); /* one for each layer */
    ck_assert_int_eq(mentions(attention, "model/config.json", "\"gdn_postnas\""), 7); /* 6 layers, and their settings */
    ck_assert_int_eq(mentions(attention, "model/postnas.json", "\"gdn_postnas\""), 1);
    snprintf(command, sizeof command, "generate %s/model --prompt abc --tokens 4", attention);
    program_result r = program(command);
    ck_assert_msg(r.code == 0, "%s", r.err);
}
END_TEST

TEST_MAIN("start", attention_is_a_start)
