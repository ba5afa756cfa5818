/* Stages block and shape in whole runs: what was chosen is what the rule of the configuration says of the numbers in
 * result.json and speed.json, and a run that is stopped again and again gives the undisturbed one's result. */
#include "search_fixture.h"

#include <math.h>

#include "report.h"

#define TRAIN "tokens: 2048, batch_tokens: 1024, learning_rate: 5e-3, "

static double number(const json_t *o, const char *key) {
    const json_t *x = json_object_get(o, key);
    ck_assert_msg(json_is_number(x), "%s is no number", key);
    return json_number_value(x);
}

static const json_t *stage_of(const json_t *result, const char *name) {
    const json_t *list = json_object_get(result, "variants");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!strcmp(json_string_value(json_object_get(json_array_get(list, i), "stage")), name))
            return json_array_get(list, i);
    ck_abort_msg("no stage %s", name);
}

/* The run's page is what its two files give, and shows the stages and the whole models. */
static void check_page(const char *run, const json_t *result, const json_t *speed) {
    static const char *const sections[] = { "<section id=\"block\">", "<section id=\"shape\">",
                                            "<section id=\"speed\">" };
    char file[256], again[256], *page, *made;
    size_t n;
    snprintf(file, sizeof file, "%s/%s/report.html", top, run);
    snprintf(again, sizeof again, "%s/again.html", top);
    ck_ok(pn_report_write(result, speed, again));
    ck_ok(pn_file_read(file, 1 << 24, &page, &n));
    ck_ok(pn_file_read(again, 1 << 24, &made, &n));
    ck_assert_str_eq(page, made);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) ck_assert_ptr_nonnull(strstr(page, sections[i]));
    free(page);
    free(made);
}

static const json_t *variant(const json_t *stage, size_t i) {
    return json_array_get(json_object_get(stage, "variants"), i);
}

/* Seconds of all contexts of one block's decoding, from the rates in speed.json. */
static double decode_seconds(const json_t *speed, size_t stage, size_t i) {
    const json_t *s = json_array_get(json_object_get(speed, "stages"), stage);
    const json_t *rates = json_object_get(variant(s, i), "decode");
    double sum = 0;
    for (size_t k = 0; k < json_array_size(rates); k++)
        sum += number(speed, "batch") / json_number_value(json_array_get(rates, k));
    return sum;
}

/* The least of objective and worth, where less of the objective is better; mixtures and rechecks aside. */
static size_t weighed(const json_t *stage, const char *cost, double worth) {
    size_t n = json_array_size(json_object_get(stage, "variants")), best = 0;
    double least = INFINITY;
    for (size_t i = 0; i < n; i++) {
        double loss = number(variant(stage, i), "objective") + worth * log2(number(variant(stage, i), cost));
        if (loss < least) best = i;
        least = fmin(least, loss);
    }
    return best;
}

START_TEST(block_by_weighed_objective) {
    setup();
    char *said;
    const char *const mode[] = {
        "stages=[placement, block]",
        "block={" TRAIN "objective: teacher.kl, worth: {parameters: 3}, candidates: [{type: gla, num_heads: 1}, "
        "{type: retnet, num_heads: 2}, {type: mamba2, expand: 1, head_dim: 32, state_size: 8}], mix: {width: 1}}",
        "latency={context: [64, 256], chunk: 64, repeat: 3}", NULL
    };
    ck_ok(search("whole", mode, &said));
    ck_assert_ptr_nonnull(strstr(said, "stage block, by teacher.kl"));
    free(said);
    json_t *result = result_of("whole");
    const json_t *block = stage_of(result, "block"), *history = json_object_get(result, "history");
    size_t chosen = (size_t)number(block, "chosen"), winner = (size_t)number(block, "winner");
    ck_assert_uint_eq(chosen, weighed(block, "parameters", 3));
    ck_assert_uint_ne(chosen, weighed(block, "parameters", 0)); /* the worth is felt */

    /* The mixture is at least as good, in its parameters too, and is the run's result. */
    const json_t *row = json_array_get(history, winner), *layers = json_object_get(row, "layers");
    double parameters = 0, plain = 0;
    for (size_t l = 0; l < json_array_size(layers); l++) {
        for (size_t i = 0; i < 3; i++) {
            bool here = !strcmp(json_string_value(json_array_get(layers, l)),
                                json_string_value(json_object_get(variant(block, i), "type")));
            if (here) parameters += number(variant(block, i), "parameters");
            if (here) plain += number(variant(block, chosen), "parameters");
        }
    }
    ck_assert_double_le(number(row, "objective") + 3 * log2(parameters),
                        number(variant(block, chosen), "objective") + 3 * log2(plain) + 1e-9);
    ck_assert(json_equal(json_object_get(result, "path"), json_object_get(row, "path")));
    json_decref(result);
    ck_ok(pn_remove_tree(top));
}
END_TEST

static const char *const shape_mode[] = {
    "stages=[placement, block, shape]",
    "block={" TRAIN
    "objective: teacher.kl, candidates: [{type: gla, num_heads: 1}, {type: gated_deltanet, num_heads: 2, "
    "head_dim: 16, expand_v: 2}]}",
    "shape={" TRAIN
    "objective: teacher.kl, choose: fastest, tolerance: 0.5, candidates: [{type: gla, num_heads: [2, 4]}, "
    "{type: gated_deltanet, num_heads: [1, 2, 4], head_dim: [8, 16, 32], state: 1024}]}",
    "latency={context: [64, 256], chunk: 64, repeat: 3}",
    NULL,
    NULL
};

START_TEST(shape_by_measured_speed) {
    setup();
    char *said, table[128];
    ck_ok(search("first", shape_mode, &said));
    ck_assert_ptr_nonnull(strstr(said, "stage shape, by teacher.kl"));
    ck_assert_ptr_nonnull(strstr(said, "whole models, tokens/s"));
    free(said);
    json_t *result = result_of("first"), *speed = json_of("first", "speed.json");
    const json_t *shape = stage_of(result, "shape");
    size_t n = json_array_size(json_object_get(shape, "variants")), chosen = (size_t)number(shape, "chosen");
    ck_assert_uint_gt(n, 2);
    double best = INFINITY, fastest = INFINITY;
    for (size_t i = 0; i < n; i++) best = fmin(best, number(variant(shape, i), "objective"));
    for (size_t i = 0; i < n; i++)
        if (number(variant(shape, i), "objective") <= best + 0.5) fastest = fmin(fastest, decode_seconds(speed, 1, i));
    ck_assert_double_le(number(variant(shape, chosen), "objective"), best + 0.5);
    ck_assert_double_eq_tol(decode_seconds(speed, 1, chosen), fastest, 1e-12);
    check_page("first", result, speed);

    /* Rivals have the chosen shape, attention at even distances. */
    const json_t *rows = json_object_get(result, "table");
    char uniform[128];
    const char *shaped = json_string_value(json_object_get(shape, "path"));
    const char *block = strstr(shaped, "g"); /* gla or gated_deltanet, with its number */
    int length = (int)strcspn(block, "*,");
    snprintf(uniform, sizeof uniform, "%.*s*2,attention,%.*s*3,attention,%.*s", length, block, length, block, length,
             block);
    bool seen = false;
    for (size_t i = 0; i < json_array_size(rows); i++)
        if (!strcmp(json_string_value(json_object_get(json_array_get(rows, i), "name")), "uniform")) {
            ck_assert_str_eq(json_string_value(json_object_get(json_array_get(rows, i), "path")), uniform);
            seen = true;
        }
    ck_assert(seen);
    json_decref(result);
    json_decref(speed);

    /* Stopped in every stage, with the first run's measurements. */
    snprintf(table, sizeof table, "latency.table=%s/first/state/latency.json", top);
    const char *mode[sizeof shape_mode / sizeof *shape_mode];
    memcpy(mode, shape_mode, sizeof mode);
    mode[4] = table;
    stop_and_go_on(mode);
    ck_ok(pn_remove_tree(top));
}
END_TEST

TEST_MAIN("search_later_stages", block_by_weighed_objective, shape_by_measured_speed)
