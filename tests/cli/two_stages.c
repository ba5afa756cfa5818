/* The two-stage recipe gives the small base's hybrid its scores back: full attention in 2 of 8 layers, and at least 95
 * % of the teacher's recall and multiple-choice scores, for each of three seeds. scripts/two-stages.sh does the same
 * with the whole budget of the configuration. */
#include "cli_fixture.h"

#include <string.h>

#include "files.h"
#include "json.h"

static const char *const scores[] = { "recall", "facts" };

static void measure(const char *model, const char *file, double out[2]) {
    char arguments[512], path[64];
    json_t *root;
    snprintf(arguments, sizeof arguments, "eval %s -q -t 1 --config configs/quickstart.yaml --output %s", model, file);
    program_result r = program(arguments);
    ck_assert_msg(r.code == 0, "%s", r.err);
    ck_ok(pn_json_load(file, 1 << 20, &root));
    for (int k = 0; k < 2; k++) {
        snprintf(path, sizeof path, "tasks.%s.accuracy.mean", scores[k]);
        ck_ok(pn_json_get_f64(json_array_get(root, 0), file, path, 0, 1, &out[k]));
    }
    json_decref(root);
}

static void ck_recovers(int seed) {
    char dir[] = "/tmp/pn_two_stages_XXXXXX", arguments[512], file[64], model[64];
    double teacher[2], own[2];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    snprintf(file, sizeof file, "%s/scores.json", dir);
    snprintf(model, sizeof model, "%s/run/model", dir);
    measure("data/quickstart-base", file, teacher);
    ck_assert_double_gt(teacher[0], 0.9);
    ck_assert_double_gt(teacher[1], 0.9);
    snprintf(arguments, sizeof arguments,
             "finetune -q -t 1 --config configs/quickstart-finetune.yaml --set seed=%d --set output=%s/run --set "
             "stages.0.tokens=3e5 --set stages.1.tokens=3e5 --set stages.0.heldout_tokens=0 --set "
             "stages.1.heldout_tokens=0 --set stages.0.evaluate_tokens=0 --set stages.1.evaluate_tokens=0",
             seed, dir);
    program_result r = program(arguments);
    ck_assert_msg(r.code == 0, "%s", r.err);
    measure(model, file, own);
    for (int k = 0; k < 2; k++)
        ck_assert_msg(own[k] >= 0.95 * teacher[k], "seed %d: %s %.4f, the teacher's %.4f", seed, scores[k], own[k],
                      teacher[k]);
    ck_ok(pn_remove_tree(dir));
}

START_TEST(seed_1) {
    ck_recovers(1);
}
END_TEST

START_TEST(seed_2) {
    ck_recovers(2);
}
END_TEST

START_TEST(seed_3) {
    ck_recovers(3);
}
END_TEST

TEST_MAIN("two stages", seed_1, seed_2, seed_3)
