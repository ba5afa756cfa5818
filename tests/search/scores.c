/* The score table on disk: what a killed run leaves behind, rows of other weights, values that are no numbers. */
#include "harness.h"

#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "scores.h"

static char dir[] = "/tmp/pn_scores_XXXXXX", file[64];

static void setup(void) {
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(file, sizeof file, "%s/scores.jsonl", dir);
}

static pn_metrics metrics(double nll) {
    pn_metrics m = { 0 };
    pn_metrics_add(&m, "nll", nll);
    return m;
}

static void add(uint64_t weights, uint64_t key, double nll) {
    pn_scores *s;
    pn_metrics m = metrics(nll);
    ck_ok(pn_scores_open(file, weights, &s));
    ck_ok(pn_scores_add(s, key, "attention*2", "task \"1\"", &m));
    pn_scores_close(&s);
}

static void append(const char *text) {
    FILE *f = fopen(file, "a");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_ge(fputs(text, f), 0);
    ck_assert_int_eq(fclose(f), 0);
}

START_TEST(rows_come_back_exactly) {
    setup();
    add(7, 1, 1.0 / 3);
    add(8, 1, 5);
    pn_scores *s;
    ck_ok(pn_scores_open(file, 7, &s));
    ck_assert_int_eq(s->n, 1); /* the other row is of other weights */
    const pn_metrics *m = pn_scores_find(s, 1, "task \"1\"");
    ck_assert_ptr_nonnull(m);
    ck_assert(*pn_metrics_get(m, "nll") == 1.0 / 3);
    ck_assert_ptr_null(pn_scores_find(s, 2, "task \"1\""));
    ck_assert_ptr_null(pn_scores_find(s, 1, "task"));
    pn_scores_close(&s);
    ck_ok(pn_remove_tree(dir));
}
END_TEST

START_TEST(a_row_cut_short_is_measured_again) {
    setup();
    add(7, 1, 1);
    append("{\"key\": \"0000");
    add(7, 2, 2); /* starts a line of its own */
    pn_scores *s;
    ck_ok(pn_scores_open(file, 7, &s));
    ck_assert_int_eq(s->n, 2);
    ck_assert(*pn_metrics_get(pn_scores_find(s, 2, "task \"1\""), "nll") == 2);
    pn_scores_close(&s);
    ck_ok(pn_remove_tree(dir));
}
END_TEST

START_TEST(reading_leaves_the_file_alone) {
    setup();
    add(7, 1, 1);
    append("{\"key\": \"0000");
    char *before, *after;
    size_t n_before, n_after;
    ck_ok(pn_file_read(file, 1 << 16, &before, &n_before));
    pn_scores *s;
    pn_metrics m = metrics(2);
    ck_ok(pn_scores_read(file, 7, &s));
    ck_assert_int_eq(s->n, 1);
    ck_ok(pn_scores_add(s, 2, "attention*2", "task \"1\"", &m));
    ck_assert_ptr_nonnull(pn_scores_find(s, 2, "task \"1\""));
    pn_scores_close(&s);
    ck_ok(pn_file_read(file, 1 << 16, &after, &n_after));
    ck_assert_uint_eq(n_after, n_before);
    ck_assert_str_eq(after, before);
    free(before);
    free(after);
    ck_ok(pn_remove_tree(dir));
}
END_TEST

START_TEST(a_broken_row_is_named) {
    setup();
    add(7, 1, 1);
    append("{\"key\": 3}\n");
    pn_scores *s = NULL;
    ck_assert_int_eq(pn_scores_open(file, 7, &s), PN_FORMAT);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "scores.jsonl:2: "));
    ck_assert_ptr_null(s);
    ck_ok(pn_remove_tree(dir));
}
END_TEST

START_TEST(files_that_cannot_be_used_are_named) {
    setup();
    pn_scores *s = NULL;
    pn_metrics m = metrics(1);
    add(7, 1, 1);
    char below[96], want[160];
    snprintf(below, sizeof below, "%s/scores.jsonl", file);
    ck_assert_int_eq(pn_scores_open(below, 7, &s), PN_IO);
    snprintf(want, sizeof want, "%s: cannot open the scores: Not a directory", below);
    ck_assert_str_eq(pn_error_message(), want);
    ck_ok(pn_scores_open(file, 7, &s));
    ck_ok(pn_remove_tree(dir));
    ck_assert_int_eq(pn_scores_add(s, 2, "attention", "recall", &m), PN_IO);
    snprintf(want, sizeof want, "%s: cannot append a score: No such file or directory", file);
    ck_assert_str_eq(pn_error_message(), want);
    pn_scores_close(&s);
}
END_TEST

TEST_MAIN("scores", rows_come_back_exactly, a_row_cut_short_is_measured_again, reading_leaves_the_file_alone,
          a_broken_row_is_named, files_that_cannot_be_used_are_named)
