/* What tests of whole search runs share: runs on a small budget in a scratch directory, stopped or not. */
#ifndef PN_TESTS_SEARCH_FIXTURE_H
#define PN_TESTS_SEARCH_FIXTURE_H

#include "harness.h"

#include <string.h>
#include <unistd.h>

#include "files.h"
#include "json.h"
#include "run_dir.h"
#include "search_run.h"
#include "signals.h"

static const char *const small[] = {
    "supernet.tokens=4096",
    "supernet.batch_tokens=1024",
    "distill.tokens=2048",
    "search.beam.width=1",
    "search.tasks=[{name: recall, kind: recall, skill: recall, documents: 1, document_bytes: 255, seed: 100},"
    "{name: teacher, kind: kl, skill: text, documents: 1, document_bytes: 100, seed: 100}]",
    "heldout.samples=2",
    "compare.exhaustive=true",
    "compare.selectors=[kl_guided, greedy]",
    "compare.full_attention=[1, 2]",
};

static char top[] = "/tmp/pn_search_XXXXXX";

/* mode: settings, ended by NULL. */
static inline void open_config(const char *run, const char *const *mode, pn_config **c) {
    char output[128];
    snprintf(output, sizeof output, "output=%s/%s", top, run);
    ck_ok(pn_config_load("configs/quickstart.yaml", c));
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) ck_ok(pn_config_set(*c, small[i]));
    for (; *mode; mode++) ck_ok(pn_config_set(*c, *mode));
    ck_ok(pn_config_set(*c, output));
}

/* What the search says goes to *said, which the caller frees. */
static inline pn_status search(const char *run, const char *const *mode, char **said) {
    pn_config *c;
    size_t n;
    open_config(run, mode, &c);
    FILE *out = open_memstream(said, &n);
    ck_assert_ptr_nonnull(out);
    pn_status s = pn_search_run(c, out);
    fclose(out);
    pn_config_destroy(&c);
    return s;
}

static inline void same(const char *file) {
    char command[512];
    snprintf(command, sizeof command, "diff -r %s/whole/%s %s/parts/%s", top, file, top, file);
    ck_assert_msg(system(command) == 0, "%s differs", file);
}

static inline double seconds_in(const char *file) {
    char path[PN_PATH_MAX];
    json_t *root;
    double total;
    snprintf(path, sizeof path, "%s/parts/%s", top, file);
    ck_ok(pn_json_load(path, 1 << 16, &root));
    ck_ok(pn_json_get_f64(root, path, "supernet_seconds", 0, 1e9, &total));
    json_decref(root);
    return total;
}

static inline void setup(void) {
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    ck_assert_ptr_nonnull(mkdtemp(top));
}

static inline json_t *json_of(const char *run, const char *file) {
    char path[PN_PATH_MAX];
    json_t *root;
    snprintf(path, sizeof path, "%s/%s/%s", top, run, file);
    ck_ok(pn_json_load(path, 1 << 24, &root));
    return root;
}

/* The page too. Where there are timings it has them: those of blocks are kept, those of whole models every process
 * takes anew, so speed.json is compared instead, without them. */
static inline void same_page(void) {
    char path[PN_PATH_MAX];
    snprintf(path, sizeof path, "%s/whole/speed.json", top);
    if (!pn_file_exists(path)) {
        same("report.html");
        return;
    }
    json_t *whole = json_of("whole", "speed.json"), *parts = json_of("parts", "speed.json");
    ck_assert_int_eq(json_object_del(whole, "models"), 0);
    ck_assert_int_eq(json_object_del(parts, "models"), 0);
    ck_assert(json_equal(whole, parts));
    json_decref(whole);
    json_decref(parts);
}

static inline void stop_and_go_on(const char *const *mode) {
    char *said;
    ck_ok(search("whole", mode, &said));
    free(said);
    int stops = 0;
    pn_status s = PN_INTERRUPTED;
    double seconds = 0;
    for (; s == PN_INTERRUPTED; stops++) {
        pn_interrupt_after(23 + 5 * stops); /* more each time, for what a run that goes on passes over again */
        s = search("parts", mode, &said);
        free(said);
        if (s) {
            double now = seconds_in("state/seconds.json");
            ck_assert_double_ge(now, seconds); /* of all processes */
            seconds = now;
        }
    }
    pn_interrupt_after(0);
    ck_assert_msg(s == PN_OK, "%s", pn_error_message());
    ck_assert_int_gt(stops, 8);
    same("result.json");
    same_page();
    same("model");
    ck_assert_double_ge(seconds_in("timing.json"), seconds);

    pn_interrupt_after(1); /* a finished run does nothing that could be stopped */
    ck_ok(search("parts", mode, &said));
    pn_interrupt_after(0);
    ck_assert_ptr_nonnull(strstr(said, "holds this run, finished"));
    free(said);
}

static inline json_t *result_of(const char *run) {
    return json_of(run, "result.json");
}

#endif
