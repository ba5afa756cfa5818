/* Tasks on token shards: which tokens of a set the search and the held-out samples see. */
#include "harness.h"

#include <string.h>

#include "files.h"
#include "task.h"

enum { TOKENS = 2048, LENGTH = 8 };

static char dir[PN_PATH_MAX];
static pn_tokenizer *tokenizer;

/* dir/set: one document whose token i is i / 8, its last one `last`. Windows of 8 tell where they stand. */
static void write_set(int32_t last) {
    char set[PN_PATH_MAX];
    ck_ok(pn_path_join(set, dir, "set"));
    ck_ok(pn_remove_tree(set));
    const pn_token_writer_config config = { .dir = set,
                                            .tokenizer_hash = pn_tokenizer_hash(tokenizer),
                                            .vocab = pn_tokenizer_vocab(tokenizer),
                                            .source = "a test",
                                            .split = "search" };
    pn_token_writer *w;
    pn_token_doc doc = { 0 };
    ck_ok(pn_token_writer_open(&config, &w));
    for (int i = 0; i < TOKENS; i++) {
        int32_t id = i + 1 < TOKENS ? i / LENGTH : last;
        ck_ok(pn_token_doc_append(&doc, &id, 1, PN_CLASS_TEXT));
    }
    ck_ok(pn_token_writer_add(w, &doc));
    ck_ok(pn_token_writer_close(&w));
    pn_token_doc_free(&doc);
}

static void setup(void) {
    strcpy(dir, "/tmp/pn_task_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    static const char *const specials[] = { "<|end|>" };
    ck_ok(pn_tokenizer_bytes(specials, 1, &tokenizer));
    write_set((TOKENS - 1) / LENGTH);
}

static void teardown(void) {
    pn_tokenizer_destroy(&tokenizer);
    ck_ok(pn_remove_tree(dir));
}

/* The first task of a list whose only element is `keys`, with its shards at hand. */
static pn_status prepare(const char *keys, pn_split split, int instance, pn_task **out) {
    char text[2 * PN_PATH_MAX];
    snprintf(text, sizeof text, "tasks: [ { name: text, kind: perplexity, shards: %s/set, %s } ]\n", dir, keys);
    pn_config *config;
    pn_task_spec *specs;
    int n;
    ck_ok(pn_config_parse("test.yaml", text, &config));
    pn_status s = pn_task_specs_read(config, "tasks", &specs, &n);
    if (!s) {
        s = pn_task_prepare(&specs[0], tokenizer, split, instance, out);
        pn_task_specs_free(&specs, n);
    }
    pn_config_destroy(&config);
    return s;
}

/* The windows' first tokens are `first`, each window a document. */
static void holds(const char *keys, pn_split split, int instance, const int *first, int n) {
    pn_task *t;
    ck_ok(prepare(keys, split, instance, &t));
    ck_assert_int_eq(t->n_batches, 1);
    const pn_batch *b = &t->batch[0].tokens;
    ck_assert_int_eq(b->n_docs, n);
    for (int i = 0; i < n; i++) {
        ck_assert_int_eq(b->offset[i + 1] - b->offset[i], LENGTH);
        ck_assert_int_eq(b->ids[b->offset[i]], first[i]);
        ck_assert_int_eq(b->ids[b->offset[i + 1] - 1], first[i]);
    }
    pn_task_destroy(&t);
}

START_TEST(slices_follow_each_other) {
    setup();
    holds("tokens: 24, sequence_length: 8", PN_SPLIT_SEARCH, 0, (const int[]){ 0, 1, 2 }, 3);
    holds("tokens: 24, sequence_length: 8, heldout_tokens: 16", PN_SPLIT_HELDOUT, 0, (const int[]){ 3, 4 }, 2);
    holds("tokens: 24, sequence_length: 8, heldout_tokens: 16", PN_SPLIT_HELDOUT, 1, (const int[]){ 5, 6 }, 2);
    teardown();
}
END_TEST

START_TEST(spread_reaches_the_whole_set) {
    setup();
    char keys[2 * PN_PATH_MAX];
    snprintf(keys, sizeof keys, "tokens: 24, sequence_length: 8, spread: true, heldout_shards: %s/set", dir);
    holds(keys, PN_SPLIT_SEARCH, 0, (const int[]){ 0, 85, 170 }, 3);
    holds(keys, PN_SPLIT_HELDOUT, 1, (const int[]){ 3, 4, 5 }, 3); /* held-out samples stay slices */
    snprintf(keys, sizeof keys, "tokens: 2048, sequence_length: 8, spread: true, heldout_shards: %s/set", dir);
    pn_task *all;
    ck_ok(prepare(keys, PN_SPLIT_SEARCH, 0, &all));
    ck_assert_int_eq(all->n_tokens, TOKENS); /* every window once */
    pn_task_destroy(&all);
    teardown();
}
END_TEST

static void refused(const char *keys, const char *why) {
    pn_task *t;
    ck_assert_int_eq(prepare(keys, PN_SPLIT_SEARCH, 0, &t), PN_USAGE);
    ck_assert_msg(strstr(pn_error_message(), why) != NULL, "%s", pn_error_message());
}

START_TEST(spread_is_refused_where_it_would_mislead) {
    setup();
    refused("tokens: 24, sequence_length: 8, spread: true", "heldout_shards");
    refused("tokens: 4, sequence_length: 8, spread: true, heldout_shards: elsewhere", "one sequence_length");
    refused("tokens: 24, sequence_length: 8, offset: 8, spread: true, heldout_shards: elsewhere", "no offset");
    refused("tokens: 4096, sequence_length: 8, spread: true, heldout_shards: elsewhere", "holds 2048");
    teardown();
}
END_TEST

/* Scores are found by the task's key. */
START_TEST(a_key_says_what_the_shards_hold) {
    setup();
    pn_task *before, *again, *after;
    const char *keys = "tokens: 24, sequence_length: 8";
    ck_ok(prepare(keys, PN_SPLIT_SEARCH, 0, &before));
    write_set((TOKENS - 1) / LENGTH);
    ck_ok(prepare(keys, PN_SPLIT_SEARCH, 0, &again));
    write_set(0);
    ck_ok(prepare(keys, PN_SPLIT_SEARCH, 0, &after));
    ck_assert_str_eq(before->key, again->key);
    ck_assert_str_ne(before->key, after->key);
    pn_task_destroy(&before);
    pn_task_destroy(&again);
    pn_task_destroy(&after);
    teardown();
}
END_TEST

TEST_MAIN("search/task", slices_follow_each_other, spread_reaches_the_whole_set,
          spread_is_refused_where_it_would_mislead, a_key_says_what_the_shards_hold)
