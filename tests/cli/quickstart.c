/* postnas search from end to end on the quickstart's base with small budgets: the placement that matters is found, the
 * exported model gives the table's numbers, another setting is refused in the same directory. */
#include "cli_fixture.h"

#include "../io/io_fixture.h"

#include "files.h"
#include "json.h"
#include "model_load.h"

#define CONFIG                                                                                                         \
    "--config " POSTNAS_SOURCE_DIR "/configs/quickstart.yaml --set model=" POSTNAS_SOURCE_DIR "/data/quickstart-base "
#define SMALL "--set distill.tokens=8192 --set compare.exhaustive=false --set heldout.samples=2 "

/* The mean of a metric in a table row of result.json. */
static double mean_of(const json_t *table, const char *row, const char *task, const char *metric) {
    size_t i;
    json_t *r;
    json_array_foreach(table, i, r) {
        if (row && strcmp(json_string_value(json_object_get(r, "name")), row)) continue;
        char path[128];
        double value;
        snprintf(path, sizeof path, "tasks.%s.%s.mean", task, metric);
        ck_ok(pn_json_get_f64(r, "result.json", path, -1e9, 1e9, &value));
        return value;
    }
    ck_abort_msg("no row %s", row ? row : "at all");
}

START_TEST(finds_distils_exports) {
    char run[256], command[2048], path[512];
    strcpy(run, scratch("run"));
    snprintf(command, sizeof command, "search " CONFIG SMALL "--set output=%s", run);
    program_result r = program(command);
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, "2 of 8 layers keep full attention");
    holds(r.out, "chance");

    snprintf(path, sizeof path, "%s/report.html", run);
    ck_assert(pn_file_exists(path));

    json_t *result, *scores;
    snprintf(path, sizeof path, "%s/result.json", run);
    ck_ok(pn_json_load(path, 1 << 24, &result));
    const json_t *table = json_object_get(result, "table");
    double best = mean_of(table, "PostNAS", "recall", "accuracy");
    ck_assert_double_ge(best, mean_of(table, "uniform", "recall", "accuracy") + 0.3);
    ck_assert_double_ge(best, mean_of(table, "all linear", "recall", "accuracy") + 0.3);
    ck_assert_double_ge(mean_of(table, "teacher", "recall", "accuracy"), 0.95);

    /* eval of the exported directory gives the table's numbers, to the last bit */
    snprintf(path, sizeof path, "%s/scores.json", run);
    snprintf(command, sizeof command, "eval %s/model " CONFIG SMALL "--output %s", run, path);
    r = program(command);
    ck_assert_msg(r.code == 0, "%s", r.err);
    ck_ok(pn_json_load(path, 1 << 24, &scores));
    ck_assert_double_eq(mean_of(scores, NULL, "recall", "nll"), mean_of(table, "PostNAS, distilled", "recall", "nll"));
    ck_assert_double_eq(mean_of(scores, NULL, "text", "nll"), mean_of(table, "PostNAS, distilled", "text", "nll"));
    json_decref(scores);
    json_decref(result);

    snprintf(path, sizeof path, "%s/model", run);
    pn_model *m;
    ck_ok(pn_model_load(path, PN_F32, &m));
    ck_assert_int_eq(m->config.n_layers, 8);
    pn_model_destroy(&m);

    /* another setting into the same directory is refused, but for those that change no result */
    snprintf(command, sizeof command,
             "search " CONFIG SMALL "--set seed=2 --set supernet.checkpoint_seconds=7 --set distill.recompute=layers "
             "--set output=%s",
             run);
    char message[1024];
    snprintf(message, sizeof message,
             "%s holds a run with other settings: --set: seed is 2, and 1 in that run; set it as it was, use another "
             "output directory, or remove this one",
             run);
    refuses(command, 2, message);
    strcpy(strstr(command, "seed=2"), "seed=1 ");
    snprintf(command + strlen(command), sizeof command - strlen(command),
             "--set supernet.checkpoint_seconds=7 --set distill.recompute=layers --set output=%s", run);
    r = program(command);
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, "holds this run, finished");
}
END_TEST

/* The gated quickstart on a budget of a few steps: gates of every layer are in the result, over training and at the
 * end, and spend what the limits say. */
START_TEST(gates_are_in_the_result) {
    char run[256], command[2048], path[512];
    strcpy(run, scratch("gated"));
    snprintf(command, sizeof command,
             "search --config " POSTNAS_SOURCE_DIR "/configs/quickstart-gated.yaml --set model=" POSTNAS_SOURCE_DIR
             "/data/quickstart-base --set supernet.tokens=2048 --set supernet.then.tokens=6144 --set distill.tokens=0 "
             "--set search.strategy=uniform --set compare.exhaustive=false --set compare.uniform=false "
             "--set compare.all_linear=false --set heldout.samples=1 --set output=%s",
             run);
    program_result r = program(command);
    ck_assert_msg(r.code == 0, "%s", r.err);
    json_t *result, *layer;
    snprintf(path, sizeof path, "%s/result.json", run);
    ck_ok(pn_json_load(path, 1 << 24, &result));
    const json_t *gates = json_object_get(result, "gates");
    ck_assert_uint_eq(json_array_size(json_object_get(gates, "candidates")), 2);
    ck_assert_uint_eq(json_array_size(json_object_get(gates, "points")), 3);
    const json_t *final = json_object_get(gates, "final");
    ck_assert_uint_eq(json_array_size(final), 8);
    double attention = 0;
    size_t l;
    json_array_foreach(final, l, layer) {
        double first = json_real_value(json_array_get(layer, 0)), second = json_real_value(json_array_get(layer, 1));
        ck_assert_double_eq_tol(first + second, 1, 1e-12);
        attention += first;
    }
    ck_assert_double_eq_tol(attention, 2, 1e-12);
    json_decref(result);
}
END_TEST

TEST_MAIN("cli_quickstart", finds_distils_exports, gates_are_in_the_result)
