/* postnas teach, and finetune with what it wrote: all words teach as the teacher does; what does not fit is refused
 * before anything is written. */
#include "cli_fixture.h"

#include <signal.h>
#include <sys/resource.h>

#include "files.h"

static char dir[32];

/* The two-stage recipe on the small base, a few steps of it. */
#define RECIPE                                                                                                         \
    "--config configs/quickstart-finetune.yaml --set stages.0.feature=0 --set stages.0.tokens=8192 "                   \
    "--set stages.0.heldout_tokens=1024 --set stages.1.tokens=4096 --set stages.1.heldout_tokens=1024 "

static void begin(void) {
    strcpy(dir, "/tmp/pn_teach_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
}

/* `format` has one %s for each of two places of the directory; both may be left out. */
static program_result with_dir(const char *format) {
    char arguments[2048];
    snprintf(arguments, sizeof arguments, format, dir, dir);
    return program(arguments);
}

static void does(const char *format) {
    program_result r = with_dir(format);
    ck_assert_msg(r.code == 0, "%s: exit code %d: %s", format, r.code, r.err);
}

static void fails(const char *format, const char *message) {
    program_result r = with_dir(format);
    ck_assert_int_eq(r.code, 2);
    holds(r.err, message);
    ck_assert_str_eq(r.out, "");
}

/* The line of the held-out loss after the last step of stage 1: its perplexity. */
static double perplexity(const char *text) {
    const char *at = strstr(text, "step 4: held-out");
    ck_assert_msg(at != NULL, "no held-out loss in: %s", text);
    at = strstr(at, "perplexity ");
    ck_assert_ptr_nonnull(at);
    return atof(at + strlen("perplexity "));
}

START_TEST(all_words_train_as_the_teacher_does) {
    begin();
    does("teach -q " RECIPE "--stage distil --top 259 --output %s/distil --set stages.0.tokens=2048");
    does("teach -q " RECIPE "--stage 1 --top 259 --output %s/distil"); /* adds the rows that are missing */
    does("teach -q " RECIPE "--stage distil --top 259 --output %s/at-once");
    char command[256];
    snprintf(command, sizeof command, "diff -r %s/distil %s/at-once", dir, dir);
    ck_assert_int_eq(system(command), 0);
    program_result r = with_dir("finetune " RECIPE "--set output=%s/loop");
    ck_assert_int_eq(r.code, 0);
    const double loop = perplexity(r.err);
    r = with_dir("finetune " RECIPE "--set output=%s/rows --set stages.0.teacher_logits=%s/distil");
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.err, "kl follows the 259 most likely words that teacher data/quickstart-base gives each token");
    ck_assert_double_eq_tol(perplexity(r.err), loop, 2e-3 * loop);
    ck_ok(pn_remove_tree(dir));
}
END_TEST

START_TEST(what_does_not_fit_is_refused_before_anything_is_written) {
    begin();
    char path[64];
    does("teach -q " RECIPE "--stage distil --top 8 --output %s/rows");
#define WITH_ROWS "finetune -q " RECIPE "--set output=%s/run --set stages.0.teacher_logits=%s/rows "
    static const struct {
        const char *command, *message;
    } cases[] = {
        { "teach -q --output %s/new", "postnas teach: --config is missing" },
        { "teach -q " RECIPE "--output %s/new", "2 stages have a teacher; say which one's rows to write with --stage" },
        { "teach -q " RECIPE "--stage 1", "stages.0: say where the rows go: teacher_logits in the stage, or --output" },
        { "teach -q " RECIPE "--stage 3 --output %s/new", "there is no stage \"3\"" },
        { "teach -q " RECIPE "--stage 1 --top 260 --output %s/new", "the teacher has 259; give --top from 1 to that" },
        { "teach -q " RECIPE "--stage 1 --top 0 --output %s/new", "--top" },
        { "teach -q " RECIPE "--stage 1 --output %s/new --set stages.0.tokens=9e15", "name another disk" },
        { "teach -q " RECIPE "--stage 1 --output %s/new --set stages.0.teacher=none --set stages.0.kl=0 "
          "--set stages.0.ce=1",
          "has no teacher; set teacher: base" },
        { "teach -q " RECIPE "--stage 1 --top 9 --output %s/rows", "has rows of another k; name another directory" },
        { WITH_ROWS "--set seed=2", "of another mixture or seed" },
        { WITH_ROWS "--set stages.0.tokens=10240", "there are 32 teacher rows in" },
        { WITH_ROWS "--set stages.0.temperature=2", "at temperature 1, the loss at 2; set temperature: 1" },
        { WITH_ROWS "--set stages.0.sequence_length=512", "are of 256 tokens, the stage's of 512" },
        { WITH_ROWS "--set stages.0.feature=0.5", "teacher_logits hold words, and feature compares layer by layer" },
        { WITH_ROWS "--set stages.0.kl=0 --set stages.0.ce=1", "teaches nothing" },
        { "finetune -q " RECIPE "--set output=%s/run --set stages.0.teacher_logits=%s/none",
          "none/manifest.json: cannot read the manifest of teacher rows" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fails(cases[i].command, cases[i].message);
        for (int k = 0; k < 2; k++) {
            snprintf(path, sizeof path, "%s/%s", dir, k ? "new" : "run");
            ck_assert_msg(!pn_file_exists(path), "%s: %s is there", cases[i].command, path);
        }
    }
    ck_ok(pn_remove_tree(dir));
}
END_TEST

/* No file may grow beyond 32 KiB: the rows that are there stay good, and the same command goes on with room again. */
START_TEST(a_full_disk_keeps_what_was_written) {
    begin();
    does("teach -q " RECIPE "--stage 1 --top 8 --output %s/rows --set stages.0.tokens=2048");
    struct rlimit limit, most;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    most = limit;
    most.rlim_cur = 1 << 15;
    signal(SIGXFSZ, SIG_IGN); /* writes fail instead of killing */
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &most), 0);
    fails("teach -q " RECIPE "--stage 1 --top 8 --output %s/rows", "is the disk full?");
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    does("finetune -q " RECIPE "--set output=%s/run --set stages.0.teacher_logits=%s/rows "
         "--set stages.0.tokens=2048");
    does("teach -q " RECIPE "--stage 1 --top 8 --output %s/rows");
    does("teach -q " RECIPE "--stage 1 --top 8 --output %s/at-once");
    char command[256];
    snprintf(command, sizeof command, "diff -r %s/rows %s/at-once", dir, dir);
    ck_assert_int_eq(system(command), 0);
    ck_ok(pn_remove_tree(dir));
}
END_TEST

TEST_MAIN("teach", all_words_train_as_the_teacher_does, a_full_disk_keeps_what_was_written,
          what_does_not_fit_is_refused_before_anything_is_written)
