/* Mixtures: rows depend on their number alone, shares are exact, windows are read once each, targets stay in documents.
 */
#include "mixture.h"

#include "io_fixture.h"
#include "permute.h"

static pn_tokenizer *tokenizer;

static void start(void) {
    static const char *const specials[] = { "<eos>" };
    ck_ok(pn_tokenizer_bytes(specials, 1, &tokenizer));
}
static void stop(void) {
    pn_tokenizer_destroy(&tokenizer);
}

#define ONES                                                                                                           \
    { 1, 1, 1 }

static pn_mixture *create(int64_t t, uint64_t seed, const pn_mixture_part *parts, int64_t n) {
    pn_mixture *m;
    ck_ok(pn_mixture_create(&(pn_mixture_config){ .tokenizer = tokenizer,
                                                  .frame = pn_doc_frame_default(tokenizer),
                                                  .sequence_length = t,
                                                  .seed = seed,
                                                  .parts = parts,
                                                  .n_parts = n },
                            &m));
    return m;
}

/* A set of documents of 1 to 60 tokens that counts: token i of the set is i modulo 251. */
static const char *counting_set(const char *name, const char *split, int64_t n_tokens) {
    const char *dir = scratch(name);
    if (access(dir, F_OK) == 0) return dir; /* of an earlier test, where all run in one process */
    pn_token_writer *w;
    pn_token_doc d = { 0 };
    ck_ok(pn_token_writer_open(&(pn_token_writer_config){ .dir = dir,
                                                          .tokenizer_hash = pn_tokenizer_hash(tokenizer),
                                                          .vocab = pn_tokenizer_vocab(tokenizer),
                                                          .source = "counting",
                                                          .split = split,
                                                          .shard_tokens = 700 },
                               &w));
    for (int64_t at = 0, i = 0; at < n_tokens; i++) {
        int64_t n = 1 + i * 37 % 60;
        if (n > n_tokens - at) n = n_tokens - at;
        pn_token_doc_clear(&d);
        for (int64_t k = 0; k < n; k++, at++)
            ck_ok(pn_token_doc_append(&d, &(int32_t){ (int32_t)(at % 251) }, 1, PN_CLASS_TEXT));
        ck_ok(pn_token_writer_add(w, &d));
    }
    ck_ok(pn_token_writer_close(&w));
    pn_token_doc_free(&d);
    return dir;
}

static void same_row(const pn_row *a, const pn_row *b) {
    const size_t t = (size_t)a->n_tokens;
    ck_assert(a->n_tokens == b->n_tokens && a->part == b->part && a->n_docs == b->n_docs &&
              a->n_answers == b->n_answers);
    ck_assert_mem_eq(a->tokens, b->tokens, t * sizeof *a->tokens);
    ck_assert_mem_eq(a->targets, b->targets, t * sizeof *a->targets);
    ck_assert_mem_eq(a->weights, b->weights, t * sizeof *a->weights);
    ck_assert_mem_eq(a->doc_offsets, b->doc_offsets, (size_t)(a->n_docs + 1) * sizeof *a->doc_offsets);
    for (int64_t i = 0; i < a->n_answers; i++)
        ck_assert(a->answers[i].begin == b->answers[i].begin && a->answers[i].end == b->answers[i].end &&
                  a->answers[i].distance == b->answers[i].distance && a->answers[i].skill == b->answers[i].skill);
}

/* Offsets rise from 0 to T, targets are the next token of the same document, weights are those of the target's class.
 */
static void check_row(const pn_row *r, const double *weight) {
    ck_assert(r->doc_offsets[0] == 0 && r->doc_offsets[r->n_docs] == r->n_tokens);
    for (int64_t d = 0; d < r->n_docs; d++) {
        ck_assert_int_lt(r->doc_offsets[d], r->doc_offsets[d + 1]);
        for (int64_t i = r->doc_offsets[d]; i + 1 < r->doc_offsets[d + 1]; i++) {
            if (r->targets[i] < 0) { /* padding, to the row's end */
                ck_assert(d == r->n_docs - 1 && r->weights[i] == 0);
                continue;
            }
            ck_assert_int_eq(r->targets[i], r->tokens[i + 1]);
            ck_assert(r->weights[i] == (float)weight[r->token_class[i + 1]]);
        }
        const int64_t last = r->doc_offsets[d + 1] - 1;
        if (last + 1 < r->n_tokens) ck_assert(r->targets[last] == -1 && r->weights[last] == 0);
    }
}

START_TEST(orders_are_bijections) {
    for (int64_t n = 1; n < 300; n += n < 20 ? 1 : 37) {
        bool seen[300] = { false };
        for (int64_t i = 0; i < n; i++) {
            int64_t k = pn_permute(7, 1, n, i);
            ck_assert(k >= 0 && k < n && !seen[k]);
            seen[k] = true;
        }
    }
    int fixed = 0, same = 0;
    for (int64_t i = 0; i < 1000; i++) {
        fixed += pn_permute(7, 1, 1000, i) == i;
        same += pn_permute(7, 1, 1000, i) == pn_permute(7, 2, 1000, i);
    }
    ck_assert_int_lt(fixed, 10);
    ck_assert_int_lt(same, 10);
    int64_t big = pn_permute(7, 1, INT64_C(1) << 40, 12345);
    ck_assert(big >= 0 && big < INT64_C(1) << 40);
}
END_TEST

START_TEST(rows_depend_on_their_number_alone) {
    start();
    const char *const dir = counting_set("train", "train", 20000);
    const pn_mixture_part parts[] = {
        { .weight = { 3, 3 }, .class_weight = { 0.1, 1, 4 }, .skill = pn_skill_find("recall") },
        { .weight = { 1, 1 },
          .class_weight = { 0, 1, 2 },
          .skill = pn_skill_find("facts"),
          .document_min = 70,
          .document_max = 120 },
        { .weight = { 0.5, 0.5 }, .class_weight = ONES, .shards = &dir, .n_shards = 1 },
        { .weight = { 0.5, 0.5 }, .class_weight = ONES, .skill = pn_skill_find("text") },
    };
    enum { N = 2300 };
    pn_mixture *a = create(256, 11, parts, 4), *b = create(256, 11, parts, 4), *c = create(256, 12, parts, 4);
    pn_row row = { 0 }, again = { 0 }, other = { 0 };
    int count[4] = { 0 }, differ = 0;
    for (int64_t i = 0; i < N; i++) {
        ck_ok(pn_mixture_row(a, PN_SPLIT_TRAIN, i, &row));
        check_row(&row, parts[row.part].class_weight);
        if (i < 1000) count[row.part]++;
        if (i % 17 && i < N - 5) continue;
        int64_t k = i; /* b reads these rows only, backwards in part: as after a resume */
        ck_ok(pn_mixture_row(b, PN_SPLIT_TRAIN, k, &again));
        same_row(&row, &again);
        ck_ok(pn_mixture_row(c, PN_SPLIT_TRAIN, k, &other));
        differ += memcmp(row.tokens, other.tokens, 256 * sizeof *row.tokens) != 0;
    }
    ck_assert(count[0] == 600 && count[1] == 200 && count[2] == 100 && count[3] == 100);
    ck_assert_int_gt(differ, N / 17 - 5);
    for (int64_t i = 50; i >= 0; i--) {
        ck_ok(pn_mixture_row(a, PN_SPLIT_TRAIN, i, &row));
        ck_ok(pn_mixture_row(c, PN_SPLIT_HELDOUT, i, &again)); /* other reads in between change nothing */
        ck_ok(pn_mixture_row(b, PN_SPLIT_TRAIN, i, &again));
        same_row(&row, &again);
    }
    pn_row_free(&row);
    pn_row_free(&again);
    pn_row_free(&other);
    pn_mixture_destroy(&a);
    pn_mixture_destroy(&b);
    pn_mixture_destroy(&c);
    stop();
}
END_TEST

/* Shares go from one end to the other; what shard rows read is read once before anything is read again. */
START_TEST(weights_change_over_the_rows_of_a_stage) {
    start();
    enum { WINDOWS = 40, T = 64, PARTS = 3 };
    const char *const dir = counting_set("windows", "train", WINDOWS * T);
    static const int64_t sizes[] = { 37, 640, 5000, 150001 };
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        const int64_t n = sizes[k];
        const pn_mixture_part parts[PARTS] = {
            { .weight = { 3, 1 }, .class_weight = ONES, .skill = pn_skill_find("text") },
            { .weight = { 1, 1 }, .class_weight = ONES, .shards = &dir, .n_shards = 1 },
            { .weight = { 0, 2 }, .class_weight = ONES, .skill = pn_skill_find("text") },
        };
        const pn_mixture_config config = { .tokenizer = tokenizer,
                                           .frame = pn_doc_frame_default(tokenizer),
                                           .sequence_length = T,
                                           .seed = 5,
                                           .rows = n,
                                           .parts = parts,
                                           .n_parts = PARTS };
        pn_mixture *a, *b;
        ck_ok(pn_mixture_create(&config, &a));
        ck_ok(pn_mixture_create(&config, &b));
        ck_assert(pn_mixture_hash(a) == pn_mixture_hash(b));
        pn_row row = { 0 }, again = { 0 };
        const int64_t look = n < 5000 ? 1 : 7; /* rows are made slowly */
        double tenth[10][PARTS] = { 0 }, all[10] = { 0 };
        bool seen[251] = { 0 }; /* by the first token, which no two windows share */
        int windows = 0;
        for (int64_t i = 0; i < n; i += look) {
            if (look > 1 && i % 35 && i > 4000) continue;
            ck_ok(pn_mixture_row(a, PN_SPLIT_TRAIN, i, &row));
            tenth[10 * i / n][row.part]++;
            all[10 * i / n]++;
            if (row.part != 1 || look > 1 || windows >= WINDOWS) continue;
            ck_assert(!seen[row.tokens[0]]);
            seen[row.tokens[0]] = true;
            windows++;
        }
        if (n >= 640) {
            ck_assert_double_eq_tol(tenth[0][0] / all[0], 2.9 / 4, 0.06);
            ck_assert_double_eq_tol(tenth[9][0] / all[9], 1.1 / 4, 0.06);
            ck_assert_double_eq_tol(tenth[0][2] / all[0], 0.1 / 4, 0.03);
            ck_assert_double_eq_tol(tenth[9][2] / all[9], 1.9 / 4, 0.06);
        }
        for (int64_t i = n - 1; i > 0; i /= 3) { /* as after a resume */
            ck_ok(pn_mixture_row(b, PN_SPLIT_TRAIN, i, &row));
            ck_ok(pn_mixture_row(a, PN_SPLIT_TRAIN, i, &again));
            same_row(&row, &again);
        }
        pn_row_free(&row);
        pn_row_free(&again);
        pn_mixture_destroy(&a);
        pn_mixture_destroy(&b);
    }
    const pn_mixture_part alone = { .weight = { 1, 2 }, .class_weight = ONES, .skill = pn_skill_find("text") };
    pn_mixture *m;
    ck_assert_int_eq(
        pn_mixture_create(
            &(pn_mixture_config){ .tokenizer = tokenizer, .sequence_length = T, .parts = &alone, .n_parts = 1 }, &m),
        PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "weight changes from 1 to 2"));
    stop();
}
END_TEST

START_TEST(a_recall_document_fills_its_row) {
    start();
    const pn_mixture_part part = { .weight = { 1, 1 }, .class_weight = { 0, 1, 4 }, .skill = pn_skill_find("recall") };
    pn_mixture *m = create(256, 1, &part, 1);
    pn_row r = { 0 };
    for (int64_t i = 0; i < 200; i++) {
        ck_ok(pn_mixture_row(m, PN_SPLIT_HELDOUT, i, &r));
        ck_assert(r.n_docs == 1 && r.tokens[0] == pn_tokenizer_eos(tokenizer) && r.targets[255] == -1);
        ck_assert_int_ge(r.n_answers, 2);
        for (int64_t k = 0; k < r.n_answers; k++) {
            const pn_answer *a = &r.answers[k];
            ck_assert_int_eq(r.tokens[a->begin], r.tokens[a->begin - a->distance]);
            ck_assert(r.weights[a->begin - 1] == 4 &&
                      r.weights[a->begin - 2] == 0); /* the answer; the key, which is noise */
            ck_assert_double_eq_tol(a->chance, 1.0 / 26, 1e-12);
        }
    }
    pn_row_free(&r);
    pn_mixture_destroy(&m);
    stop();
}
END_TEST

START_TEST(what_no_document_fits_is_padding) {
    start();
    const pn_mixture_part part = {
        .weight = { 1, 1 }, .class_weight = ONES, .skill = pn_skill_find("copy"), .document_min = 39, .document_max = 39
    };
    pn_mixture *m = create(100, 1, &part, 1);
    pn_row r = { 0 };
    ck_ok(pn_mixture_row(m, PN_SPLIT_TRAIN, 0, &r));
    ck_assert_int_eq(r.n_docs, 3); /* 40 + 40 + padding of 20 */
    ck_assert(r.doc_offsets[1] == 40 && r.doc_offsets[2] == 80);
    for (int i = 80; i < 100; i++) ck_assert(r.targets[i] == -1 && r.weights[i] == 0);
    ck_assert(r.targets[38] >= 0 && r.targets[39] == -1);
    pn_row_free(&r);
    pn_mixture_destroy(&m);
    stop();
}
END_TEST

START_TEST(windows_are_read_once_each) {
    start();
    enum { T = 64, N = 6100 / T + 3000 / T };
    const char *const dirs[] = { counting_set("one", "train", 6100), counting_set("two", "train", 3000),
                                 counting_set("kept", "heldout", 1000) };
    const pn_mixture_part part = { .weight = { 1, 1 }, .class_weight = ONES, .shards = dirs, .n_shards = 3 };
    pn_mixture *m = create(T, 5, &part, 1);
    pn_token_set *sets[2];
    for (int i = 0; i < 2; i++) ck_ok(pn_token_set_open(dirs[i], &sets[i]));
    pn_row r = { 0 };
    int64_t order[2][N];
    for (int epoch = 0; epoch < 2; epoch++) {
        bool seen[N] = { false };
        for (int64_t i = 0; i < N; i++) {
            ck_ok(pn_mixture_row(m, PN_SPLIT_TRAIN, epoch * N + i, &r));
            check_row(&r, part.class_weight);
            int64_t which = -1; /* the window it is, found by its tokens and documents */
            for (int64_t k = 0; k < N && which < 0; k++) {
                pn_token_set *set = sets[k >= 6100 / T];
                const int64_t begin = (k >= 6100 / T ? k - 6100 / T : k) * T, total = pn_token_set_info(set)->n_tokens;
                int32_t tokens[T + 1];
                int64_t offsets[T + 2], n_docs;
                ck_ok(pn_token_set_read(set, begin, T, tokens));
                ck_ok(pn_token_set_offsets(set, begin, T, offsets, &n_docs));
                if (seen[k] || memcmp(tokens, r.tokens, T * sizeof *tokens) || n_docs != r.n_docs ||
                    memcmp(offsets, r.doc_offsets, (size_t)(n_docs + 1) * sizeof *offsets))
                    continue;
                which = k;
                if (begin + T < total) { /* the target after the window, if its document goes on */
                    ck_ok(pn_token_set_read(set, begin, T + 1, tokens));
                    ck_ok(pn_token_set_offsets(set, begin, T + 1, offsets, &n_docs));
                    ck_assert_int_eq(r.targets[T - 1], n_docs == r.n_docs ? tokens[T] : -1);
                } else {
                    ck_assert_int_eq(r.targets[T - 1], -1);
                }
            }
            ck_assert_int_ge(which, 0);
            seen[which] = true;
            order[epoch][i] = which;
        }
    }
    ck_assert(memcmp(order[0], order[1], sizeof order[0]) != 0);
    ck_assert(pn_mixture_has(m, PN_SPLIT_HELDOUT) && !pn_mixture_has(m, PN_SPLIT_SEARCH));
    ck_ok(pn_mixture_row(m, PN_SPLIT_HELDOUT, 0, &r));
    ck_refused(pn_mixture_row(m, PN_SPLIT_SEARCH, 0, &r), PN_USAGE, "split search");
    for (int i = 0; i < 2; i++) pn_token_set_close(&sets[i]);
    pn_row_free(&r);
    pn_mixture_destroy(&m);
    stop();
}
END_TEST

static pn_status from_yaml(const char *yaml, pn_mixture **out) {
    pn_config *c;
    *out = NULL;
    ck_ok(pn_config_parse("mix.yaml", yaml, &c));
    const pn_mixture_config base = {
        .tokenizer = tokenizer, .frame = pn_doc_frame_default(tokenizer), .sequence_length = 128, .seed = 3
    };
    pn_status s = pn_mixture_read(c, "data.mixture", &base, out);
    if (!s) s = pn_config_finish(c);
    pn_row r = { 0 };
    if (!s) ck_ok(pn_mixture_row(*out, PN_SPLIT_TRAIN, 0, &r));
    pn_row_free(&r);
    pn_mixture_destroy(out);
    pn_config_destroy(&c);
    return s;
}

START_TEST(a_config_says_the_same) {
    start();
    pn_mixture *m;
    char yaml[1024];
    snprintf(yaml, sizeof yaml,
             "data:\n  mixture:\n    - { skill: recall, weight: 2, pairs_max: 8, answer_weight: 3 }\n"
             "    - { skill: copy, document_bytes: [40, 60] }\n    - { shards: [%s], weight: 1 }\n",
             counting_set("train", "train", 20000));
    ck_ok(from_yaml(yaml, &m));
    ck_refused(from_yaml("data:\n  mixture:\n    - { skill: recal }\n", &m), PN_USAGE, "mix.yaml:3", "recal",
               "did you mean recall");
    ck_refused(from_yaml("data:\n  mixture:\n    - { skill: recall, pairs_maximum: 3 }\n", &m), PN_USAGE, "mix.yaml:3",
               "pairs_max");
    ck_refused(from_yaml("data:\n  mixture:\n    - { weight: 3 }\n", &m), PN_USAGE, "mix.yaml:3",
               "either a skill or shards");
    ck_refused(from_yaml("data:\n  mixture:\n    - { skill: recall, pairs_min: 30 }\n", &m), PN_USAGE, "mix.yaml:3",
               "pairs_min");
    ck_refused(from_yaml("data:\n  mixture:\n    - { skill: recall, pairs_min: 24, document_bytes: 20 }\n", &m),
               PN_USAGE, "mix.yaml:3", "document_bytes");
    ck_refused(from_yaml("data:\n  mixture:\n    - { shards: [/nowhere] }\n", &m), PN_IO, "/nowhere");
    ck_refused(from_yaml("data:\n  other: 3\n", &m), PN_USAGE, "data.mixture");
    ck_refused(from_yaml("data:\n  mixture:\n    - { skill: text, weight: 0 }\n", &m), PN_USAGE, "weight 0");
    stop();
}
END_TEST

START_TEST(shards_of_another_tokenizer_are_refused) {
    start();
    const char *const dir = counting_set("train", "train", 20000);
    static const char *const specials[] = { "<other>" };
    pn_tokenizer *other;
    ck_ok(pn_tokenizer_bytes(specials, 1, &other));
    const pn_mixture_part part = { .weight = { 1, 1 }, .class_weight = ONES, .shards = &dir, .n_shards = 1 };
    pn_mixture *m;
    ck_refused(pn_mixture_create(
                   &(pn_mixture_config){ .tokenizer = other, .sequence_length = 64, .parts = &part, .n_parts = 1 }, &m),
               PN_USAGE, "another tokenizer");
    ck_assert_ptr_null(m);
    pn_tokenizer_destroy(&other);
    stop();
}
END_TEST

TEST_MAIN("mixture", orders_are_bijections, rows_depend_on_their_number_alone, weights_change_over_the_rows_of_a_stage,
          a_recall_document_fills_its_row, what_no_document_fits_is_padding, windows_are_read_once_each,
          a_config_says_the_same, shards_of_another_tokenizer_are_refused)
