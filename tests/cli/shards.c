/* A shard that goes or changes under a finetune run, before it is started again and while it trains: every rank is
 * told which file it is, what was saved stays, and with the file as it was the run ends with the bits of one that
 * nothing befell. */
#include "cli_fixture.h"

#include <dirent.h>
#include <signal.h>

#include "../io/io_fixture.h"

#include "files.h"
#include "latest_step.h"

enum { WORDS = 60000, STEPS = 40 };

static char set[256], yaml[256];

static void begin(void) {
    char text[256], arguments[1024];
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    setenv("OMP_NUM_THREADS", "1", 1);
    setenv("OMP_WAIT_POLICY", "passive", 1);
    strcpy(set, scratch("set"));
    strcpy(text, scratch("text.txt"));
    FILE *f = fopen(text, "w");
    ck_assert_ptr_nonnull(f);
    for (int i = 0; i < WORDS; i++) fprintf(f, i % 30 == 29 ? "%d\n\n" : "%d ", i * 7919 % 10007);
    ck_assert_int_eq(fclose(f), 0);
    snprintf(arguments, sizeof arguments,
             "data -q --tokenizer data/quickstart-base --out %s --format paragraphs --shard-tokens 8000 %s", set, text);
    program_result r = program(arguments);
    ck_assert_msg(r.code == 0, "%s", r.err);
    strcpy(yaml, scratch("recipe.yaml"));
    f = fopen(yaml, "w");
    ck_assert_ptr_nonnull(f);
    fprintf(f,
            "model: data/quickstart-base\nsequence_length: 256\nstages:\n"
            "  - { tokens: %d, batch_tokens: 512, micro_batch_tokens: 256, checkpoint_seconds: 0.02,\n"
            "      mixture: [ { shards: [%s] } ] }\n",
            STEPS * 512, set);
    ck_assert_int_eq(fclose(f), 0);
}

static program_result finetune(const char *run, int ranks, const char *more) {
    char arguments[1024];
    snprintf(arguments, sizeof arguments, "finetune -q --config %s --set output=%s --ranks %d %s", yaml, run, ranks,
             more);
    return program(arguments);
}

static void finetune_to_the_end(const char *run, int ranks) {
    program_result r = finetune(run, ranks, "");
    ck_assert_msg(r.code == 0, "%d ranks: exit code %d: %s", ranks, r.code, r.err);
}

static void ck_same_model(const char *a, const char *b) {
    char path[2][PN_PATH_MAX], *text[2];
    size_t n[2];
    for (int k = 0; k < 2; k++) {
        ck_ok(pn_path_join(path[k], k ? b : a, "model/model.safetensors"));
        ck_ok(pn_file_read(path[k], 1 << 24, &text[k], &n[k]));
    }
    ck_assert_msg(n[0] == n[1] && !memcmp(text[0], text[1], n[0]), "%s and %s differ", path[0], path[1]);
    free(text[0]);
    free(text[1]);
}

/* ---- what befalls the set ---- */

static void shell(const char *format) {
    char command[1024];
    snprintf(command, sizeof command, format, set, set, set);
    ck_assert_int_eq(system(command), 0);
}

static void keep_copy(void) {
    shell("cp -rp %s/train %s/kept");
}

static void restore(void) {
    shell("rm -rf %s/train && cp -rp %s/kept %s/train");
}

static void remove_shards(void) {
    shell("rm %s/train/*.h5");
}

/* As many bytes, another one among them, by a file in place of the other: whoever reads the old one goes on with it. */
static void replace_shards(void) {
    shell("for f in %s/train/*.h5; do cp $f $f.new && printf '~' | dd of=$f.new bs=1 seek=5000 conv=notrunc "
          "2>/dev/null && mv $f.new $f || exit 1; done");
}

typedef struct fault {
    void (*strikes)(void);
    const char *message; /* after the file's name */
} fault;

static const fault faults[] = { { remove_shards, ".h5: a shard that the manifest names is missing: " },
                                { replace_shards, ".h5: changed since it was written: its xxh3-64 is " } };

/* The file is named by every rank, its own words or those of the one that found it. */
static void ck_told(const program_result *r, const fault *f, int ranks) {
    int told = 0;
    char shard[300];
    snprintf(shard, sizeof shard, "%s/train/shard-", set);
    ck_assert_msg(r->code == 2, "exit code %d: %s", r->code, r->err);
    ck_assert_str_eq(r->out, "");
    for (const char *at = r->err; (at = strstr(at, "postnas: error: ")); at++) {
        const char *end = strchr(at, '\n'), *file = strstr(at, shard), *what = strstr(at, f->message);
        ck_assert_msg(end && file && file < end && what && what < end, "%s", r->err);
        told++;
    }
    ck_assert_msg(told == ranks || told == 1, "%d of %d ranks were told: %s", told, ranks, r->err);
}

/* ---- the runs ---- */

static program_result strike_before_it_goes_on(const char *run, int ranks, const fault *f) {
    program_result r = finetune(run, ranks, "--time-limit 0.001");
    ck_assert_msg(r.code == 75, "exit code %d: %s", r.code, r.err);
    const int saved = latest_step_of_stage(run, 0);
    f->strikes();
    r = finetune(run, ranks, "");
    ck_assert_int_eq(latest_step_of_stage(run, 0), saved);
    return r;
}

/* Once a checkpoint is there: shards that were not read yet are read after it. */
static program_result strike_while_it_trains(const char *run, int ranks, const fault *f) {
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        while (!latest_step_of_stage(run, 0)) usleep(1000);
        f->strikes();
        _exit(0);
    }
    program_result r = finetune(run, ranks, "");
    int status;
    if (!latest_step_of_stage(run, 0)) kill(child, SIGKILL); /* else it strikes, or has, and ends by itself */
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the run ended before its first checkpoint: %s",
                  r.err);
    return r;
}

static void ck_goes_on(int ranks) {
    char whole[256], run[256], name[32];
    begin();
    keep_copy();
    strcpy(whole, scratch("whole"));
    finetune_to_the_end(whole, ranks);
    for (int k = 0; k < 4; k++) {
        const fault *f = &faults[k % 2];
        snprintf(name, sizeof name, "run-%d", k);
        strcpy(run, scratch(name));
        program_result r = (k < 2 ? strike_before_it_goes_on : strike_while_it_trains)(run, ranks, f);
        ck_told(&r, f, ranks);
        ck_assert(latest_step_of_stage(run, 0) > 0 && latest_step_of_stage(run, 0) < STEPS);
        restore();
        finetune_to_the_end(run, ranks);
        ck_same_model(whole, run);
    }
}

START_TEST(one_rank_is_told) {
    ck_goes_on(1);
}
END_TEST

START_TEST(two_ranks_are_told) {
    ck_goes_on(2);
}
END_TEST

TEST_MAIN("shards", one_rank_is_told, two_ranks_are_told)
