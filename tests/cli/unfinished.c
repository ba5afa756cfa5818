/* postnas export of a finetune run that is not finished: the weights of its newest checkpoint, and a card that says so.
 * What a run leaves at its end is what it left a moment before, without the model: so there the two can be compared. */
#include "cli_fixture.h"

#include <stdarg.h>

#include "../io/io_fixture.h"

#include "files.h"

#define TRAIN                                                                                                          \
    "finetune --quiet --config configs/quickstart-finetune.yaml --set stages.0.tokens=10240 --set "                    \
    "stages.0.batch_tokens=1024 --set stages.0.heldout_tokens=512 --set stages.0.evaluate_tokens=5120 --set "          \
    "stages.1.tokens=10240 --set stages.1.batch_tokens=1024 --set stages.1.heldout_tokens=512 --set "                  \
    "stages.1.evaluate_tokens=2048 --set dtype=f32 --set output=%s %s"

static program_result shell(int code, const char *format, ...) PN_PRINTF(2, 3);
/* The program with these arguments ends with `code`. */
static program_result shell(int code, const char *format, ...) {
    char arguments[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(arguments, sizeof arguments, format, args);
    va_end(args);
    program_result r = program(arguments);
    ck_assert_msg(r.code == code, "%s: exit code %d: %s", arguments, r.code, r.err);
    return r;
}

static void command(const char *format, ...) PN_PRINTF(1, 2);
static void command(const char *format, ...) {
    char line[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    ck_assert_int_eq(system(line), 0);
}

static char *file_in(const char *dir, const char *name, size_t *n) {
    char path[PN_PATH_MAX], *text;
    ck_ok(pn_path_join(path, dir, name));
    ck_ok(pn_file_read(path, 1 << 24, &text, n));
    return text;
}

static void ck_same_weights(const char *a, const char *b) {
    size_t n[2];
    char *text[2] = { file_in(a, "model.safetensors", &n[0]), file_in(b, "model.safetensors", &n[1]) };
    ck_assert_msg(n[0] == n[1] && !memcmp(text[0], text[1], n[0]), "%s and %s differ", a, b);
    free(text[0]);
    free(text[1]);
}

/* The card of an export; overwritten by the next call. */
static const char *card_of(const char *dir) {
    static char *text;
    size_t n;
    free(text);
    return text = file_in(dir, "README.md", &n);
}

static void begin(void) {
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    setenv("OMP_NUM_THREADS", "1", 1);
    setenv("OMP_WAIT_POLICY", "passive", 1);
}

START_TEST(the_newest_checkpoint_is_the_model) {
    char run[256], cut[256], want[2][256], out[256], arguments[1024], message[1024];
    begin();
    strcpy(run, scratch("run"));
    strcpy(cut, scratch("cut"));
    shell(0, TRAIN, run, "--ranks 2");
    strcpy(want[0], scratch("want-1"));
    strcpy(want[1], scratch("want-2"));
    shell(0, "export %s/stages/1 %s --dtype f32 -q", run, want[0]);
    shell(0, "export %s %s --dtype f32 -q", run, want[1]);
    command("cp -r %s %s && rm -r %s/model", run, cut, cut);
    for (int stage = 2; stage >= 1; stage--) {
        char name[32];
        snprintf(name, sizeof name, "out-%d", stage);
        strcpy(out, scratch(name));
        program_result r = shell(0, "export %s %s --dtype f32 --check", cut, out);
        snprintf(message, sizeof message,
                 "warning: %s: this run is not finished: its newest checkpoint is taken, of step 10 of 10 of stage %d "
                 "of 2\n",
                 cut, stage);
        holds(r.err, message);
        holds(r.err, "read back: every weight as written");
        ck_same_weights(out, want[stage - 1]);
        snprintf(message, sizeof message, "after step 10 of stage %d of 2, the newest that was saved.", stage);
        holds(card_of(out), message);
        command("rm -r %s/state/stage-%d", cut, stage);
    }
    snprintf(message, sizeof message,
             "%s: this run is not finished and has saved no step yet: let it train until its first checkpoint "
             "(checkpoint_seconds), or to its end",
             cut);
    snprintf(arguments, sizeof arguments, "export %s %s", cut, scratch("none"));
    refuses(arguments, 2, message);
    ck_assert(!pn_file_exists(scratch("none")));

    snprintf(arguments, sizeof arguments, "export %s/state/stage-1 %s", run, scratch("none"));
    snprintf(message, sizeof message,
             "%s/state/stage-1: is the state of a run, no model by itself: export the run, whose newest state is taken "
             "until it has a model",
             run);
    refuses(arguments, 2, message);
}
END_TEST

/* The card has the stages that made the model, and the evaluations up to its step. */
START_TEST(a_card_says_which_step) {
    char run[256], out[256], message[512];
    static const char limited[] = "--set stages.0.tokens=204800 --time-limit 0.001";
    int step = 0;
    begin();
    strcpy(run, scratch("run"));
    strcpy(out, scratch("out"));
    shell(75, TRAIN, run, limited);
    const char *at = strstr(shell(0, "export %s %s", run, out).err, "is taken, of step ");
    ck_assert_ptr_nonnull(at);
    ck_assert_int_eq(sscanf(at, "is taken, of step %d of 200 of stage 1 of 2", &step), 1);
    ck_assert(step > 0 && step < 200);
    snprintf(message, sizeof message, "Not finished: this is the model after step %d of stage 1 of 2,", step);
    holds(card_of(out), message);
    holds(card_of(out), "| distil | base | 204800 |");
    ck_assert_ptr_null(strstr(card_of(out), "| whole |"));

    snprintf(message, sizeof message, "%s/result.json", run);
    FILE *f = fopen(message, "w");
    ck_assert_ptr_nonnull(f);
    fprintf(f,
            "{\"kind\": \"finetune\", \"stages\": [{\"name\": \"distil\", \"heldout\": [{\"step\": %d, \"ce\": 1.5}, "
            "{\"step\": %d, \"ce\": 1.25}]}]}",
            step, step + 1);
    ck_assert_int_eq(fclose(f), 0);
    strcpy(out, scratch("scored"));
    shell(0, "export %s %s", run, out);
    holds(card_of(out), "On held-out rows of the training data, measured last of each stage:");
    holds(card_of(out), "| distil | 1.5000 | 4.4817 |");
    ck_assert_ptr_null(strstr(card_of(out), "1.2500"));
    shell(75, TRAIN, run, limited); /* it goes on */
}
END_TEST

START_TEST(a_search_that_is_not_finished_has_no_model) {
    char run[256], path[PN_PATH_MAX], arguments[1024], message[512];
    static const char config[] = "model: data/quickstart-base\nsearch: { strategy: beam }\n";
    begin();
    strcpy(run, scratch("run"));
    ck_ok(pn_make_directories(run));
    ck_ok(pn_path_join(path, run, "config.yaml"));
    ck_ok(pn_file_write(path, config, strlen(config)));
    snprintf(arguments, sizeof arguments, "export %s %s", run, scratch("out"));
    snprintf(message, sizeof message,
             "%s: this search is not finished and has no hybrid yet: the command that began it goes on with it", run);
    refuses(arguments, 2, message);
    ck_assert(!pn_file_exists(scratch("out")));
}
END_TEST

TEST_MAIN("unfinished", the_newest_checkpoint_is_the_model, a_card_says_which_step,
          a_search_that_is_not_finished_has_no_model)
