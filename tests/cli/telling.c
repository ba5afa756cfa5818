/* What a finetune run tells while it trains: the line on a terminal, the points of its log, and the report, which is
 * written again after every evaluation. */
#include "cli_fixture.h"

#include <jansson.h>
#include <math.h>
#include <pty.h>
#include <regex.h>
#include <signal.h>

#include "../io/io_fixture.h"

#include "files.h"
#include "json.h"

enum { TEXT = 1 << 20, EVERY = 4 };

/* All that a program on a terminal wrote until it ended. It gets SIGTERM once it has written `text`. *code: its exit
 * code. */
static const char *on_a_terminal(const char *arguments, const char *text, int *code) {
    static char all[TEXT], command[2048];
    int terminal, status;
    size_t n = 0;
    bool told = false;
    struct winsize size = { .ws_row = 40, .ws_col = 240 };
    snprintf(command, sizeof command, "exec %s %s", program_path(), arguments);
    setenv("TERM", "xterm", 1);
    const pid_t child = forkpty(&terminal, NULL, NULL, &size);
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    ck_assert_int_gt(child, 0);
    for (ssize_t some; n + 1 < sizeof all && (some = read(terminal, all + n, sizeof all - 1 - n)) > 0;) {
        n += (size_t)some;
        all[n] = '\0';
        if (told || !strstr(all, text)) continue;
        ck_assert_int_eq(kill(child, SIGTERM), 0);
        told = true;
    }
    close(terminal);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    ck_assert_msg(told, "never said \"%s\": %s", text, all);
    return all;
}

static void ck_matches(const char *text, const char *pattern) {
    regex_t r;
    ck_assert_int_eq(regcomp(&r, pattern, REG_EXTENDED | REG_NOSUB), 0);
    const bool found = !regexec(&r, text, 0, NULL, 0);
    regfree(&r);
    ck_assert_msg(found, "no \"%s\" in: %s", pattern, text);
}

static double number(const json_t *point, const char *key) {
    const json_t *x = json_object_get(point, key);
    ck_assert_msg(json_is_number(x), "no number %s", key);
    return json_number_value(x);
}

/* A point of the training: flops per token as MFU has them, which are the same in all points. */
static double ck_point(const json_t *p) {
    static const char *const positive[] = { "step",          "loss",   "kl",  "feature",       "learning_rate",
                                            "gradient_norm", "tokens", "mfu", "mfu_of_tflops", "tokens_per_second" };
    for (size_t i = 0; i < sizeof positive / sizeof *positive; i++)
        ck_assert_msg(number(p, positive[i]) > 0, "%s is %g", positive[i], number(p, positive[i]));
    ck_assert_double_eq(number(p, "ce"), 0); /* has no weight here */
    ck_assert_double_eq(number(p, "tokens"), 1024 * number(p, "step"));
    ck_assert_double_eq(number(p, "mfu_of_tflops"), 0.5);
    ck_assert_double_gt(number(p, "memory_gb"), 0.01);
    ck_assert_double_lt(number(p, "memory_gb"), 8);
    return number(p, "mfu") * 0.5e12 / number(p, "tokens_per_second");
}

/* The held-out losses of the log, by evaluation; how many. */
static int ck_log(const char *run, double *loss, int most) {
    char path[PN_PATH_MAX], *text, *next;
    size_t n_bytes;
    int points = 0, n = 0;
    double flops = 0;
    ck_ok(pn_path_join(path, run, "log.jsonl"));
    ck_ok(pn_file_read(path, 1 << 24, &text, &n_bytes));
    for (char *line = text; (next = strchr(line, '\n')); line = next + 1) {
        *next = '\0';
        json_t *p = json_loads(line, 0, NULL);
        ck_assert_msg(p != NULL, "%s", line);
        const char *series = json_string_value(json_object_get(p, "series"));
        if (series && !strcmp(series, "stage 1/2 distil")) {
            const double now = ck_point(p);
            if (points++) ck_assert_double_eq_tol(now, flops, 1e-4 * flops);
            flops = now;
        } else if (series && !strcmp(series, "stage 1/2 distil, held out") && n < most) {
            ck_assert_double_eq(number(p, "step"), EVERY * (n + 1));
            ck_assert_double_gt(number(p, "perplexity"), 0);
            loss[n++] = number(p, "loss");
        }
        json_decref(p);
    }
    free(text);
    ck_assert_int_ge(points, 2); /* of 1000 steps not every one is a point */
    /* The student's 342 k weights forward and backward and the teacher's 314 k forward: 6 and 2 operations each. */
    ck_assert_double_gt(flops, 4 * 342e3 + 2 * 314e3);
    ck_assert_double_lt(flops, 12 * 342e3 + 4 * 314e3);
    return n;
}

START_TEST(a_run_that_is_stopped_in_a_stage) {
    enum { MOST = 64 };
    char run[256], arguments[1024], path[PN_PATH_MAX], *page;
    double loss[MOST];
    size_t n_bytes;
    int code;
    json_t *result;
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    strcpy(run, scratch("run"));
    snprintf(arguments, sizeof arguments,
             "finetune --config configs/quickstart-finetune.yaml --set output=%s --set stages.0.tokens=1024000 --set "
             "stages.0.batch_tokens=1024 --set stages.0.heldout_tokens=512 --set stages.0.evaluate_tokens=%d --set "
             "mfu_tflops=0.5",
             run, 1024 * EVERY);
    const char *said = on_a_terminal(arguments, "step 8: held-out loss ", &code);
    ck_assert_msg(code == 75, "exit code %d: %s", code, said);
    ck_matches(said, "stage 1/2 distil +[0-9]+%  [0-9.]+k of 1\\.02M tokens  [0-9.]+k?/s  [^,]+, [^\r]+ left  "
                     "loss [0-9.]+ \\(kl [0-9.e-]+, feature [0-9.e-]+\\)  norm [0-9.e+-]+  step [0-9]+/1000  "
                     "MFU [0-9]+% of 0\\.5 TFLOP/s  [0-9.]+ GB");
    ck_matches(said, "step 8: held-out loss [0-9.]+ \\(ce [0-9.]+, kl [0-9.]+\\), perplexity [0-9.]+");

    const int n = ck_log(run, loss, MOST);
    ck_assert_int_ge(n, 2);
    ck_ok(pn_path_join(path, run, "model"));
    ck_assert(!pn_file_exists(path));
    ck_ok(pn_path_join(path, run, "result.json"));
    ck_ok(pn_json_load(path, 1 << 24, &result));
    const json_t *heldout = json_object_get(json_array_get(json_object_get(result, "stages"), 0), "heldout");
    ck_assert_uint_eq(json_array_size(heldout), (size_t)n);
    for (int i = 0; i < n; i++)
        ck_assert_double_eq_tol(number(json_array_get(heldout, (size_t)i), "loss"), loss[i], 1e-6 * loss[i]);
    json_decref(result);
    ck_ok(pn_path_join(path, run, "report.html"));
    ck_ok(pn_file_read(path, 1 << 24, &page, &n_bytes));
    for (int i = 1; i <= n; i++) {
        snprintf(path, sizeof path, "<tr><th scope=\"row\">distil</th><td>%d</td>", i * EVERY);
        ck_assert_msg(strstr(page, path) != NULL, "the report has no evaluation at step %d", i * EVERY);
    }
    free(page);
}
END_TEST

TEST_MAIN("telling", a_run_that_is_stopped_in_a_stage)
