/* The comparison of selectors on a small super-network of the quickstart's base, held against an oracle that knows only
 * the stored scores: what the definitions of kl_guided and recall_ratio choose, and the best of all placements. */
#include "harness.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "json.h"
#include "search_run.h"

enum { LAYERS = 8, SCORES_MAX = 4096 };

static const char *const settings[] = {
    "distill.tokens=0",
    "search.objective=recall.nll + 0.5 facts.nll",
    "search.limits.full_attention=1",
    "search.tasks=["
    "{name: recall, kind: recall, skill: recall, documents: 4, document_bytes: 255, pairs_min: 12, pairs_max: 24, "
    "seed: 100},"
    "{name: teacher, kind: kl, skill: text, documents: 2, document_bytes: 255, seed: 100},"
    "{name: facts, kind: multiple_choice, skill: facts, documents: 2, document_bytes: 255, seed: 100}]",
    "heldout.samples=2",
    "compare.exhaustive=false",
    "compare.uniform=false",
    "compare.all_linear=false",
    "compare.selectors=[uniform, greedy, kl_guided, recall_ratio, beam, exhaustive]",
    "compare.full_attention=[1, 2]",
};

/* ---- stored scores: the metrics of a path, by what its layers are ---- */

typedef struct score {
    bool attention[LAYERS];
    char task[16]; /* "recall search" */
    double accuracy, nll, kl;
} score;
static score scores[SCORES_MAX];
static int n_scores;

/* "gated_deltanet*3,attention,..." */
static void read_path(const char *text, bool attention[LAYERS]) {
    int n = 0;
    for (const char *p = text; *p; p += strcspn(p, ","), p += *p == ',') {
        const char *star = strchr(p, '*');
        int repeat = star && star < p + strcspn(p, ",") ? atoi(star + 1) : 1;
        for (; repeat > 0; repeat--) {
            ck_assert_int_lt(n, LAYERS);
            attention[n++] = !strncmp(p, "attention", 9);
        }
    }
    ck_assert_int_eq(n, LAYERS);
}

static bool alike(const bool a[LAYERS], const bool b[LAYERS]) {
    return !memcmp(a, b, LAYERS * sizeof *a);
}

/* Of the search split only; no path may have been measured on a task twice. */
static void read_scores(const char *file) {
    FILE *f = fopen(file, "re");
    char line[4096];
    ck_assert_ptr_nonnull(f);
    for (n_scores = 0; fgets(line, sizeof line, f);) {
        json_t *row = json_loads(line, 0, NULL);
        const char *task = json_string_value(json_object_get(row, "task"));
        const json_t *m = json_object_get(row, "metrics");
        ck_assert_int_lt(n_scores, SCORES_MAX);
        score *s = &scores[n_scores];
        *s = (score){ .accuracy = json_number_value(json_object_get(m, "accuracy")),
                      .nll = json_number_value(json_object_get(m, "nll")),
                      .kl = json_number_value(json_object_get(m, "kl")) };
        read_path(json_string_value(json_object_get(row, "path")), s->attention);
        snprintf(s->task, sizeof s->task, "%.*s", (int)strcspn(task, " "), task);
        for (int i = 0; i < n_scores && strstr(task, "split=search"); i++)
            ck_assert_msg(strcmp(scores[i].task, s->task) || !alike(scores[i].attention, s->attention),
                          "measured twice: %s", line);
        n_scores += strstr(task, "split=search") != NULL;
        json_decref(row);
    }
    fclose(f);
}

static const score *find(const bool attention[LAYERS], const char *task) {
    for (int i = 0; i < n_scores; i++)
        if (!strcmp(scores[i].task, task) && alike(scores[i].attention, attention)) return &scores[i];
    ck_abort_msg("a path was not measured on %s", task);
}

static double objective(const bool attention[LAYERS]) {
    return find(attention, "recall")->nll + 0.5 * find(attention, "facts")->nll;
}

/* ---- the oracle ---- */

/* Sets out where fewer than k layers are before: of larger value, or of equal value and lower. */
static void largest(const double value[LAYERS], int k, bool out[LAYERS]) {
    for (int l = 0; l < LAYERS; l++) {
        int before = 0;
        for (int j = 0; j < LAYERS; j++) before += value[j] > value[l] || (value[j] == value[l] && j < l);
        out[l] = before < k;
    }
}

static void by_kl(int k, bool out[LAYERS]) {
    double value[LAYERS];
    for (int l = 0; l < LAYERS; l++) {
        bool path[LAYERS] = { false };
        path[l] = true;
        value[l] = -find(path, "teacher")->kl;
    }
    largest(value, k, out);
}

static void by_recall(int k, bool out[LAYERS]) {
    double recall[LAYERS], facts[LAYERS], most_recall = 0, most_facts = 0, value[LAYERS];
    for (int l = 0; l < LAYERS; l++) {
        bool path[LAYERS];
        memset(path, true, sizeof path);
        path[l] = false;
        recall[l] = find(path, "recall")->accuracy;
        facts[l] = find(path, "facts")->accuracy;
        most_recall = fmax(most_recall, recall[l]);
        most_facts = fmax(most_facts, facts[l]);
    }
    for (int l = 0; l < LAYERS; l++) value[l] = (most_recall - recall[l]) / (most_facts - facts[l] + 1e-10);
    largest(value, k, out);
}

static void best(int k, bool out[LAYERS]) {
    double least = INFINITY;
    for (int bits = 0; bits < 1 << LAYERS; bits++) {
        bool path[LAYERS];
        int n = 0;
        for (int l = 0; l < LAYERS; l++) n += path[l] = bits >> l & 1;
        if (n != k || objective(path) >= least) continue;
        least = objective(path);
        memcpy(out, path, sizeof path);
    }
}

/* ---- what the run says ---- */

static const json_t *row_of(const json_t *result, const char *selector, int k) {
    const json_t *rows = json_object_get(json_object_get(result, "selectors"), "rows");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        if (!strcmp(json_string_value(json_object_get(row, "selector")), selector) &&
            json_integer_value(json_object_get(row, "full_attention")) == k)
            return row;
    }
    ck_abort_msg("no row of %s", selector);
}

static double number(const json_t *row, const char *path) {
    double v;
    ck_ok(pn_json_get_f64(row, "row", path, -1e9, 1e9, &v));
    return v;
}

static void placed(const json_t *result, const char *selector, int k, const bool want[LAYERS], int n_paths) {
    const json_t *row = row_of(result, selector, k);
    const char *path = json_string_value(json_object_get(row, "path"));
    bool got[LAYERS];
    read_path(path, got);
    ck_assert_msg(alike(got, want), "%s places %d as %s", selector, k, path);
    ck_assert_int_eq((int)number(row, "paths"), n_paths);
    ck_assert_double_eq_tol(number(row, "searched"), objective(got), 1e-12);
    double first = number(row, "heldout.values.0"), second = number(row, "heldout.values.1");
    ck_assert_double_eq_tol(number(row, "heldout.mean"), (first + second) / 2, 1e-12);
    ck_assert_double_eq(number(row, "heldout.min"), fmin(first, second));
    ck_assert_double_eq(number(row, "heldout.max"), fmax(first, second));
}

START_TEST(selectors_choose_as_they_are_defined) {
    char dir[] = "/tmp/pn_search_XXXXXX", text[PN_PATH_MAX], *said;
    size_t n;
    pn_config *c;
    json_t *result;
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_ok(pn_config_load("configs/quickstart.yaml", &c));
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) ck_ok(pn_config_set(c, settings[i]));
    snprintf(text, sizeof text, "output=%s/run", dir);
    ck_ok(pn_config_set(c, text));
    FILE *out = open_memstream(&said, &n);
    ck_ok(pn_search_run(c, out));
    fclose(out);
    pn_config_destroy(&c);
    ck_assert_ptr_nonnull(strstr(said, "selectors on one super-network, held-out recall.nll + 0.5 facts.nll, less is"));
    free(said);

    snprintf(text, sizeof text, "%s/run/result.json", dir);
    ck_ok(pn_json_load(text, 1 << 24, &result));
    snprintf(text, sizeof text, "%s/run/state/scores.jsonl", dir);
    read_scores(text);

    bool want[LAYERS];
    for (int k = 1; k <= 2; k++) {
        best(k, want);
        placed(result, "exhaustive", k, want, k == 1 ? 8 : 28);
        placed(result, "beam", k, want, k == 1 ? 1 + 8 : 1 + 8 + 7 + 6);
        by_kl(k, want);
        placed(result, "kl_guided", k, want, k == 1 ? 8 : 8 + 1); /* one layer's placement is one of the eight */
        by_recall(k, want);
        placed(result, "recall_ratio", k, want, 8 + 1);
    }
    const bool middle[LAYERS] = { [4] = true };
    placed(result, "uniform", 1, middle, 1);
    /* the run's own history is its own */
    ck_assert_uint_eq(json_array_size(json_object_get(result, "history")), 1 + 8);
    json_decref(result);
    ck_ok(pn_remove_tree(dir));
}
END_TEST

TEST_MAIN("search_selectors", selectors_choose_as_they_are_defined)
