/* Skills: answers are right, sit where they are said to sit, and held-out documents are none of the training ones. */
#include "skills.h"

#include <ctype.h>
#include <xxhash.h>

#include "io_fixture.h"

static pn_tokenizer *byte_tokenizer(void) {
    static const char *const specials[] = { "<eos>" };
    pn_tokenizer *t;
    ck_ok(pn_tokenizer_bytes(specials, 1, &t));
    return t;
}

/* Defaults with some keys changed: "key=value" texts, NULL-ended. */
static pn_status make(const char *name, const char *const *changes, pn_skill **out) {
    _Alignas(8) unsigned char options[PN_SKILL_OPTIONS_BYTES];
    const pn_skill_type *type = pn_skill_find(name);
    ck_assert_ptr_nonnull(type);
    ck_ok(pn_options_defaults(type->options, options));
    for (; changes && *changes; changes++) {
        char key[64];
        const char *equals = strchr(*changes, '=');
        snprintf(key, sizeof key, "%.*s", (int)(equals - *changes), *changes);
        const pn_option *row = pn_option_find(type->options, key);
        ck_assert_msg(row != NULL, "%s has no option %s", name, key);
        ck_ok(pn_option_parse(row, "test", equals + 1, 0, options));
    }
    return pn_skill_create(type, options, "test", out);
}
#define MAKE(out, name, ...)                                                                                           \
    do {                                                                                                               \
        static const char *const changes_[] = { __VA_ARGS__, NULL };                                                   \
        ck_ok(make(name, changes_, out));                                                                              \
    } while (0)
#define REFUSED(name, word, ...)                                                                                       \
    do {                                                                                                               \
        static const char *const changes_[] = { __VA_ARGS__, NULL };                                                   \
        pn_skill *none_;                                                                                               \
        ck_refused(make(name, changes_, &none_), PN_USAGE, word);                                                      \
        ck_assert_ptr_null(none_);                                                                                     \
    } while (0)

START_TEST(every_skill_fills_the_room_it_is_given) {
    int n;
    const pn_skill_type *const *types = pn_skill_types(&n);
    ck_assert_int_ge(n, 5);
    for (int i = 0; i < n; i++) {
        pn_skill *s;
        pn_skill_doc a = { 0 }, b = { 0 };
        ck_ok(pn_skill_create(types[i], NULL, "test", &s));
        ck_assert_int_eq(s->index, i);
        const int64_t least = types[i]->least_bytes(s);
        ck_assert_int_le(least, 31); /* documents of 32 tokens, the shortest anyone trains on */
        for (int split = 0; split < PN_SPLITS; split++) ck_ok(pn_skill_write(s, 1, (pn_split)split, 0, least, &a));
        for (int64_t bytes = least; bytes < least + 200; bytes++) {
            ck_ok(pn_skill_write(s, 1, PN_SPLIT_TRAIN, (uint64_t)bytes, bytes, &a));
            ck_assert_int_eq(a.n, bytes);
            ck_ok(pn_skill_write(s, 1, PN_SPLIT_TRAIN, (uint64_t)bytes, bytes, &b)); /* the same again */
            ck_assert_mem_eq(a.bytes, b.bytes, (size_t)a.n);
            ck_assert_int_eq(a.n_answers, b.n_answers);
            ck_ok(pn_skill_write(s, 2, PN_SPLIT_TRAIN, (uint64_t)bytes, bytes, &b)); /* another seed */
            ck_assert(b.n != a.n || memcmp(a.bytes, b.bytes, (size_t)a.n) != 0);
            for (int64_t k = 0, end = 0; k < a.n_answers; end = a.answers[k++].end)
                ck_assert(a.answers[k].begin >= end && a.answers[k].end > a.answers[k].begin &&
                          a.answers[k].end <= a.n && a.answers[k].stated < a.answers[k].begin);
            for (int64_t k = 0; k < a.n; k++) ck_assert(isprint(a.bytes[k]) || a.bytes[k] == '\n');
        }
        ck_refused(pn_skill_write(s, 1, PN_SPLIT_TRAIN, 0, least - 1, &a), PN_USAGE, "raise");
        pn_skill_doc_free(&a);
        pn_skill_doc_free(&b);
        pn_skill_destroy(&s);
    }
}
END_TEST

START_TEST(recall_answers_are_the_values_stated) {
    pn_skill *s;
    pn_skill_doc d = { 0 };
    MAKE(&s, "recall", "pairs_min=3", "pairs_max=20", "key_length=2", "pair_mark=:", "query_mark=?", "separator= ");
    int64_t answers = 0, gaps = 0;
    for (uint64_t i = 0; i < 300; i++) {
        ck_ok(pn_skill_write(s, 5, PN_SPLIT_TRAIN, i, 400, &d));
        ck_assert(d.n_answers >= 3 && d.n_answers <= 20);
        ck_assert(d.bytes[d.n - 1] == ')' || d.bytes[d.n - 1] == '.' || d.bytes[d.n - 1] == ' ');
        for (int64_t k = 0; k < d.n_answers; k++, answers++) {
            const pn_skill_answer *a = &d.answers[k];
            ck_assert_int_eq(a->end - a->begin, 1);
            ck_assert(d.bytes[a->begin - 1] == '?' && d.bytes[a->stated - 1] == ':');
            ck_assert_int_eq(d.bytes[a->begin], d.bytes[a->stated]);
            ck_assert_mem_eq(d.bytes + a->begin - 3, d.bytes + a->stated - 3, 2); /* the key */
            ck_assert(isupper(d.bytes[a->begin]) && a->n_possible == 26);
            ck_assert(d.byte_class[a->begin] == PN_CLASS_ANSWER && d.byte_class[a->stated] == PN_CLASS_NOISE);
            ck_assert(d.byte_class[a->begin - 1] == PN_CLASS_TEXT && d.byte_class[a->begin - 2] == PN_CLASS_NOISE);
            gaps += k > 0 && a->begin - d.answers[k - 1].begin > 5;
            for (int64_t other = 0; other < k; other++) /* each key is stated once, asked for once */
                ck_assert_int_ne(d.answers[other].stated, a->stated);
        }
    }
    ck_assert(gaps > answers / 8 && gaps < answers / 2); /* gap_share 0.25, while there is slack */
    pn_skill_doc_free(&d);
    pn_skill_destroy(&s);
}
END_TEST

/* Walks a stream as a reader would: what follows a known key is what followed it before. */
START_TEST(recall_streams_ask_for_what_they_stated) {
    pn_skill *s;
    pn_skill_doc d = { 0 };
    MAKE(&s, "recall", "stream_share=1", "pairs_max=10");
    int64_t answers = 0;
    for (uint64_t i = 0; i < 200; i++) {
        ck_ok(pn_skill_write(s, 5, PN_SPLIT_TRAIN, i, 255, &d));
        int64_t at[26], next = 0, known = 0;
        for (int k = 0; k < 26; k++) at[k] = -1;
        for (int64_t p = 0; p < d.n && d.bytes[p] != '.'; p += 2) {
            if (d.bytes[p] == '(') {
                while (d.bytes[++p] != ')') ck_assert_int_lt(p, d.n);
                p--;
                continue;
            }
            ck_assert(islower(d.bytes[p]) && isupper(d.bytes[p + 1]));
            int64_t *stated = &at[d.bytes[p] - 'a'];
            if (*stated < 0) {
                known++;
            } else {
                const pn_skill_answer *a = &d.answers[next++];
                ck_assert(a->begin == p + 1 && a->end == p + 2 && a->stated == *stated);
                ck_assert_int_eq(d.bytes[p + 1], d.bytes[*stated]);
            }
            *stated = p + 1;
        }
        ck_assert_int_eq(next, d.n_answers);
        ck_assert_int_le(known, 10);
        answers += next;
    }
    ck_assert_int_gt(answers, 200 * 50);
    pn_skill_doc_free(&d);
    pn_skill_destroy(&s);
}
END_TEST

START_TEST(recall_distances_are_kept) {
    pn_skill *s;
    pn_tokenizer *t = byte_tokenizer();
    pn_token_doc d = { 0 };
    static const char *const changes[] = { "pairs_min=24", "pairs_max=24", NULL };
    for (int64_t want = 48; want <= 204; want += 12) {
        _Alignas(8) unsigned char options[PN_SKILL_OPTIONS_BYTES];
        ck_ok(make("recall", changes, &s));
        memcpy(options, s->options, sizeof options);
        pn_skill_destroy(&s);
        char text[16];
        snprintf(text, sizeof text, "%d", (int)want);
        ck_ok(pn_option_parse(pn_option_find(pn_skill_recall.options, "distances"), "test", text, 0, options));
        ck_ok(pn_skill_create(&pn_skill_recall, options, "test", &s));
        for (uint64_t i = 0; i < 50; i++) {
            ck_ok(pn_skill_document(s, t, pn_doc_frame_default(t), 9, PN_SPLIT_HELDOUT, i, 255, &d));
            ck_assert_int_eq(d.n, 256);
            ck_assert_int_eq(d.n_answers, 24);
            ck_assert_int_eq(d.answers[0].distance, want);
            ck_assert_int_eq(d.tokens[d.answers[0].begin], d.tokens[d.answers[0].begin - want]);
        }
        pn_skill_destroy(&s);
    }
    pn_token_doc_free(&d);
    pn_tokenizer_destroy(&t);
}
END_TEST

static int by_value(const void *a, const void *b) {
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* So few documents are possible that training repeats itself often: only construction keeps held-out ones apart. */
START_TEST(no_heldout_document_is_a_training_document) {
    enum { N = 20000, BYTES = 8 };
    pn_skill *s;
    pn_skill_doc d = { 0 };
    MAKE(&s, "recall", "pairs_min=1", "pairs_max=1", "key_length=1", "key_alphabet=abcd", "value_alphabet=ABCDEFGH",
         "filler=noise");
    static uint64_t seen[N];
    for (uint64_t i = 0; i < N; i++) {
        ck_ok(pn_skill_write(s, 3, PN_SPLIT_TRAIN, i, BYTES, &d));
        seen[i] = XXH3_64bits(d.bytes, (size_t)d.n);
    }
    qsort(seen, N, sizeof *seen, by_value);
    int repeats = 0, found = 0;
    for (int i = 1; i < N; i++) repeats += seen[i] == seen[i - 1];
    ck_assert_int_gt(repeats, N / 10);
    for (int split = PN_SPLIT_SEARCH; split <= PN_SPLIT_HELDOUT; split++)
        for (uint64_t seed = 3; seed < 5; seed++)
            for (uint64_t i = 0; i < 1000; i++) {
                ck_ok(pn_skill_write(s, seed, (pn_split)split, i, BYTES, &d));
                uint64_t h = XXH3_64bits(d.bytes, (size_t)d.n);
                found += bsearch(&h, seen, N, sizeof h, by_value) != NULL;
            }
    ck_assert_int_eq(found, 0);
    pn_skill_destroy(&s);
    /* Fewer still, and a split would be empty: refused, not endless. */
    MAKE(&s, "copy", "length_min=1", "length_max=1", "alphabet=ab");
    int refused = 0;
    for (int split = 0; split < PN_SPLITS; split++)
        refused += pn_skill_write(s, 3, (pn_split)split, 0, 4, &d) == PN_USAGE;
    ck_assert_int_gt(refused, 0);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "too few different documents"));
    pn_skill_destroy(&s);
    pn_skill_doc_free(&d);
}
END_TEST

START_TEST(copies_are_copies) {
    pn_skill *s;
    pn_skill_doc d = { 0 };
    MAKE(&s, "copy", "length_max=9");
    for (uint64_t i = 0; i < 100; i++) {
        ck_ok(pn_skill_write(s, 5, PN_SPLIT_TRAIN, i, 200, &d));
        ck_assert_int_ge(d.n_answers, 8);
        for (int64_t k = 0; k < d.n_answers; k++) {
            const pn_skill_answer *a = &d.answers[k];
            ck_assert_int_eq(a->begin - a->stated, a->end - a->begin + 1);
            ck_assert_mem_eq(d.bytes + a->begin, d.bytes + a->stated, (size_t)(a->end - a->begin));
        }
    }
    pn_skill_doc_free(&d);
    pn_skill_destroy(&s);
}
END_TEST

/* The line of text around a position, without its answer. */
static void question_of(const pn_skill_doc *d, const pn_skill_answer *a, char *out) {
    int64_t begin = a->begin;
    while (begin > 0 && d->bytes[begin - 1] != '\n') begin--;
    snprintf(out, 80, "%.*s", (int)(a->begin - begin), d->bytes + begin);
}

START_TEST(facts_hold_and_their_heldout_phrasing_is_new) {
    enum { N = 4000 };
    pn_skill *s;
    pn_skill_doc d = { 0 };
    MAKE(&s, "facts", "names=12");
    static struct { char question[80], answer[16]; } seen[N];
    int n = 0;
    for (uint64_t i = 0; n < N - 20; i++) {
        ck_ok(pn_skill_write(s, 5, PN_SPLIT_TRAIN, i, 250, &d));
        for (int64_t k = 0; k < d.n_answers; k++, n++) {
            question_of(&d, &d.answers[k], seen[n].question);
            snprintf(seen[n].answer, sizeof seen[n].answer, "%.*s", (int)(d.answers[k].end - d.answers[k].begin),
                     d.bytes + d.answers[k].begin);
            for (int m = 0; m < n; m++) /* one world: the same question has the same answer */
                if (!strcmp(seen[m].question, seen[n].question)) {
                    ck_assert_str_eq(seen[m].answer, seen[n].answer);
                    break;
                }
        }
    }
    int golds[8] = { 0 }, answers = 0;
    for (uint64_t i = 0; i < 100; i++) {
        ck_ok(pn_skill_write(s, 6, PN_SPLIT_HELDOUT, i, 250, &d));
        for (int64_t k = 0; k < d.n_answers; k++) {
            const pn_skill_answer *a = &d.answers[k];
            char question[80];
            question_of(&d, a, question);
            for (int m = 0; m < n; m++) ck_assert_str_ne(seen[m].question, question);
            ck_assert_int_eq(a->n_choices, 8);
            const char *choice = d.choices;
            for (int64_t c = 0; c < a->first_choice + a->gold; c++) choice += strlen(choice) + 1;
            ck_assert_int_eq(strlen(choice), a->end - a->begin);
            ck_assert_mem_eq(choice, d.bytes + a->begin, strlen(choice));
            golds[a->gold]++;
            answers++;
        }
    }
    for (int g = 0; g < 8; g++) ck_assert_int_gt(golds[g], answers / 16); /* the right one stands anywhere */
    pn_skill_doc_free(&d);
    pn_skill_destroy(&s);
}
END_TEST

START_TEST(arithmetic_is_right) {
    pn_skill *s;
    pn_skill_doc d = { 0 };
    MAKE(&s, "arith", "modulus=97", "operands=100", "show_modulus=true", "problems_apart=true", "end=\n");
    static bool seen[100][100][3];
    for (int split = 0; split < PN_SPLITS; split++)
        for (uint64_t i = 0; i < 300; i++) {
            ck_ok(pn_skill_write(s, 5, (pn_split)split, i, 256, &d));
            for (int64_t k = 0; k < d.n_answers; k++) {
                char line[80], op;
                int a, b, m, used;
                question_of(&d, &d.answers[k], line);
                ck_assert_int_eq(sscanf(line, "%d%c%d mod %d=%n", &a, &op, &b, &m, &used), 4);
                ck_assert_int_eq(line[used], '\0');
                ck_assert_int_eq(m, 97);
                int want = op == '+' ? a + b : op == '-' ? a - b : a * b;
                want = (want % m + m) % m;
                ck_assert_int_eq(strtol(d.bytes + d.answers[k].begin, NULL, 10), want);
                bool *here = &seen[a][b][op == '+' ? 0 : op == '-' ? 1 : 2];
                if (split == PN_SPLIT_TRAIN)
                    *here = true;
                else
                    ck_assert_msg(!*here, "%s is a training problem", line);
            }
        }
    pn_skill_doc_free(&d);
    pn_skill_destroy(&s);
}
END_TEST

START_TEST(tokens_carry_classes_and_answers) {
    pn_tokenizer *t = byte_tokenizer();
    int n;
    const pn_skill_type *const *types = pn_skill_types(&n);
    for (int i = 0; i < n; i++) {
        pn_skill *s;
        pn_skill_doc text = { 0 };
        pn_token_doc d = { 0 };
        ck_ok(pn_skill_create(types[i], NULL, "test", &s));
        ck_ok(pn_skill_write(s, 5, PN_SPLIT_TRAIN, 3, 255, &text));
        ck_ok(pn_skill_document(s, t, (pn_doc_frame){ 256, 256 }, 5, PN_SPLIT_TRAIN, 3, 255, &d));
        ck_ok(pn_token_doc_check(&d, "test"));
        ck_assert_int_eq(d.n, 257);
        ck_assert(d.tokens[0] == 256 && d.tokens[256] == 256);
        for (int k = 0; k < 255; k++) {
            ck_assert_int_eq(d.tokens[k + 1], text.bytes[k]);
            ck_assert_int_eq(d.token_class[k + 1], text.byte_class[k]);
        }
        ck_assert_int_eq(d.n_answers, text.n_answers);
        for (int64_t k = 0; k < d.n_answers; k++) {
            const pn_answer *a = &d.answers[k];
            ck_assert(a->begin == text.answers[k].begin + 1 && a->end == text.answers[k].end + 1 && a->skill == i);
            if (text.answers[k].stated >= 0)
                ck_assert_int_eq(a->distance, text.answers[k].begin - text.answers[k].stated);
            ck_assert(a->chance > 0 && a->chance <= 0.5);
            if (a->n_choices) ck_assert_double_eq_tol(a->chance * a->n_choices, 1, 1e-12);
        }
        pn_token_doc_free(&d);
        pn_skill_doc_free(&text);
        pn_skill_destroy(&s);
    }
    pn_tokenizer_destroy(&t);
}
END_TEST

/* A vocabulary that would rather merge the query mark with the answer, and a value with what follows it. */
static pn_tokenizer *greedy_tokenizer(void) {
    enum { LETTERS = 26 };
    static char names[94 + 3 * LETTERS + 3][8];
    static const char *tokens[94 + 3 * LETTERS + 3], *merges[3 * LETTERS];
    static char merge_text[3 * LETTERS][8];
    int n = 0, m = 0;
    for (char c = '!'; c <= '~'; c++) snprintf(names[n++], 8, "%c", c);
    snprintf(names[n++], 8, "\xC4\xA0"); /* a space in the GPT-2 byte alphabet */
    for (char c = 'A'; c <= 'Z'; c++) {
        snprintf(names[n++], 8, "q%c", c);
        snprintf(merge_text[m++], 8, "q %c", c);
        snprintf(names[n++], 8, "p%c", c);
        snprintf(merge_text[m++], 8, "p %c", c);
        snprintf(names[n++], 8, "%c%c", c + 32, c + 32);
        snprintf(merge_text[m++], 8, "%c %c", c + 32, c + 32);
    }
    for (int i = 0; i < n; i++) tokens[i] = names[i];
    for (int i = 0; i < m; i++) merges[i] = merge_text[i];
    pn_tokenizer *t;
    ck_ok(pn_tokenizer_from_parts(&(pn_tokenizer_parts){ .tokens = tokens,
                                                         .n_tokens = n,
                                                         .merges = merges,
                                                         .n_merges = m,
                                                         .bos = -1,
                                                         .eos = -1,
                                                         .pad = -1,
                                                         .unk = -1 },
                                  &t));
    return t;
}

START_TEST(answers_are_whole_tokens_with_any_tokenizer) {
    pn_tokenizer *t = greedy_tokenizer();
    pn_skill *s;
    pn_skill_doc text = { 0 };
    pn_token_doc d = { 0 };
    MAKE(&s, "recall", "pairs_min=3", "key_length=2", "pair_mark=p", "query_mark=q");
    pn_ids whole = { 0 };
    bool merged = false;
    for (uint64_t i = 0; i < 50; i++) {
        ck_ok(pn_skill_write(s, 5, PN_SPLIT_TRAIN, i, 200, &text));
        ck_ok(pn_skill_document(s, t, pn_doc_frame_default(t), 5, PN_SPLIT_TRAIN, i, 200, &d));
        char *back;
        size_t n;
        ck_ok(pn_tokenizer_decode(t, d.tokens, d.n, false, &back, &n));
        ck_assert_uint_eq(n, (size_t)text.n);
        ck_assert_mem_eq(back, text.bytes, n);
        free(back);
        ck_assert_int_le(d.n, 200);
        for (int64_t k = 0; k < d.n_answers; k++) {
            ck_ok(pn_tokenizer_decode(t, d.tokens + d.answers[k].begin, d.answers[k].end - d.answers[k].begin, false,
                                      &back, &n));
            ck_assert(n == 1 && *back == text.bytes[text.answers[k].begin]);
            free(back);
            ck_assert_int_eq(d.tokens[d.answers[k].begin - d.answers[k].distance], d.tokens[d.answers[k].begin]);
            ck_assert_int_eq(d.token_class[d.answers[k].begin], PN_CLASS_ANSWER);
        }
        whole.n = 0;
        ck_ok(pn_tokenizer_encode(t, text.bytes, (size_t)text.n, false, &whole));
        merged = merged || whole.n < d.n; /* so cutting mattered */
    }
    ck_assert(merged);
    pn_ids_free(&whole);
    pn_token_doc_free(&d);
    pn_skill_doc_free(&text);
    pn_skill_destroy(&s);
    pn_tokenizer_destroy(&t);
}
END_TEST

START_TEST(contradictions_are_refused) {
    REFUSED("recall", "pairs_min 30", "pairs_min=30");
    REFUSED("recall", "different keys", "key_alphabet=ab", "key_length=4");
    REFUSED("recall", "twice", "value_alphabet=ABCA");
    REFUSED("recall", "queries", "queries=3");
    REFUSED("recall", "ASCII", "query_mark=\xC3\xA9");
    REFUSED("copy", "length_min", "length_min=30");
    REFUSED("copy", "alphabet", "alphabet=a");
    REFUSED("arith", "operators", "operators=+/");
    REFUSED("arith", "1024", "problems_apart=true");
}
END_TEST

TEST_MAIN("skills", every_skill_fills_the_room_it_is_given, recall_answers_are_the_values_stated,
          recall_streams_ask_for_what_they_stated, recall_distances_are_kept,
          no_heldout_document_is_a_training_document, copies_are_copies, facts_hold_and_their_heldout_phrasing_is_new,
          arithmetic_is_right, tokens_carry_classes_and_answers, answers_are_whole_tokens_with_any_tokenizer,
          contradictions_are_refused)
