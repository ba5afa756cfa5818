/* postnas finetune on many ranks: the same training on any number of them, and what happens to it when one is killed or
 * stops. Ranks have a thread each, so that one machine's bits are another launcher's too. */
#include "cli_fixture.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>

#include "../io/io_fixture.h"

#include "clock.h"
#include "files.h"
#include "json.h"
#include "latest_step.h"
#include "rng.h"

enum { STEPS = 10, STAGES = 2, TEXT = 1 << 17 };

/* Batches of 4 rows, a row to a pass: the same passes on 1, 2 and 4 ranks, which differ in who makes them and in the
 * order of sums alone. */
#define STAGE(i)                                                                                                       \
    "--set stages." i ".tokens=10240 --set stages." i ".batch_tokens=1024 --set stages." i ".micro_batch_tokens=256 "  \
    "--set stages." i ".heldout_tokens=512 --set stages." i ".evaluate_tokens=0 --set stages." i                       \
    ".checkpoint_seconds=0.05 "
#define TRAIN "finetune --config configs/quickstart-finetune.yaml " STAGE("0") STAGE("1")

/* Relative, between the losses of a step on different numbers of ranks. Sums in other orders differ by roundings, which
 * training makes grow: over 7 seeds of 30 steps as these, on 1, 2 and 4 ranks, the largest difference was 7.4e-5, and
 * 1.8e-7 in the first step, before any update. A rank with other samples would show at once: losses of two batches
 * differ by a tenth and more. */
static const double bound = 1e-3, first_bound = 2e-6;

static void begin(void) {
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    setenv("OMP_NUM_THREADS", "1", 1);
    setenv("OMP_WAIT_POLICY", "passive", 1);
}

/* ---- a program that is running ---- */

typedef struct running {
    pid_t pid;
    char said[256]; /* a file: what it and its ranks say */
} running;

/* command: as a shell would read it. */
static running start_command(const char *words) {
    static char command[8192];
    static int number;
    char name[32];
    running p;
    snprintf(name, sizeof name, "said-%d", number++);
    strcpy(p.said, scratch(name));
    const int n = snprintf(command, sizeof command, "exec %s > %s 2>&1 < /dev/null", words, p.said);
    ck_assert(n > 0 && (size_t)n < sizeof command);
    p.pid = fork();
    if (p.pid == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    ck_assert_int_gt(p.pid, 0);
    return p;
}

static running start(const char *arguments) {
    static char words[8192];
    const int n = snprintf(words, sizeof words, "%s %s", program_path(), arguments);
    ck_assert(n > 0 && (size_t)n < sizeof words);
    return start_command(words);
}

/* All that was said so far. */
static const char *said(const running *p) {
    static char text[TEXT];
    FILE *f = fopen(p->said, "r");
    text[f ? fread(text, 1, sizeof text - 1, f) : 0] = '\0';
    if (f) fclose(f);
    return text;
}

static int lines_with(const char *text, const char *part) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)); at++) n++;
    return n;
}

/* Exit code, or 128 + signal; -1: it runs. */
static int code_so_far(running *p) {
    int status;
    const pid_t pid = waitpid(p->pid, &status, WNOHANG);
    if (pid != p->pid) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int finish(running *p) {
    int code;
    while ((code = code_so_far(p)) < 0) usleep(5000);
    return code;
}

/* Waits until `text` is said; *code: -1, or what the program ended with before. */
static void wait_until_said(running *p, const char *text, int *code) {
    for (*code = -1; !strstr(said(p), text) && *code < 0; *code = code_so_far(p)) usleep(5000);
}

static int number_in(const char *path, const char *before) {
    static char text[1 << 16];
    FILE *f = fopen(path, "r");
    const size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = '\0';
    for (const char *at = text; at < text + n; at += strlen(at) + 1) /* an environment: strings, each with its end */
        if (!strncmp(at, before, strlen(before))) return atoi(at + strlen(before));
    return -1;
}

/* The process of a rank: a child of the launcher's, which says who it is in its environment. 0: there is none. */
static pid_t process_of(const running *p, int rank) {
    char path[64], line[1024] = "";
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)p->pid, (int)p->pid);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    line[fread(line, 1, sizeof line - 1, f)] = '\0';
    fclose(f);
    char *at = line;
    for (long pid; (pid = strtol(at, &at, 10)) > 0;) {
        snprintf(path, sizeof path, "/proc/%ld/environ", pid);
        if (number_in(path, "POSTNAS_RANK=") == rank) return (pid_t)pid;
    }
    return 0;
}

/* ---- runs ---- */

static running start_run(const char *dir, int n, const char *more) {
    char arguments[4096];
    snprintf(arguments, sizeof arguments, TRAIN "--set output=%s --ranks %d %s", dir, n, more);
    return start(arguments);
}

static void run(const char *dir, int n, const char *more) {
    running p = start_run(dir, n, more);
    const int code = finish(&p);
    ck_assert_msg(code == 0, "%d ranks: exit code %d: %s", n, code, said(&p));
}

static void ck_same_model(const char *a, const char *b) {
    static const char *const parts[] = { "model/model.safetensors", "stages/1/model.safetensors" };
    for (int i = 0; i < 2; i++) {
        char path[2][PN_PATH_MAX], *text[2];
        size_t n[2];
        for (int k = 0; k < 2; k++) {
            ck_ok(pn_path_join(path[k], k ? b : a, parts[i]));
            ck_ok(pn_file_read(path[k], 1 << 24, &text[k], &n[k]));
        }
        ck_assert_msg(n[0] == n[1] && !memcmp(text[0], text[1], n[0]), "%s and %s differ", path[0], path[1]);
        free(text[0]);
        free(text[1]);
    }
}

/* Of every step and the held-out split after it, stage by stage. */
typedef struct losses {
    double of[STAGES][STEPS + 1];
} losses;

static losses losses_of(const char *dir) {
    losses x;
    char path[PN_PATH_MAX];
    json_t *result;
    ck_ok(pn_path_join(path, dir, "result.json"));
    ck_ok(pn_json_load(path, 1 << 24, &result));
    for (int i = 0; i < STAGES; i++) {
        const json_t *stage = json_array_get(json_object_get(result, "stages"), (size_t)i);
        const json_t *curve = json_object_get(stage, "curve"), *heldout = json_object_get(stage, "heldout");
        ck_assert_uint_eq(json_array_size(curve), STEPS);
        ck_assert_uint_eq(json_array_size(heldout), 1);
        for (int k = 0; k <= STEPS; k++) {
            const json_t *point = k < STEPS ? json_array_get(curve, (size_t)k) : json_array_get(heldout, 0);
            x.of[i][k] = json_real_value(json_object_get(point, "loss"));
        }
    }
    json_decref(result);
    return x;
}

static void ck_near(const losses *x, const losses *y, const char *what) {
    double most = 0;
    for (int i = 0; i < STAGES; i++)
        for (int k = 0; k <= STEPS; k++) {
            const double a = x->of[i][k], b = y->of[i][k], limit = i + k == 0 ? first_bound : bound;
            ck_assert_msg(a > 0 && fabs(a - b) <= limit * a, "%s: stage %d, step %d: loss %.9g, not %.9g", what, i + 1,
                          k + 1, b, a);
            most = fmax(most, fabs(a - b) / a);
        }
    printf("%s: losses differ by up to %.2g\n", what, most);
}

static double random_moment(void) {
    static pn_rng rng;
    static bool seeded;
    const char *seed = getenv("POSTNAS_KILLS_SEED");
    if (!seeded) pn_rng_stream(seed ? strtoull(seed, NULL, 10) : 1, "kills", 0, &rng);
    seeded = true;
    return pn_rng_uniform(&rng);
}

/* ---- the same training ---- */

START_TEST(any_number_of_ranks_trains_the_same) {
    static const int numbers[] = { 1, 2, 4 };
    char dir[3][256], again[256];
    losses x[3];
    begin();
    for (int i = 0; i < 3; i++) {
        char name[32], what[64];
        snprintf(name, sizeof name, "of-%d", numbers[i]);
        strcpy(dir[i], scratch(name));
        snprintf(name, sizeof name, "again-%d", numbers[i]);
        strcpy(again, scratch(name));
        run(dir[i], numbers[i], "");
        run(again, numbers[i], "");
        ck_same_model(dir[i], again);
        x[i] = losses_of(dir[i]);
        snprintf(what, sizeof what, "1 rank and %d", numbers[i]);
        if (i) ck_near(&x[0], &x[i], what);
    }
}
END_TEST

START_TEST(mpirun_gives_the_bits_of_our_launcher) {
    char ours[256], theirs[256], command[4096];
    static char line[1024];
    begin();
    if (system("mpirun --version > /dev/null 2>&1")) ck_skip("no mpirun of Open MPI on this machine");
    strcpy(ours, scratch("ours"));
    strcpy(theirs, scratch("theirs"));
    run(ours, 2, "");
    snprintf(command, sizeof command,
             "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=detect_leaks=0 "
             "mpirun --oversubscribe --bind-to none -n 2 %s -q " TRAIN "--set output=%s 2>&1",
             program_path(), theirs);
    char *at = strstr(command, "-q finetune");
    ck_assert_ptr_nonnull(at);
    memcpy(at, "finetune -q", 11);
    FILE *f = popen(command, "r");
    ck_assert_ptr_nonnull(f);
    line[fread(line, 1, sizeof line - 1, f)] = '\0';
    ck_assert_msg(pclose(f) == 0, "%s", line);
    ck_same_model(ours, theirs);
}
END_TEST

/* ---- killed ranks ---- */

/* No step is lost that a checkpoint had. */
static void ck_resumed(const char *dir, const char *text, const int *saved, bool ended) {
    static const char *const names[STAGES] = { "stage 1/2 distil: resuming at step ",
                                               "stage 2/2 whole: resuming at step " };
    for (int i = 0; i < STAGES; i++) {
        const char *at = strstr(text, names[i]);
        ck_assert_int_ge(latest_step_of_stage(dir, i), saved[i]);
        if (!at && (!ended || strstr(text, "nothing to do"))) continue;
        ck_assert_msg(!saved[i] || (at && atoi(at + strlen(names[i])) >= saved[i]), "step %d of stage %d was saved: %s",
                      saved[i], i + 1, text);
    }
}

typedef struct kills {
    int n, ranks;   /* made, and of the run that is on */
    int runs, late; /* runs to the end, and kills that came when all was done */
    double seconds; /* that a run takes */
} kills;

/* Goes on in dir with n ranks and kills one of them at a random moment. Whether the run came to its end before. */
static bool go_on_and_kill(kills *k, const char *dir, int n) {
    enum { LIMIT = 20 }; /* seconds: machines that test have much else to do */
    int saved[STAGES], code;
    char text[96], model[PN_PATH_MAX];
    const int victim = (int)(random_moment() * n);
    const double moment = random_moment() * k->seconds;
    for (int i = 0; i < STAGES; i++) saved[i] = latest_step_of_stage(dir, i);
    running p = start_run(dir, n, "--set ranks.limit_seconds=20");
    wait_until_said(&p, n > 1 ? " ranks, " : "stage 1/2 distil: ", &code);
    if (code < 0) usleep((useconds_t)(1e6 * moment));
    const pid_t pid = n > 1 ? process_of(&p, victim) : p.pid;
    if (code < 0 && (code = code_so_far(&p)) < 0 && pid && !kill(pid, SIGKILL)) {
        const double began = pn_seconds();
        code = finish(&p);
        ck_assert_double_lt(pn_seconds() - began, LIMIT);
    } else if (code < 0) {
        code = finish(&p);
    }
    ck_resumed(dir, said(&p), saved, code == 0);
    if (code == 0) return true;
    ck_ok(pn_path_join(model, dir, "model"));
    if (pn_file_exists(model)) { /* all was done when it was killed */
        k->late++;
        return true;
    }
    k->n++;
    if (n == 1) {
        ck_assert_int_eq(code, 128 + SIGKILL);
        return false;
    }
    ck_assert_msg(code == 3, "exit code %d: %s", code, said(&p));
    snprintf(text, sizeof text, "postnas: error: rank %d failed: its process ended", victim);
    const int others = lines_with(said(&p), text);
    ck_assert_msg(others == n - 1, "%d of %d say \"%s\": %s", others, n - 1, text, said(&p));
    return false;
}

static int kills_wanted(void) {
    const char *n = getenv("POSTNAS_KILLS");
    return n ? atoi(n) : 3;
}

/* How long the undisturbed run takes; its directory. */
static double undisturbed(const char *dir, int n) {
    const double began = pn_seconds();
    run(dir, n, "");
    return pn_seconds() - began;
}

static void to_the_end(kills *k, const char *dir, int n) {
    int saved[STAGES];
    for (int i = 0; i < STAGES; i++) saved[i] = latest_step_of_stage(dir, i);
    running p = start_run(dir, n, "--set ranks.limit_seconds=20");
    const int code = finish(&p);
    ck_assert_msg(code == 0, "exit code %d: %s", code, said(&p));
    ck_resumed(dir, said(&p), saved, true);
    k->runs++;
}

START_TEST(a_killed_rank_costs_no_bit) {
    char whole[256], dir[256];
    begin();
    strcpy(whole, scratch("whole"));
    strcpy(dir, scratch("killed"));
    kills k = { .seconds = undisturbed(whole, 2) };
    while (k.n < kills_wanted()) {
        if (!go_on_and_kill(&k, dir, 2)) continue;
        to_the_end(&k, dir, 2);
        ck_same_model(whole, dir);
        ck_ok(pn_remove_tree(dir));
    }
    to_the_end(&k, dir, 2);
    ck_same_model(whole, dir);
    printf("%d kills of one of 2 ranks, %d runs to the end\n", k.n, k.runs);
}
END_TEST

START_TEST(any_number_goes_on_where_a_rank_was_killed) {
    static const int numbers[] = { 2, 4, 1 };
    char whole[256], dir[256];
    begin();
    strcpy(whole, scratch("whole"));
    strcpy(dir, scratch("killed"));
    kills k = { .seconds = undisturbed(whole, 1) };
    const losses wanted = losses_of(whole);
    for (int i = 0; k.n < kills_wanted(); i++) {
        if (!go_on_and_kill(&k, dir, numbers[i % 3])) continue;
        to_the_end(&k, dir, numbers[(i + 1) % 3]);
        const losses got = losses_of(dir);
        ck_near(&wanted, &got, "undisturbed and killed");
        ck_ok(pn_remove_tree(dir));
    }
    to_the_end(&k, dir, 2);
    const losses got = losses_of(dir);
    ck_near(&wanted, &got, "undisturbed and killed");
    printf("%d kills of one of 2, 4 and 1 ranks, %d runs to the end\n", k.n, k.runs);
}
END_TEST

START_TEST(a_rank_that_stops_is_an_error_on_all) {
    enum { RANKS = 3, LIMIT = 3, VICTIM = 1 };
    static const char text[] = "postnas: error: rank 1 failed: no sign of life for ";
    char dir[256];
    int code, others = 0;
    begin();
    strcpy(dir, scratch("stopped"));
    running p = start_run(dir, RANKS,
                          "--set stages.0.batch_tokens=768 --set stages.1.batch_tokens=768 --set "
                          "stages.0.tokens=768000 --set ranks.limit_seconds=3");
    wait_until_said(&p, "3 ranks, ", &code);
    ck_assert_msg(code < 0, "exit code %d: %s", code, said(&p));
    usleep(700000);
    const pid_t pid = process_of(&p, VICTIM);
    ck_assert_int_gt(pid, 0);
    ck_assert_int_eq(kill(pid, SIGSTOP), 0);
    const double began = pn_seconds();
    while (others < RANKS - 1 && pn_seconds() - began < 10 * LIMIT) {
        usleep(20000);
        others = lines_with(said(&p), text);
    }
    printf("all said it %.1f s after a rank stopped; the limit is %d s\n", pn_seconds() - began, LIMIT);
    ck_assert_msg(others == RANKS - 1, "%d of %d said it: %s", others, RANKS - 1, said(&p));
    ck_assert_double_lt(pn_seconds() - began, 2 * LIMIT + 4); /* for a machine that has much else to do */
    ck_assert_int_eq(kill(pid, SIGCONT), 0);                  /* it is told too */
    ck_assert_int_eq(finish(&p), 3);
    ck_assert_int_lt(pn_seconds() - began, 5 * LIMIT);
}
END_TEST

/* ---- stops and refusals ---- */

/* SIGTERM to a launcher of two ranks, which begins dir's run: the ranks save and stop. */
static void ck_saves(const char *dir, running *p) {
    int code;
    for (code = -1; !latest_step_of_stage(dir, 0) && code < 0; code = code_so_far(p)) usleep(2000);
    ck_assert_msg(code < 0, "exit code %d: %s", code, said(p));
    ck_assert_int_eq(kill(p->pid, SIGTERM), 0);
    code = finish(p);
    ck_assert_msg(code == 75, "exit code %d: %s", code, said(p));
    const char *at = strstr(said(p), "postnas: error: ");
    ck_assert_msg(at && strstr(at, "state saved: the same command goes on from here"), "%s", said(p));
    ck_assert_ptr_null(strstr(at + 1, "postnas: error: ")); /* rank 0 alone */
}

START_TEST(a_signal_to_the_launcher_saves) {
    char whole[256], dir[256];
    begin();
    strcpy(whole, scratch("whole"));
    strcpy(dir, scratch("stopped"));
    run(whole, 2, "");
    running p = start_run(dir, 2, "");
    ck_saves(dir, &p);
    kills k = { 0 };
    to_the_end(&k, dir, 2);
    ck_same_model(whole, dir);
}
END_TEST

/* mpirun itself would end the ranks. */
START_TEST(a_signal_to_the_mpirun_script_saves) {
    char dir[256], words[4096];
    begin();
    if (system("mpirun --version > /dev/null 2>&1")) ck_skip("no mpirun of Open MPI on this machine");
    strcpy(dir, scratch("stopped"));
    snprintf(words, sizeof words,
             "env ASAN_OPTIONS=detect_leaks=0 RESUME=2 POSTNAS=%s scripts/cluster/mpirun.sh 2 " TRAIN
             "--set output=%s -q",
             program_path(), dir);
    running p = start_command(words);
    ck_saves(dir, &p);
}
END_TEST

/* The small base with a word whose embedding is NaN, in dir. */
static void spoil_base(const char *dir) {
    static const char embedding[] = "\"model.embed_tokens.weight\"", at[] = "\"data_offsets\":";
    enum { WORD = ';', WIDTH = 64 };
    char command[512], path[PN_PATH_MAX], *file;
    size_t n_bytes;
    snprintf(command, sizeof command, "cp -r data/quickstart-base %s", dir);
    ck_assert_int_eq(system(command), 0);
    ck_ok(pn_path_join(path, dir, "model.safetensors"));
    ck_ok(pn_file_read(path, 1 << 24, &file, &n_bytes));
    uint64_t header;
    memcpy(&header, file, sizeof header);
    const char *entry = strstr(file + 8, embedding), *offsets = entry ? strstr(entry, at) : NULL;
    ck_assert_ptr_nonnull(offsets);
    const size_t begin = strtoul(offsets + strlen(at) + strspn(offsets + strlen(at), " ["), NULL, 10);
    memset(file + 8 + header + begin + (size_t)WORD * WIDTH * sizeof(uint16_t), 0xff, WIDTH * sizeof(uint16_t));
    ck_ok(pn_file_write(path, file, n_bytes));
    free(file);
}

START_TEST(steps_that_are_not_finite_are_told_once) {
    char dir[256], base[256], more[512];
    begin();
    strcpy(dir, scratch("not-finite"));
    strcpy(base, scratch("base"));
    spoil_base(base);
    snprintf(more, sizeof more, "-q --set model=%s --set stages.0.skip_steps=2", base);
    running p = start_run(dir, 4, more);
    ck_assert_int_eq(finish(&p), 3);
    const char *text = said(&p);
    for (int step = 1; step <= 2; step++) {
        snprintf(more, sizeof more, "warning: stage 1/2 distil: step %d changes nothing and is passed over", step);
        ck_assert_msg(lines_with(text, more) == 1, "%s", text);
        /* A rank whose rows have the word meets it in the embedding, another one in the head, which is the same. */
        snprintf(more, sizeof more, "warning: stage 1/2 distil: step %d: not finite in student, ", step);
        ck_assert_msg(lines_with(text, more) == 1, "%s", text);
        const char *where = strstr(text, more) + strlen(more);
        ck_assert_msg(!strncmp(where, "the embedding\n", 14) ||
                          !strncmp(where, "lm_head, whose weights are the embedding's\n", 42),
                      "%s", text);
    }
    ck_assert_msg(lines_with(text, "postnas: error: ") == 1, "%s", text);
    holds(text, "postnas: error: stage 1/2 distil: step 3, after 2 passed over in a row and 2 in all: the loss is ");
    holds(text, "warning: stage 1/2 distil: no step before it was finite: there is nothing to save\n");
}
END_TEST

/* Weights that grow a hundredfold a step: the first few steps are finite. No checkpoint is due before the end. */
#define DIVERGES                                                                                                       \
    "-q --set stages.0.checkpoint_seconds=0 --set stages.0.learning_rate=10 --set stages.0.weight_decay=10 --set "     \
    "stages.0.warmup=0 --set stages.0.skip_steps="

/* What the good steps made is saved, and there are two ways on: to pass over more, and to export what was saved. */
START_TEST(good_steps_before_the_bad_ones_are_saved) {
    char dir[256], text[1024];
    int good = 0;
    begin();
    strcpy(dir, scratch("diverges"));
    running p = start_run(dir, 2, DIVERGES "1");
    ck_assert_int_eq(finish(&p), 3);
    const char *at = strstr(said(&p), "the state after step ");
    ck_assert_msg(at && sscanf(at, "the state after step %d", &good) == 1 && good > 0, "%s", said(&p));
    ck_assert_int_eq(latest_step_of_stage(dir, 0), good + 1); /* and the one that was passed over */
    snprintf(text, sizeof text,
             "warning: stage 1/2 distil: the state after step %d, the last that was finite, is saved in "
             "%s/state/stage-1/step-%d\n",
             good, dir, good + 1);
    ck_assert_msg(lines_with(said(&p), text) == 1, "%s", said(&p));
    snprintf(text, sizeof text,
             "warning: to pass over more such steps, raise stages.0.skip_steps or skip_steps_in_all and start this run "
             "again; to go on with another learning rate or other data, `postnas export %s DIRECTORY` and train that "
             "model in a new run\n",
             dir);
    ck_assert_msg(lines_with(said(&p), text) == 1, "%s", said(&p));
    ck_assert_msg(lines_with(said(&p), "postnas: error: ") == 1, "%s", said(&p));

    p = start_run(dir, 2, DIVERGES "3");
    ck_assert_int_eq(finish(&p), 3);
    snprintf(text, sizeof text, "step %d changes nothing and is passed over (2 in a row, 2 in all)", good + 2);
    ck_assert_msg(lines_with(said(&p), text) == 1, "%s", said(&p));
    ck_assert_int_eq(latest_step_of_stage(dir, 0), good + 3);

    p = start_run(dir, 2, DIVERGES "3 --set stages.0.weight_decay=0");
    ck_assert_int_eq(finish(&p), 2);
    holds(said(&p), "holds a run with other settings: --set: stages.0.weight_decay is 0, and 10 in that run;");

    snprintf(text, sizeof text, "export -q %s %s", dir, scratch("exported"));
    program_result r = program(text);
    ck_assert_msg(r.code == 0, "%s", r.err);
    snprintf(text, sizeof text, "its newest checkpoint is taken, of step %d of 10 of stage 1 of 2", good + 3);
    holds(r.err, text);
}
END_TEST

/* Rows of text whose tokens count nothing lie between others: a rank may have nothing but such rows, and a step too. */
START_TEST(ranks_without_targets_take_part) {
    enum { ROWS_STEPS = 20 };
    static const char config[] =
        "model: data/quickstart-base\nsequence_length: 256\nstages:\n"
        "  - { tokens: 20480, batch_tokens: 1024, learning_rate: 1e-3, heldout_tokens: 2048,\n"
        "      mixture: [ { skill: recall, weight: 30, document_bytes: [255], text_weight: 0 },\n"
        "                 { skill: text, weight: 70, document_bytes: [255], text_weight: 0 } ] }\n";
    char yaml[256], dir[256], arguments[1024], path[PN_PATH_MAX];
    double loss[2][ROWS_STEPS + 1];
    int empty = 0;
    begin();
    strcpy(yaml, scratch("answers.yaml"));
    ck_ok(pn_file_write(yaml, config, strlen(config)));
    for (int k = 0; k < 2; k++) {
        json_t *result;
        strcpy(dir, scratch(k ? "four" : "one"));
        snprintf(arguments, sizeof arguments, "finetune -q --config %s --set output=%s --ranks %d", yaml, dir,
                 k ? 4 : 1);
        running p = start(arguments);
        const int code = finish(&p);
        ck_assert_msg(code == 0, "exit code %d: %s", code, said(&p));
        ck_ok(pn_path_join(path, dir, "result.json"));
        ck_ok(pn_json_load(path, 1 << 24, &result));
        const json_t *stage = json_array_get(json_object_get(result, "stages"), 0);
        for (int i = 0; i <= ROWS_STEPS; i++) {
            const json_t *point = i < ROWS_STEPS ? json_array_get(json_object_get(stage, "curve"), (size_t)i)
                                                 : json_array_get(json_object_get(stage, "heldout"), 0);
            loss[k][i] = json_real_value(json_object_get(point, "loss"));
        }
        json_decref(result);
    }
    for (int i = 0; i <= ROWS_STEPS; i++) {
        ck_assert_double_eq_tol(loss[1][i], loss[0][i], bound * loss[0][i] + 1e-12);
        empty += loss[0][i] == 0;
    }
    ck_assert(empty > 0 && empty < ROWS_STEPS / 2);
}
END_TEST

/* Started one by one, with another seed: nothing is trained. */
START_TEST(ranks_must_train_the_same) {
    char dir[256], meet[256], arguments[4096];
    running p[2];
    begin();
    strcpy(dir, scratch("both"));
    strcpy(meet, scratch("place"));
    for (int r = 0; r < 2; r++) {
        snprintf(arguments, sizeof arguments,
                 TRAIN "-q --set output=%s --set seed=%d --ranks 2 --rank %d --rendezvous file:%s", dir, 1 + r, r,
                 meet);
        p[r] = start(arguments);
    }
    for (int r = 0; r < 2; r++) {
        const int code = finish(&p[r]);
        const char *text = said(&p[r]);
        ck_assert_msg(code == 2 || code == 3, "exit code %d: %s", code, text);
        ck_assert_msg(strstr(text, "rank 1 and rank 0 differ in what they train") != NULL, "%s", text);
    }
}
END_TEST

/* One message, whoever says it, and nothing is written. */
static void ck_refuses(const char *arguments, const char *dir, int code, const char *message) {
    char all[4096];
    snprintf(all, sizeof all, TRAIN "-q --set output=%s %s", dir, arguments);
    const program_result r = program(all);
    ck_assert_msg(r.code == code, "%s: exit code %d: %s", arguments, r.code, r.err);
    ck_assert_msg(strstr(r.err, "postnas: error: ") == r.err && strstr(r.err, message), "%s: %s", arguments, r.err);
    ck_assert_msg(strchr(r.err, '\n') == r.err + strlen(r.err) - 1, "%s: more than a line: %s", arguments, r.err);
    ck_assert_str_eq(r.out, "");
    ck_assert(!pn_file_exists(dir));
}

START_TEST(bad_ranks_are_refused_first) {
    char dir[256], meet[256], arguments[1024], message[1024];
    begin();
    strcpy(dir, scratch("never"));
    strcpy(meet, scratch("meet"));
    ck_refuses("--rank 1", dir, 2, "--rank 1 without --ranks: say how many there are\n");
    ck_refuses("--ranks 0", dir, 2, "postnas finetune: --ranks is 0; it must lie in 1 .. 1024\n");
    ck_refuses("--ranks 2 --rank 2 --rendezvous localhost:1", dir, 2, "--rank: 2 is not in 0 .. 1");
    ck_refuses("--ranks 2 --rank 0", dir, 2, "2 ranks, and nothing says where they meet: give --rendezvous");
    ck_refuses(
        "--ranks 3", dir, 2,
        "stages.0: batch_tokens 1024 is not a multiple of 768, a row of 256 tokens for each of 3 ranks; use 1536\n");
    ck_refuses("--ranks 2 --set stages.1.micro_batch_tokens=1024 --set stages.1.batch_tokens=3072 --set "
               "stages.1.tokens=3072",
               dir, 2,
               "stages.1: micro_batch_tokens 1024 does not divide the 1536 tokens that each of 2 ranks has of a batch; "
               "use 768\n");
    ck_refuses("--ranks 2 --set trains=[attn]", dir, 2, "--set: trains: no weight is called \"attn\"\n");
    ck_refuses("--ranks 2 --set rank=1", dir, 2, "--set: unknown key rank; did you mean ranks?");
    ck_refuses("--ranks 2 --set ranks.collectives=nccl", dir, 2,
               "collectives: nccl works on GPUs; on the CPU it is tcp or mpi\n");
    snprintf(arguments, sizeof arguments, "--ranks 2 --rank 0 --rendezvous file:%s --set ranks.start_seconds=1", meet);
    snprintf(message, sizeof message, "rank 0 failed: after 1 s rank 1 of 2 had not come to file:%s", meet);
    ck_refuses(arguments, dir, 3, message);
    snprintf(arguments, sizeof arguments, "--ranks 2 --rank 1 --rendezvous file:%s --set ranks.start_seconds=1", meet);
    snprintf(message, sizeof message, "rank 1 did not find rank 0 of 2 at file:%s within 1 s", meet);
    ck_refuses(arguments, dir, 3, message);
    ck_assert(!pn_file_exists(meet));
}
END_TEST

TEST_MAIN("ranks", ranks_without_targets_take_part, ranks_must_train_the_same, any_number_of_ranks_trains_the_same,
          mpirun_gives_the_bits_of_our_launcher, a_killed_rank_costs_no_bit, any_number_goes_on_where_a_rank_was_killed,
          a_rank_that_stops_is_an_error_on_all, a_signal_to_the_launcher_saves, a_signal_to_the_mpirun_script_saves,
          steps_that_are_not_finite_are_told_once, good_steps_before_the_bad_ones_are_saved,
          bad_ranks_are_refused_first)
