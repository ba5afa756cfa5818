/* A small search of two kinds of layers with objectives of their own, then --rerank on what it left. */
#include "cli_fixture.h"

#include "../io/io_fixture.h"

#include "files.h"
#include "json.h"

/* Four layers' worth of everything would do: the numbers mean nothing, the bookkeeping is what is tested. */
#define SEARCH                                                                                                         \
    "search -q --config " POSTNAS_SOURCE_DIR "/configs/quickstart.yaml --set model=" POSTNAS_SOURCE_DIR                \
    "/data/quickstart-base --set supernet.tokens=4096 --set distill.tokens=0 --set compare.uniform=false "             \
    "--set compare.all_linear=false --set compare.exhaustive=false --set heldout.samples=1 "                           \
    "--set search.tasks.0.documents=2 --set search.tasks.1.documents=1 --set search.tasks.2.documents=2 "              \
    "--set search.limits.none=1 --set search.objectives.none=text.nll "                                                \
    "--set 'search.objective=recall.nll + 0.5 facts.nll' --set search.beam.width=1 --set search.refine=1 "             \
    "--set search.normalise=true --set output=%s"

static char run[256];

static char *read_text(const char *name) {
    char path[512], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/%s", run, name);
    ck_ok(pn_file_read(path, 1 << 24, &text, &n));
    return text;
}

static int64_t number(const json_t *row, const char *key) {
    int64_t n;
    ck_ok(pn_json_get_i64(row, "result.json", key, -1, 1 << 30, &n));
    return n;
}

static int count(const json_t *row, const char *block) {
    const json_t *layers = json_object_get(row, "layers");
    int n = 0;
    for (size_t l = 0; l < json_array_size(layers); l++)
        n += !strcmp(json_string_value(json_array_get(layers, l)), block);
    return n;
}

static int differing_layers(const json_t *a, const json_t *b) {
    const json_t *x = json_object_get(a, "layers"), *y = json_object_get(b, "layers");
    int n = 0;
    for (size_t l = 0; l < json_array_size(x); l++)
        n += strcmp(json_string_value(json_array_get(x, l)), json_string_value(json_array_get(y, l))) != 0;
    return n;
}

/* Rows come round by round; each changes the row it names in one layer, or exchanges two. A stage starts from a row of
 * the one before. */
static void history_is_a_tree(const json_t *result) {
    const json_t *history = json_object_get(result, "history");
    int64_t round = 0, stage = 0;
    ck_assert_uint_gt(json_array_size(history), 30);
    for (size_t i = 0; i < json_array_size(history); i++) {
        const json_t *row = json_array_get(history, i);
        int64_t parent = number(row, "parent");
        ck_assert_int_ge(number(row, "round"), round);
        ck_assert_int_le(number(row, "round"), round + 1);
        round = number(row, "round");
        stage = number(row, "stage");
        ck_assert_int_lt(parent, (int64_t)i);
        if (parent >= 0) {
            const json_t *from = json_array_get(history, (size_t)parent);
            int changed = differing_layers(from, row);
            bool starts = number(from, "stage") == stage - 1;
            ck_assert(starts || number(from, "stage") == stage);
            ck_assert_int_lt(number(from, "round"), round);
            ck_assert_msg(starts ? !changed : changed == 1 || changed == 2, "row %zu", i);
        } else {
            ck_assert_uint_eq(i, 0);
        }
        ck_assert(json_real_value(json_object_get(row, "cache_bytes")) > 0);
        ck_assert_int_eq(stage ? count(row, "attention") : 0, stage ? 2 : 0);
    }
    ck_assert_int_eq(stage, 1);
}

static void searches(void) {
    char command[2048], path[512];
    strcpy(run, scratch("rerank"));
    snprintf(command, sizeof command, SEARCH, run);
    program_result r = program(command);
    ck_assert_msg(r.code == 0, "%s", r.err);
    json_t *result;
    snprintf(path, sizeof path, "%s/result.json", run);
    ck_ok(pn_json_load(path, 1 << 24, &result));
    history_is_a_tree(result);
    const json_t *stages = json_object_get(result, "stages");
    ck_assert_uint_eq(json_array_size(stages), 2);
    const json_t *first = json_array_get(stages, 0), *last = json_array_get(stages, 1);
    ck_assert_str_eq(json_string_value(json_object_get(first, "objective")), "recall.nll + 0.5 facts.nll");
    ck_assert_str_eq(json_string_value(json_object_get(last, "objective")), "text.nll");
    ck_assert_str_eq(json_string_value(json_object_get(last, "path")),
                     json_string_value(json_object_get(result, "path")));
    ck_assert_int_eq(count(result, "attention"), 2);
    ck_assert_int_le(count(result, "none"), 1);
    json_decref(result);
}

static program_result rerank(const char *arguments) {
    char command[2048];
    snprintf(command, sizeof command, "search -q --rerank %s %s", run, arguments);
    return program(command);
}

static void refused(const char *arguments, const char *message) {
    char command[1024], want[1024];
    snprintf(command, sizeof command, "search -q --rerank %s %s", run, arguments);
    snprintf(want, sizeof want, "%s%s", message[0] == ':' ? run : "", message);
    refuses(command, 2, want);
}

static void ranks_again(void) {
    char *scores = read_text("state/scores.jsonl");

    program_result r = rerank("");
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, "ranked by recall.nll + 0.5 facts.nll, 0 all linear and 1 the teacher, more is better\n");
    r = rerank("--set search.objective=text.nll --set search.normalise=false --set search.limits.none=0 --top 1");
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, "ranked by text.nll, less is better\n");
    holds(r.out, "\n   1  ");
    ck_assert(!strstr(r.out, "\n   2  "));
    ck_assert(!strstr(r.out, "none"));
    char *after = read_text("state/scores.jsonl");
    ck_assert_str_eq(after, scores); /* nothing is written */
    free(after);

    refused("--set search.limits.full_attention=4",
            ": has measured no path of these search.limits; search again with them");
    refused("--set search.tasks.0.seed=7 --set search.normalise=false --set search.objective=recall.nll",
            ": no path has scores for recall.nll; add --measure");
    r = rerank("--set search.tasks.0.seed=7");
    ck_assert_int_eq(r.code, 2);
    holds(r.err, " has no scores of the all-linear path and of the teacher for this objective; add --measure\n");
    r = rerank("--set search.tasks.0.seed=7 --measure");
    ck_assert_msg(r.code == 0, "%s", r.err);
    char first[1 << 16];
    strcpy(first, r.out);
    r = rerank("--set search.tasks.0.seed=7"); /* what was measured is kept */
    ck_assert_str_eq(r.out, first);
    after = read_text("state/scores.jsonl");
    ck_assert(!strncmp(after, scores, strlen(scores)) && strlen(after) > strlen(scores));
    free(after);
    free(scores);
}

static void edit_config(const char *from, const char *to) {
    char command[1024];
    snprintf(command, sizeof command, "sed -i 's/%s/%s/' %s/config.yaml", from, to, run);
    ck_assert_int_eq(system(command), 0);
}

/* Scores are of the weights that the configuration and the state give, or there is no ranking. */
static void refuses_other_networks(void) {
    char path[512];
    edit_config("tokens: 4096", "tokens: 6144");
    program_result r = rerank("");
    ck_assert_int_eq(r.code, 2);
    holds(r.err, "/state/supernet/layer-0 holds the state of a run with other settings");
    edit_config("tokens: 6144", "tokens: 4096");
    snprintf(path, sizeof path, "%s/state/supernet/layer-7", run);
    ck_ok(pn_remove_tree(path));
    r = rerank("");
    ck_assert_int_eq(r.code, 2);
    holds(r.err, "/state/supernet: holds no super-network that was trained to the end with these settings\n");
    ck_assert(!pn_file_exists(path));

    refused("--set seed=2", "--set seed=2: a super-network that is trained can be asked for other search.* only");
    refuses("search --rerank /nowhere", 2, "/nowhere: is no run of postnas search: it has no config.yaml");
    refuses("search --rerank a --config b", 2,
            "postnas search: --rerank takes the configuration from the run; change its search section with --set");
    refuses("search --measure", 2, "postnas search: --measure and --top belong to --rerank");
}

START_TEST(searches_then_ranks_again) {
    searches();
    ranks_again();
    refuses_other_networks();
}
END_TEST

TEST_MAIN("cli_rerank", searches_then_ranks_again)
