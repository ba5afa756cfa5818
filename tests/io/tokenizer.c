/* The tokenizer against ids that Hugging Face tokenizers gave (tests/data/tokenizer, and Qwen2.5's where it is at
 * hand), against naive oracles for merging and normalising, after a write and a read, and against broken and hostile
 * files. */
#include "harness.h"

#include <jansson.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utf8proc.h>

#include "tokenizer.h"
#include "tokenizer_internal.h"

#define DATA POSTNAS_SOURCE_DIR "/tests/data/tokenizer"

static pn_tokenizer *open_small(void) {
    pn_tokenizer *t;
    ck_ok(pn_tokenizer_open(DATA, &t));
    return t;
}

static pn_ids encode(const pn_tokenizer *t, const char *text, bool parse_special) {
    pn_ids ids = { 0 };
    ck_ok(pn_tokenizer_encode(t, text, strlen(text), parse_special, &ids));
    return ids;
}

static void assert_ids(const pn_tokenizer *t, const char *text, bool parse_special, int n, const int32_t *want) {
    pn_ids ids = encode(t, text, parse_special);
    ck_assert_msg(ids.n == n, "\"%s\": %lld ids, expected %d", text, (long long)ids.n, n);
    for (int i = 0; i < n; i++)
        ck_assert_msg(ids.ids[i] == want[i], "\"%s\": id %d is %d, not %d", text, i, ids.ids[i], want[i]);
    pn_ids_free(&ids);
}
#define ASSERT_IDS(t, text, special, ...)                                                                              \
    assert_ids(t, text, special, (int)(sizeof((int32_t[]){ __VA_ARGS__ }) / sizeof(int32_t)),                          \
               (int32_t[]){ __VA_ARGS__ })

/* A path that nothing else uses, in the directory of the test. */
static const char *scratch(const char *name) {
    static char path[PATH_MAX];
    const char *dir = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/postnas-tokenizer-%ld-%s", dir ? dir : "/tmp", (long)getpid(), name);
    return path;
}

/* ---- the same ids as Hugging Face ---- */
static void check_dir(const char *dir, int n_lines) {
    char expected[PATH_MAX], want[64], text[8192] = { 0 };
    snprintf(expected, sizeof expected, "%s/expected.jsonl", dir);
    FILE *out = tmpfile();
    pn_status s = pn_tokenizer_check(dir, expected, out);
    rewind(out);
    size_t n = fread(text, 1, sizeof text - 1, out);
    fclose(out);
    ck_assert_msg(s == PN_OK, "%s\n%s", pn_error_message(), text);
    printf("%s:\n%s", dir, text);
    snprintf(want, sizeof want, "\n%d passed, 0 failed\n", n_lines);
    ck_assert_msg(n >= strlen(want) && strcmp(text + n - strlen(want), want) == 0, "%s does not end in %s", text, want);
}

START_TEST(small_tokenizer_gives_expected_ids) {
    check_dir(DATA, 36);
}
END_TEST

START_TEST(qwen_tokenizer_gives_expected_ids) {
    const char *shared = getenv("POSTNAS_SHARED"), *const roots[] = { shared, POSTNAS_SOURCE_DIR "/../shared",
                                                                      POSTNAS_SOURCE_DIR "/../../shared" };
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        char dir[PATH_MAX];
        struct stat st;
        if (!roots[i]) continue;
        snprintf(dir, sizeof dir, "%s/qwen2.5-tokenizer", roots[i]);
        if (stat(dir, &st) != 0) continue;
        check_dir(dir, 431);
        return;
    }
    ck_skip("no qwen2.5-tokenizer in $POSTNAS_SHARED or in shared/ beside the repository");
}
END_TEST

START_TEST(check_reports_mismatches) {
    const char *path = scratch("wrong.jsonl");
    FILE *f = fopen(path, "w");
    fputs("{\"text\": \"a\", \"ids\": [64], \"decoded\": \"a\"}\n{\"text\": \"a\", \"ids\": [1, 2]}\n", f);
    fclose(f);
    char text[2048] = { 0 };
    FILE *out = tmpfile();
    ck_assert_int_eq(pn_tokenizer_check(DATA, path, out), PN_MISMATCH);
    rewind(out);
    ck_assert(fread(text, 1, sizeof text - 1, out) > 0);
    fclose(out);
    unlink(path);
    ck_assert_ptr_nonnull(strstr(text, ":2: ids differ"));
    ck_assert_ptr_nonnull(strstr(text, "\n1 passed, 1 failed\n"));
}
END_TEST

/* ---- parts, as GGUF holds them ---- */
typedef struct parts {
    json_t *root;
    const char **tokens, **merges;
    int32_t *types;
    pn_tokenizer_parts p;
} parts;

/* The small tokenizer.json taken apart. */
static parts take_apart(const char *pre) {
    parts a = { 0 };
    json_error_t error;
    a.root = json_load_file(DATA "/tokenizer.json", 0, &error);
    ck_assert_ptr_nonnull(a.root);
    json_t *model = json_object_get(a.root, "model"), *vocab = json_object_get(model, "vocab"), *j;
    json_t *added = json_object_get(a.root, "added_tokens"), *merges = json_object_get(model, "merges");
    size_t n = json_object_size(vocab) + json_array_size(added), n_merges = json_array_size(merges), i;
    const char *token;
    a.tokens = calloc(n, sizeof *a.tokens);
    a.types = calloc(n, sizeof *a.types);
    a.merges = calloc(n_merges, sizeof *a.merges);
    json_object_foreach(vocab, token, j) {
        a.tokens[json_integer_value(j)] = token;
        a.types[json_integer_value(j)] = 1;
    }
    json_array_foreach(added, i, j) {
        json_int_t id = json_integer_value(json_object_get(j, "id"));
        a.tokens[id] = json_string_value(json_object_get(j, "content"));
        a.types[id] = json_is_true(json_object_get(j, "special")) ? 3 : 4;
    }
    json_array_foreach(merges, i, j) {
        char text[256];
        snprintf(text, sizeof text, "%s %s", json_string_value(json_array_get(j, 0)),
                 json_string_value(json_array_get(j, 1)));
        json_object_set_new(a.root, text, json_null()); /* the root keeps the joined text: its key */
        a.merges[i] = json_object_iter_key(json_object_iter_at(a.root, text));
    }
    a.p = (pn_tokenizer_parts){ .pre = pre,
                                .tokens = a.tokens,
                                .token_type = a.types,
                                .n_tokens = (int64_t)n,
                                .merges = a.merges,
                                .n_merges = (int64_t)n_merges,
                                .bos = -1,
                                .eos = -1,
                                .pad = -1,
                                .unk = -1,
                                .source = "model.gguf" };
    return a;
}

static void parts_free(parts *a) {
    json_decref(a->root);
    free(a->tokens);
    free(a->merges);
    free(a->types);
}

START_TEST(gguf_names_split_as_their_models_do) {
    FILE *f = fopen(DATA "/pre.jsonl", "r");
    ck_assert_ptr_nonnull(f);
    char *line = NULL, current[64] = "";
    size_t cap = 0;
    int n_lines = 0, n_names = 0;
    pn_tokenizer *t = NULL;
    while (getline(&line, &cap, f) > 0) {
        json_t *row = json_loads(line, 0, NULL), *want = json_object_get(row, "ids");
        const char *pre = json_string_value(json_object_get(row, "pre"));
        const char *text = json_string_value(json_object_get(row, "text"));
        if (strcmp(pre, current) != 0) {
            parts a = take_apart(pre);
            pn_tokenizer_destroy(&t);
            ck_ok(pn_tokenizer_from_parts(&a.p, &t));
            parts_free(&a);
            snprintf(current, sizeof current, "%s", pre);
            n_names++;
        }
        pn_ids ids = encode(t, text, true);
        ck_assert_msg((size_t)ids.n == json_array_size(want), "%s: \"%s\": %lld ids, expected %zu", pre, text,
                      (long long)ids.n, json_array_size(want));
        for (int64_t i = 0; i < ids.n; i++)
            ck_assert_msg(ids.ids[i] == json_integer_value(json_array_get(want, (size_t)i)),
                          "%s: \"%s\": id %lld is %d", pre, text, (long long)i, ids.ids[i]);
        pn_ids_free(&ids);
        json_decref(row);
        n_lines++;
    }
    free(line);
    fclose(f);
    pn_tokenizer_destroy(&t);
    ck_assert_int_eq(n_names, 9);
    ck_assert_int_eq(n_lines, 9 * 13);
}
END_TEST

START_TEST(parts_equal_json_and_survive_writing) {
    pn_tokenizer *json = open_small(), *made, *back;
    parts a = take_apart("qwen2");
    a.p.eos = pn_tokenizer_find(json, "<|endoftext|>");
    a.p.bos = pn_tokenizer_find(json, "<|im_start|>");
    a.p.add_bos = true;
    ck_ok(pn_tokenizer_from_parts(&a.p, &made));
    ck_assert_uint_eq(pn_tokenizer_hash(made), pn_tokenizer_hash(json));
    const char *path = scratch("parts.json");
    ck_ok(pn_tokenizer_write_json(made, path));
    ck_ok(pn_tokenizer_open(path, &back));
    unlink(path);
    ck_assert_uint_eq(pn_tokenizer_hash(back), pn_tokenizer_hash(json));
    ck_assert(pn_tokenizer_adds_bos(back) && !pn_tokenizer_adds_eos(back) && !pn_tokenizer_adds_bos(json));
    ck_assert_int_eq(pn_tokenizer_bos(back), a.p.bos);
    ck_assert_int_eq(pn_tokenizer_eos(back), a.p.eos);
    pn_tokenizer_destroy(&back);
    pn_tokenizer_destroy(&made);
    /* another way to split is another tokenizer */
    a.p.pre = "smollm";
    ck_ok(pn_tokenizer_from_parts(&a.p, &made));
    ck_assert_uint_ne(pn_tokenizer_hash(made), pn_tokenizer_hash(json));
    pn_tokenizer_destroy(&made);
    parts_free(&a);
    pn_tokenizer_destroy(&json);
    pn_tokenizer_destroy(&json);
}
END_TEST

START_TEST(padding_tokens_are_no_tokens) {
    parts a = take_apart("qwen2");
    pn_tokenizer *t;
    int64_t n = a.p.n_tokens;
    a.tokens[n - 1] = "[PAD703]";
    a.types[n - 1] = 5;
    ck_ok(pn_tokenizer_from_parts(&a.p, &t));
    ck_assert_int_eq(pn_tokenizer_vocab(t), n - 1);
    pn_tokenizer_destroy(&t);
    parts_free(&a);
}
END_TEST

START_TEST(broken_parts_are_refused) {
    pn_tokenizer *t = NULL;
    parts a = take_apart("klingon");
    ck_assert_int_eq(pn_tokenizer_from_parts(&a.p, &t), PN_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "smollm"));
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "model.gguf"));
    a.p.pre = "qwen2";
    const char *kept = a.tokens[5];
    a.tokens[5] = a.tokens[6];
    ck_assert_int_eq(pn_tokenizer_from_parts(&a.p, &t), PN_FORMAT);
    a.tokens[5] = "a b";
    ck_assert_int_eq(pn_tokenizer_from_parts(&a.p, &t), PN_FORMAT);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "U+0020"));
    a.tokens[5] = "\xff";
    ck_assert_int_eq(pn_tokenizer_from_parts(&a.p, &t), PN_FORMAT);
    a.tokens[5] = "";
    ck_assert_int_eq(pn_tokenizer_from_parts(&a.p, &t), PN_FORMAT);
    a.tokens[5] = NULL;
    ck_assert_int_eq(pn_tokenizer_from_parts(&a.p, &t), PN_FORMAT);
    a.tokens[5] = kept;
    a.types[5] = 17;
    ck_assert_int_eq(pn_tokenizer_from_parts(&a.p, &t), PN_FORMAT);
    a.types[5] = 6;
    ck_assert_int_eq(pn_tokenizer_from_parts(&a.p, &t), PN_UNSUPPORTED);
    a.types[5] = 1;
    a.p.eos = 1 << 20;
    ck_assert_int_eq(pn_tokenizer_from_parts(&a.p, &t), PN_FORMAT);
    a.p.eos = -1;
    a.p.add_bos = true;
    ck_assert_int_eq(pn_tokenizer_from_parts(&a.p, &t), PN_FORMAT);
    a.p.add_bos = false;
    static const char *const bad_merges[] = { "nospace", "a b c", " a", "a ", "a qqqqq", NULL };
    for (size_t i = 0; i < sizeof bad_merges / sizeof *bad_merges; i++) {
        a.merges[3] = bad_merges[i];
        ck_assert_int_eq(pn_tokenizer_from_parts(&a.p, &t), PN_FORMAT);
        ck_assert_ptr_nonnull(strstr(pn_error_message(), "merge 3"));
    }
    a.merges[3] = a.merges[4];
    ck_assert_int_eq(pn_tokenizer_from_parts(&a.p, &t), PN_FORMAT);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "the same"));
    a.p.n_tokens = INT64_MAX;
    ck_assert_int_eq(pn_tokenizer_from_parts(&a.p, &t), PN_FORMAT);
    a.p.n_tokens = 0;
    ck_assert_int_eq(pn_tokenizer_from_parts(&a.p, &t), PN_FORMAT);
    ck_assert_ptr_null(t);
    parts_free(&a);
}
END_TEST

/* ---- plain bytes ---- */
START_TEST(byte_tokenizer_is_the_identity) {
    static const char *const specials[] = { "<|endoftext|>", "<|im_start|>" };
    pn_tokenizer *t, *back;
    ck_ok(pn_tokenizer_bytes(specials, 2, &t));
    ck_assert_int_eq(pn_tokenizer_vocab(t), 258);
    ck_assert_int_eq(pn_tokenizer_eos(t), 256);
    ASSERT_IDS(t, "a \xc3\xa9\n", true, 'a', ' ', 0xc3, 0xa9, '\n');
    ASSERT_IDS(t, "x<|endoftext|>y", true, 'x', 256, 'y');
    char dir[PATH_MAX], path[PATH_MAX + 32];
    snprintf(dir, sizeof dir, "%s", scratch("dir"));
    ck_assert_int_eq(mkdir(dir, 0700), 0);
    ck_ok(pn_tokenizer_write_dir(t, dir));
    ck_ok(pn_tokenizer_open(dir, &back));
    ck_assert_uint_eq(pn_tokenizer_hash(back), pn_tokenizer_hash(t));
    ck_assert_int_eq(pn_tokenizer_eos(back), 256);
    ck_assert_int_eq(pn_tokenizer_pad(back), -1);
    char *text;
    size_t n;
    int32_t every[256];
    for (int i = 0; i < 256; i++) every[i] = i;
    ck_ok(pn_tokenizer_decode(back, every, 256, false, &text, &n));
    ck_assert_uint_eq(n, 256);
    for (int i = 0; i < 256; i++) ck_assert_int_eq((unsigned char)text[i], i);
    free(text);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    unlink(path);
    ck_assert_int_eq(rmdir(dir), 0); /* nothing else was left behind */
    pn_tokenizer_destroy(&back);
    pn_tokenizer_destroy(&t);
    static const char *const twice[] = { "<a>", "<a>" };
    ck_assert_int_eq(pn_tokenizer_bytes(twice, 2, &t), PN_USAGE);
}
END_TEST

/* ---- text in and out ---- */
START_TEST(special_tokens_are_text_unless_asked_for) {
    pn_tokenizer *t = open_small();
    int32_t end = pn_tokenizer_find(t, "<|endoftext|>"), tool = pn_tokenizer_find(t, "<tool_call>");
    ck_assert(pn_tokenizer_is_special(t, end) && !pn_tokenizer_is_special(t, tool) && !pn_tokenizer_is_special(t, -1));
    ASSERT_IDS(t, "<|endoftext|>", true, end);
    ASSERT_IDS(t, "<tool_call>", false, tool);
    pn_ids ids = encode(t, "<|endoftext|>", false);
    ck_assert_int_gt(ids.n, 3);
    char *text;
    size_t n;
    ck_ok(pn_tokenizer_decode(t, ids.ids, ids.n, true, &text, &n));
    ck_assert_str_eq(text, "<|endoftext|>");
    free(text);
    ck_ok(pn_tokenizer_decode(t, (int32_t[]){ end, tool, end }, 3, true, &text, &n));
    ck_assert_str_eq(text, "<tool_call>");
    free(text);
    pn_ids_free(&ids);
    ck_assert_int_eq(pn_tokenizer_decode(t, (int32_t[]){ 5, 1 << 20 }, 2, true, &text, &n), PN_FORMAT);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "position 1"));
    ck_assert_int_eq(pn_tokenizer_decode(t, (int32_t[]){ -1 }, 1, true, &text, &n), PN_FORMAT);
    ck_assert_ptr_null(text);
    pn_tokenizer_destroy(&t);
}
END_TEST

START_TEST(invalid_utf8_is_named_by_its_offset) {
    static const struct {
        const char *text, *repaired;
        int bad_at; /* -1: valid */
    } rows[] = {
        { "plain text, longer than eight", "plain text, longer than eight", -1 },
        { "\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80", "\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80", -1 },
        { "abc\x80", "abc\xef\xbf\xbd", 3 },
        { "12345678\xc0\x80", "12345678\xef\xbf\xbd\xef\xbf\xbd", 8 },
        { "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 0 },
        { "a\xe2\x82", "a\xef\xbf\xbd", 1 },
        { "\xf0\x9f\x98z", "\xef\xbf\xbdz", 0 },
        { "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 0 },
        { "\xc3", "\xef\xbf\xbd", 0 },
    };
    pn_tokenizer *t = open_small();
    pn_ids ids = { 0 };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = strlen(rows[i].text), at = 99, n_fixed;
        char *fixed, want[64];
        ck_assert_int_eq(pn_text_is_utf8(rows[i].text, n, &at), rows[i].bad_at < 0);
        if (rows[i].bad_at >= 0) {
            ck_assert_uint_eq(at, (size_t)rows[i].bad_at);
            ck_assert_int_eq(pn_tokenizer_encode(t, rows[i].text, n, true, &ids), PN_FORMAT);
            snprintf(want, sizeof want, "at byte %d ", rows[i].bad_at);
            ck_assert_ptr_nonnull(strstr(pn_error_message(), want));
            ck_assert_int_eq(ids.n, 0);
        }
        ck_ok(pn_text_repair(rows[i].text, n, &fixed, &n_fixed));
        ck_assert_uint_eq(n_fixed, strlen(rows[i].repaired));
        ck_assert_str_eq(fixed, rows[i].repaired);
        free(fixed);
    }
    pn_ids_free(&ids);
    pn_tokenizer_destroy(&t);
}
END_TEST

static uint64_t state = 88172645463325252u;
static uint32_t draw(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

/* Oracle: normalise the whole text. U+11A7 is left out, which utf8proc 2.8 loses after a syllable. */
START_TEST(normalising_by_runs_equals_normalising_whole) {
    static const uint32_t low[] = { 0x20,   0x41,   0xc0,   0x300,  0x340,  0x370,  0x900,  0x1100,
                                    0x1161, 0x11a8, 0x1e00, 0x2000, 0x3040, 0xac00, 0xf900, 0x1d158 };
    static const uint32_t wide[] = { 0x60, 0x3a, 0x100, 0x40,  0x30, 0x90, 0x80, 0x13,
                                     0x15, 0x1b, 0x200, 0x200, 0x60, 0x60, 0x80, 0x10 };
    pn_tok_arena buffer = { 0 };
    int n_changed = 0;
    for (int round = 0; round < 20000; round++) {
        char text[256];
        size_t n = 0, n_got;
        const char *got;
        int len = 1 + (int)draw(24);
        for (int i = 0; i < len; i++) {
            uint32_t k = draw(16);
            n += (size_t)pn_tok_put_utf8(low[k] + draw(wide[k]), text + n);
        }
        text[n] = '\0';
        utf8proc_uint8_t *want = utf8proc_NFC((const utf8proc_uint8_t *)text);
        ck_ok(pn_tok_nfc(text, n, &buffer, &got, &n_got));
        ck_assert_msg(n_got == strlen((char *)want) && memcmp(got, want, n_got) == 0, "round %d: %s", round, text);
        n_changed += got != text;
        free(want);
    }
    ck_assert_int_gt(n_changed, 1000);
    ck_ok(pn_tok_nfc("\xea\xb0\x80\xe1\x86\xa7\xe1\x86\xa8", 9, &buffer, &(const char *){ 0 }, &(size_t){ 0 }));
    ck_assert(buffer.n == 9 && memcmp(buffer.data, "\xea\xb0\x80\xe1\x86\xa7\xe1\x86\xa8", 9) == 0);
    free(buffer.data);
}
END_TEST

/* Oracle: the algorithm as written, on strings: join the pair of lowest rank, the leftmost of equals, until none is
 * left. */
static int64_t merge_naively(const pn_tokenizer *t, int32_t *id, int64_t n) {
    for (;;) {
        uint32_t best = UINT32_MAX;
        int64_t at = -1;
        for (int64_t i = 0; i + 1 < n; i++) {
            const pn_tok_merge *m = pn_tok_merge_slot(t, (uint64_t)(uint32_t)id[i] << 32 | (uint32_t)id[i + 1]);
            if (m->pair != UINT64_MAX && m->rank < best) best = m->rank, at = i;
        }
        if (at < 0) return n;
        id[at] = pn_tok_merge_slot(t, (uint64_t)(uint32_t)id[at] << 32 | (uint32_t)id[at + 1])->id;
        memmove(id + at + 1, id + at + 2, (size_t)(n - at - 2) * sizeof *id);
        n--;
    }
}

START_TEST(fast_merging_equals_naive_merging) {
    pn_tokenizer *t = open_small();
    pn_tok_encoder *cached, *plain;
    ck_ok(pn_tok_encoder_create(t, true, &cached));
    ck_ok(pn_tok_encoder_create(t, false, &plain));
    pn_ids a = { 0 }, b = { 0 };
    int n_merged = 0;
    for (int round = 0; round < 4000; round++) {
        char word[400];
        int32_t want[400];
        int64_t n = 1 + draw(round % 4 == 0 ? 399 : 60);
        const char *letters = round % 3 == 0 ? "ab" : round % 3 == 1 ? " etaoinshrdl" : " earts=-";
        for (int64_t i = 0; i < n; i++) word[i] = letters[draw((uint32_t)strlen(letters))];
        for (int64_t i = 0; i < n; i++) want[i] = t->byte_id[(unsigned char)word[i]];
        int64_t n_want = merge_naively(t, want, n);
        n_merged += n_want < n;
        for (int twice = 0; twice < 2; twice++) { /* the second time from the cache */
            a.n = b.n = 0;
            cached->out = &a;
            plain->out = &b;
            ck_ok(pn_tok_word(cached, word, (size_t)n));
            ck_ok(pn_tok_word(plain, word, (size_t)n));
            ck_assert_int_eq(a.n, n_want);
            ck_assert_int_eq(b.n, n_want);
            ck_assert(memcmp(a.ids, want, (size_t)n_want * sizeof *want) == 0);
            ck_assert(memcmp(b.ids, want, (size_t)n_want * sizeof *want) == 0);
        }
    }
    ck_assert_int_gt(n_merged, 3000);
    pn_ids_free(&a);
    pn_ids_free(&b);
    pn_tok_encoder_destroy(&cached);
    pn_tok_encoder_destroy(&plain);
    pn_tokenizer_destroy(&t);
}
END_TEST

START_TEST(a_very_long_word_takes_no_time) {
    pn_tokenizer *t = open_small();
    size_t n = 2 << 20;
    char *text = malloc(n), *back;
    size_t n_back;
    pn_ids ids = { 0 };
    static const char letters[] = "tehaior";
    for (size_t i = 0; i < n; i++) text[i] = letters[draw(7)];
    ck_ok(pn_tokenizer_encode(t, text, n, true, &ids)); /* quadratic merging would run into the test's timeout */
    ck_ok(pn_tokenizer_decode(t, ids.ids, ids.n, false, &back, &n_back));
    ck_assert(n_back == n && memcmp(back, text, n) == 0);
    ck_assert_int_lt(ids.n, (int64_t)n * 9 / 10);
    free(back);
    memset(text, ' ', n); /* and white space, over which the pattern backtracks */
    ids.n = 0;
    ck_ok(pn_tokenizer_encode(t, text, n, true, &ids));
    ck_assert_int_gt(ids.n, 0);
    free(text);
    pn_ids_free(&ids);
    pn_tokenizer_destroy(&t);
}
END_TEST

/* ---- threads ---- */
enum { N_THREADS = 4, N_ROUNDS = 300 };
typedef struct job {
    const pn_tokenizer *t;
    int n_wrong;
} job;

static const char *const phrases[] = { "The trainer resumes", "don't  12345 <|im_end|>\n", "na\xc3\xafve e\xcc\x81",
                                       "=====" };

static void *encode_many(void *arg) {
    job *j = arg;
    for (int i = 0; i < N_ROUNDS; i++) {
        const char *text = phrases[i % 4];
        pn_ids ids = { 0 };
        char *back = NULL;
        size_t n;
        bool ok = pn_tokenizer_encode(j->t, text, strlen(text), true, &ids) == PN_OK &&
                  pn_tokenizer_decode(j->t, ids.ids, ids.n, false, &back, &n) == PN_OK &&
                  strcmp(back, i % 4 == 2 ? "na\xc3\xafve \xc3\xa9" : text) == 0;
        j->n_wrong += !ok;
        free(back);
        pn_ids_free(&ids);
    }
    return NULL;
}

START_TEST(threads_share_a_tokenizer) {
    pn_tokenizer *t = open_small();
    pthread_t thread[N_THREADS];
    job jobs[N_THREADS];
    for (int i = 0; i < N_THREADS; i++) {
        jobs[i] = (job){ .t = t };
        ck_assert_int_eq(pthread_create(&thread[i], NULL, encode_many, &jobs[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(thread[i], NULL);
        ck_assert_int_eq(jobs[i].n_wrong, 0);
    }
    pn_tokenizer_destroy(&t);
}
END_TEST

/* ---- tokenizer.json, changed ---- */
static json_t *at_path(json_t *root, const char *path) {
    char part[64];
    while (*path) {
        size_t n = strcspn(path, ".");
        snprintf(part, sizeof part, "%.*s", (int)n, path);
        root = json_is_array(root) ? json_array_get(root, (size_t)atoi(part)) : json_object_get(root, part);
        path += n + (path[n] == '.');
    }
    return root;
}

static pn_status open_text(const char *text, pn_tokenizer **t) {
    const char *path = scratch("changed.json");
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    pn_status s = pn_tokenizer_open(path, t);
    unlink(path);
    return s;
}

/* The small tokenizer.json with `key` of the object at `path` set to `value` (JSON), or removed where value is NULL. */
static pn_status open_changed(const char *path, const char *key, const char *value, pn_tokenizer **t) {
    json_error_t error;
    json_t *root = json_load_file(DATA "/tokenizer.json", 0, &error), *object = at_path(root, path);
    ck_assert_ptr_nonnull(object);
    json_t *j = value ? json_loads(value, JSON_DECODE_ANY, &error) : NULL;
    ck_assert_msg(!value || j, "%s: %s", value, error.text);
    if (json_is_array(object))
        json_array_set_new(object, (size_t)atoi(key), j);
    else if (value)
        json_object_set_new(object, key, j);
    else
        json_object_del(object, key);
    char *text = json_dumps(root, 0);
    pn_status s = open_text(text, t);
    free(text);
    json_decref(root);
    return s;
}

START_TEST(broken_files_are_refused_by_name) {
    static const struct {
        const char *path, *key, *value;
        pn_status status;
        const char *says;
    } rows[] = {
        { "", "model", NULL, PN_FORMAT, "model.vocab" },
        { "model", "type", "\"WordPiece\"", PN_UNSUPPORTED, "WordPiece" },
        { "model", "dropout", "0.1", PN_UNSUPPORTED, "dropout" },
        { "model", "byte_fallback", "true", PN_UNSUPPORTED, "byte_fallback" },
        { "model", "byte_fallback", "3", PN_FORMAT, "byte_fallback" },
        { "model", "end_of_word_suffix", "\"</w>\"", PN_UNSUPPORTED, "end_of_word_suffix" },
        { "model", "vocab", "[]", PN_FORMAT, "model.vocab" },
        { "model", "vocab", "{}", PN_FORMAT, "byte-level" },
        { "model.vocab", "new", "-1", PN_FORMAT, "\"new\"" },
        { "model.vocab", "new", "\"7\"", PN_FORMAT, "\"new\"" },
        { "model.vocab", "new", "7", PN_FORMAT, "same id 7" },
        { "model.vocab", "new", "4000000", PN_FORMAT, "holes" },
        { "model.vocab", "new", "99999999999999", PN_FORMAT, "\"new\"" },
        { "model.vocab", "", "704", PN_FORMAT, "0 bytes" },
        { "model.vocab", "a b", "704", PN_FORMAT, "U+0020" },
        { "model.vocab", "\xe6\x97\xa5", "704", PN_FORMAT, "U+65E5" },
        { "model", "merges", "{}", PN_FORMAT, "merges" },
        { "model.merges", "2", "\"a\"", PN_FORMAT, "merges[2]" },
        { "model.merges", "2", "\"a b c\"", PN_FORMAT, "merges[2]" },
        { "model.merges", "2", "[\"a\"]", PN_FORMAT, "merges[2]" },
        { "model.merges", "2", "[\"a\", 1]", PN_FORMAT, "merges[2]" },
        { "model.merges", "2", "17", PN_FORMAT, "merges[2]" },
        { "model.merges", "2", "[\"zzzz\", \"a\"]", PN_FORMAT, "\"zzzz\"" },
        { "model.merges", "2", "[\"Z\", \"Q\"]", PN_FORMAT, "\"ZQ\"" },
        { "", "normalizer", "{\"type\": \"Lowercase\"}", PN_UNSUPPORTED, "Lowercase" },
        { "", "normalizer", "{\"type\": \"Sequence\"}", PN_FORMAT, "normalizers" },
        { "", "normalizer", "7", PN_FORMAT, "normalizer" },
        { "", "pre_tokenizer", "null", PN_UNSUPPORTED, "ByteLevel" },
        { "", "pre_tokenizer", "{\"type\": \"Whitespace\"}", PN_UNSUPPORTED, "Whitespace" },
        { "", "pre_tokenizer", "{\"type\": \"Digits\"}", PN_UNSUPPORTED, "ByteLevel" },
        { "pre_tokenizer.pretokenizers.0", "behavior", "\"Removed\"", PN_UNSUPPORTED, "Removed" },
        { "pre_tokenizer.pretokenizers.0.pattern", "Regex", "\"(\"", PN_FORMAT, "compile" },
        { "pre_tokenizer.pretokenizers.0.pattern", "Regex", "\"\"", PN_FORMAT, "pattern" },
        { "pre_tokenizer.pretokenizers.0.pattern", "Regex", "\"[a&&b]\"", PN_UNSUPPORTED, "intersection" },
        { "pre_tokenizer.pretokenizers.0.pattern", "Regex", "\"[a[b]]\"", PN_UNSUPPORTED, "set in a set" },
        { "pre_tokenizer.pretokenizers.0.pattern", "Regex", "\"[[:]\\\\C[:]\"", PN_UNSUPPORTED, "set in a set" },
        { "pre_tokenizer.pretokenizers.0.pattern", "Regex", "\"\\\\x{\\\\C}\"", PN_UNSUPPORTED, "\\x{" },
        { "pre_tokenizer.pretokenizers.0.pattern", "Regex", "\"(a)(?1)\"", PN_UNSUPPORTED, "group" },
        { "pre_tokenizer.pretokenizers.0.pattern", "Regex", "\"(*COMMIT)a\"", PN_UNSUPPORTED, "(*" },
        { "pre_tokenizer.pretokenizers.0.pattern", "Regex", "\"[a\"", PN_UNSUPPORTED, "]" },
        { "pre_tokenizer.pretokenizers.0.pattern", "Regex", "\"a\\\\\"", PN_UNSUPPORTED, "backslash" },
        { "pre_tokenizer.pretokenizers.0.pattern", "Regex", "\"\\\\Qa\"", PN_UNSUPPORTED, "escape" },
        { "pre_tokenizer.pretokenizers.0.pattern", "Regex", "\"\\\\p{L\"", PN_UNSUPPORTED, "\\p{" },
        { "pre_tokenizer.pretokenizers.0.pattern", "Regex", "\"(?i\"", PN_UNSUPPORTED, "option" },
        { "pre_tokenizer.pretokenizers.0.pattern", "Regex", "\"(?\"", PN_UNSUPPORTED, "group" },
        { "pre_tokenizer.pretokenizers.0", "pattern", "3", PN_FORMAT, "pattern" },
        { "pre_tokenizer.pretokenizers.1", "add_prefix_space", "true", PN_UNSUPPORTED, "add_prefix_space" },
        { "", "decoder", "null", PN_FORMAT, "decoder" },
        { "decoder", "type", "\"Metaspace\"", PN_UNSUPPORTED, "Metaspace" },
        { "", "post_processor", "{\"type\": \"BertProcessing\"}", PN_UNSUPPORTED, "BertProcessing" },
        { "", "post_processor",
          "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<no>\"}}]}", PN_FORMAT,
          "<no>" },
        { "", "added_tokens", "{}", PN_FORMAT, "added_tokens" },
        { "added_tokens.1", "content", NULL, PN_FORMAT, "added_tokens[1]" },
        { "added_tokens.1", "content", "\"\"", PN_FORMAT, "0 bytes" },
        { "added_tokens.1", "content", "\"<|endoftext|>\"", PN_FORMAT, "<|endoftext|>" },
        { "added_tokens.1", "id", "3", PN_FORMAT, "same id 3" },
        { "added_tokens.1", "special", "\"yes\"", PN_FORMAT, "added_tokens[1].special" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pn_tokenizer *t = NULL;
        pn_status s = open_changed(rows[i].path, rows[i].key, rows[i].value, &t);
        ck_assert_msg(s == rows[i].status, "row %zu (%s.%s): %s: %s", i, rows[i].path, rows[i].key, pn_status_text(s),
                      s ? pn_error_message() : "");
        ck_assert_msg(strstr(pn_error_message(), rows[i].says), "row %zu: \"%s\" does not say \"%s\"", i,
                      pn_error_message(), rows[i].says);
        ck_assert_msg(strstr(pn_error_message(), "changed.json"), "row %zu: no file name in %s", i, pn_error_message());
        ck_assert_ptr_null(t);
    }
    pn_tokenizer *t;
    ck_assert_int_eq(open_text("{\"model\": {\"vocab\": {\"a\": 0, \"a\": 1}}}", &t), PN_FORMAT);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), ":1:"));
    ck_assert_int_eq(open_text("", &t), PN_FORMAT);
    ck_assert_int_eq(open_text("[1, 2]", &t), PN_FORMAT);
    ck_assert_int_eq(pn_tokenizer_open("/nonexistent", &t), PN_IO);
    ck_assert_int_eq(pn_tokenizer_open(POSTNAS_SOURCE_DIR "/tests", &t), PN_IO);
}
END_TEST

START_TEST(every_truncation_is_refused) {
    static const char *const specials[] = { "<e>" };
    pn_tokenizer *t, *none;
    ck_ok(pn_tokenizer_bytes(specials, 1, &t));
    const char *path = scratch("whole.json");
    ck_ok(pn_tokenizer_write_json(t, path));
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    unlink(path);
    char *text = json_dumps(root, JSON_COMPACT);
    for (size_t n = strlen(text) - 1; n > 0; n -= n > 37 ? 37 : n) {
        text[n] = '\0';
        ck_assert_int_eq(open_text(text, &none), PN_FORMAT);
    }
    free(text);
    json_decref(root);
    pn_tokenizer_destroy(&t);
}
END_TEST

START_TEST(forms_that_mean_the_same) {
    pn_tokenizer *t = open_small(), *u;
    uint64_t hash = pn_tokenizer_hash(t);
    ck_ok(open_changed("", "normalizer", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}]}", &u));
    ck_assert_uint_eq(pn_tokenizer_hash(u), hash);
    pn_tokenizer_destroy(&u);
    ck_ok(open_changed("", "post_processor", "{\"type\": \"ByteLevel\", \"trim_offsets\": false}", &u));
    ck_assert_uint_eq(pn_tokenizer_hash(u), hash);
    pn_tokenizer_destroy(&u);
    ck_ok(open_changed("", "normalizer", "null", &u));
    ck_assert_uint_ne(pn_tokenizer_hash(u), hash);
    pn_tokenizer_destroy(&u);
    /* merges as text */
    parts a = take_apart("qwen2");
    json_t *merges = json_array();
    for (int64_t i = 0; i < a.p.n_merges; i++) json_array_append_new(merges, json_string(a.merges[i]));
    char *text = json_dumps(merges, 0);
    ck_ok(open_changed("model", "merges", text, &u));
    ck_assert_uint_eq(pn_tokenizer_hash(u), hash);
    free(text);
    json_decref(merges);
    parts_free(&a);
    pn_tokenizer_destroy(&u);
    pn_tokenizer_destroy(&t);
}
END_TEST

START_TEST(roles_come_from_the_files_beside) {
    char dir[PATH_MAX], path[PATH_MAX + 32];
    pn_tokenizer *t = open_small();
    snprintf(dir, sizeof dir, "%s", scratch("roles"));
    ck_assert_int_eq(mkdir(dir, 0700), 0);
    ck_ok(pn_tokenizer_write_dir(t, dir));
    int32_t start = pn_tokenizer_find(t, "<|im_start|>"), end = pn_tokenizer_find(t, "<|im_end|>");
    int32_t eot = pn_tokenizer_find(t, "<|endoftext|>");
    pn_tokenizer_destroy(&t);
    static const struct {
        const char *config, *model;
        int bos, eos, pad; /* 0 none, 1 start, 2 end, 3 end of text, -1 refused */
    } rows[] = {
        { "{}", "{}", 0, 3, 0 },
        { "{\"eos_token\": \"<|im_end|>\", \"pad_token\": {\"content\": \"<|endoftext|>\"}}", "{}", 0, 2, 3 },
        { "{\"eos_token\": \"<|im_end|>\"}", "{\"eos_token_id\": 700, \"bos_token_id\": 701}", 1, 2, 0 },
        { "{\"bos_token\": null}", "{\"eos_token_id\": [702, 700], \"pad_token_id\": -1}", 0, 2, 0 },
        { "{\"bos_token\": null}", "{\"eos_token_id\": 151643}", 0, 3, 0 },
        { "{\"eos_token\": \"<none>\"}", "{}", 0, -1, 0 },
        { "{", "{}", 0, -1, 0 },
    };
    const int32_t id[] = { -1, start, end, eot };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *const text[] = { rows[i].config, rows[i].model }, *const name[] = { "tokenizer_config", "config" };
        for (int k = 0; k < 2; k++) {
            snprintf(path, sizeof path, "%s/%s.json", dir, name[k]);
            FILE *f = fopen(path, "w");
            fputs(text[k], f);
            fclose(f);
        }
        pn_status s = pn_tokenizer_open(dir, &t);
        ck_assert_msg((s == PN_FORMAT) == (rows[i].eos < 0), "row %zu: %s", i, pn_status_text(s));
        if (s != PN_OK) {
            ck_assert_ptr_nonnull(strstr(pn_error_message(), "tokenizer_config.json"));
            continue;
        }
        ck_assert_int_eq(pn_tokenizer_bos(t), id[rows[i].bos]);
        ck_assert_int_eq(pn_tokenizer_eos(t), id[rows[i].eos]);
        ck_assert_int_eq(pn_tokenizer_pad(t), id[rows[i].pad]);
        pn_tokenizer_destroy(&t);
    }
    for (int k = 0; k < 3; k++) {
        static const char *const name[] = { "tokenizer_config", "config", "tokenizer" };
        snprintf(path, sizeof path, "%s/%s.json", dir, name[k]);
        unlink(path);
    }
    ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

/* The flags of added tokens, on plain bytes so that the ids can be read; each row was held to Hugging Face's. */
START_TEST(added_tokens_strip_and_stand_alone) {
    static const char *const specials[] = { "<L>", "<R>", "word", "<Rx" };
    pn_tokenizer *t;
    ck_ok(pn_tokenizer_bytes(specials, 4, &t));
    const char *path = scratch("flags.json");
    ck_ok(pn_tokenizer_write_json(t, path));
    pn_tokenizer_destroy(&t);
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    unlink(path);
    json_object_set_new(at_path(root, "added_tokens.0"), "lstrip", json_true());
    json_object_set_new(at_path(root, "added_tokens.1"), "rstrip", json_true());
    json_object_set_new(at_path(root, "added_tokens.2"), "single_word", json_true());
    char *text = json_dumps(root, 0);
    ck_ok(open_text(text, &t));
    free(text);
    json_decref(root);
    ASSERT_IDS(t, "a \n<L> b", true, 'a', 256, ' ', 'b');
    ASSERT_IDS(t,
               "a <R> \xe3\x80\x80"
               "b",
               true, 'a', ' ', 257, 'b');
    ASSERT_IDS(t, "<R> <L>", true, 257, 256);
    ASSERT_IDS(t, "a word.", true, 'a', ' ', 258, '.');
    ASSERT_IDS(t, "words", true, 'w', 'o', 'r', 'd', 's');
    ASSERT_IDS(t, "\xc3\xa9word", true, 0xc3, 0xa9, 'w', 'o', 'r', 'd');
    ASSERT_IDS(t, "<Rx<R", true, 259, '<', 'R');
    pn_tokenizer_destroy(&t);
}
END_TEST

/* Patterns of one piece each, translated and matched whole. */
START_TEST(patterns_mean_what_oniguruma_means) {
    static const struct {
        const char *pattern, *text;
        bool matches;
    } rows[] = {
        { "\\s", "\xe1\xa0\x8e", false }, /* U+180E */
        { "\\S", "\xe1\xa0\x8e", true },
        { "[\\s]", "\xe1\xa0\x8e", false },
        { "[^\\s]", "\xe1\xa0\x8e", true },
        { "[\\S]", "\xe1\xa0\x8e", true },
        { "[\\S]", "\xc2\x85", false },
        { "\\s", "\xc2\x85", true },
        { "\\s", "\xe2\x80\x8b", false },
        { "\\s", "\xef\xbb\xbf", false },
        { "\\s", "\xe3\x80\x80", true },
        { "[\\s-z]", "-", true },
        { "[\\s-z]", "m", false },
        { "\\p{L}", "\xf0\xb1\x8d\x90", true }, /* U+31350, a letter since Unicode 15 */
        { "\\P{L}", "\xf0\xb1\x8d\x90", false },
        { "\\p{^L}", "\xf0\xb1\x8d\x90", false },
        { "[^\\p{L}]", "\xf0\xb1\x8d\x90", false },
        { "\\h", "f", true },
        { "\\h", " ", false },
        { "\\w", "\xc2\xbd", true }, /* one half */
        { "\\w", "_", true },
        { "\\W", "-", true },
        { "\\w", "\xcc\x81", true }, /* a combining mark */
        { "\\u0041\\x{42}+\\x43", "ABBC", true },
        { "a{,2}b", "aab", true },
        { "(?i:'s)", "'\xc5\xbf", true }, /* long s */
        { "a.b", "a\rb", true },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *translated, whole[4096];
        ck_ok(pn_tok_translate("test", rows[i].pattern, false, &translated));
        snprintf(whole, sizeof whole, "\\A(?:%s)\\z", translated);
        free(translated);
        int error;
        PCRE2_SIZE at;
        pcre2_code *code =
            pcre2_compile((PCRE2_SPTR)whole, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
        ck_assert_msg(code, "row %zu: %s", i, whole);
        pcre2_match_data *m = pcre2_match_data_create(1, NULL);
        int rc = pcre2_match(code, (PCRE2_SPTR)rows[i].text, strlen(rows[i].text), 0, 0, m, NULL);
        ck_assert_msg((rc >= 0) == rows[i].matches, "row %zu: %s gives %d", i, rows[i].pattern, rc);
        pcre2_match_data_free(m);
        pcre2_code_free(code);
    }
}
END_TEST

TEST_MAIN("tokenizer", small_tokenizer_gives_expected_ids, qwen_tokenizer_gives_expected_ids, check_reports_mismatches,
          gguf_names_split_as_their_models_do, parts_equal_json_and_survive_writing, padding_tokens_are_no_tokens,
          broken_parts_are_refused, byte_tokenizer_is_the_identity, special_tokens_are_text_unless_asked_for,
          invalid_utf8_is_named_by_its_offset, normalising_by_runs_equals_normalising_whole,
          fast_merging_equals_naive_merging, a_very_long_word_takes_no_time, threads_share_a_tokenizer,
          broken_files_are_refused_by_name, every_truncation_is_refused, forms_that_mean_the_same,
          roles_come_from_the_files_beside, added_tokens_strip_and_stand_alone, patterns_mean_what_oniguruma_means)
