/* Token shards: what goes in comes out, and nothing that was changed on disk gets in. */
#include "token_shards.h"

#include "io_fixture.h"

enum { DOCS = 60 };
static const char *const skills[] = { "recall", "facts" };

static int run(const char *format, const char *a, const char *b) {
    char command[1024];
    snprintf(command, sizeof command, format, a, b);
    return system(command);
}

/* Document i: a length and ids that depend on i in no regular way; every third has answers, every sixth lists choices.
 */
static void make_doc(int i, int64_t vocab, pn_token_doc *d) {
    uint64_t x = (uint64_t)i * 2654435761u + 12345;
    int64_t n = 3 + (int64_t)(x % 700);
    pn_token_doc_clear(d);
    for (int64_t k = 0; k < n; k++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        int32_t id = (int32_t)((x >> 33) % (uint64_t)vocab);
        ck_ok(pn_token_doc_append(d, &id, 1, (pn_token_class)((x >> 20) % PN_CLASS_COUNT)));
    }
    if (i % 3) return;
    pn_answer a = {
        .begin = 1, .end = 2, .distance = 1, .skill = 0, .n_choices = 26, .gold = -1, .chance = 1.0 / 26, .choice = -1
    };
    ck_ok(pn_token_doc_answer(d, &a));
    if (i % 6) return;
    const int32_t words[] = { 1, 0, 1, 1 };
    for (int c = 0; c < 4; c++) ck_ok(pn_token_doc_choice(d, words + c, c == 2 ? 2 : 1));
    a = (pn_answer){ .begin = 2, .end = 3, .skill = 1, .n_choices = 4, .gold = i / 6 % 4, .chance = 0.25, .choice = 0 };
    ck_ok(pn_token_doc_answer(d, &a));
}

static pn_token_writer_config config(const char *dir, int64_t vocab) {
    return (pn_token_writer_config){ .dir = dir,
                                     .tokenizer_hash = 0xfedcba9876543210u,
                                     .vocab = vocab,
                                     .source = "a test",
                                     .split = "train",
                                     .seed = 7,
                                     .shard_tokens = 5000,
                                     .classes = true,
                                     .skills = skills,
                                     .n_skills = 2 };
}

static void write_set(const char *dir, int64_t vocab) {
    ck_assert_int_eq(run("rm -rf %s%s", dir, ""), 0); /* of an earlier test, where all run in one process */
    pn_token_writer_config c = config(dir, vocab);
    pn_token_writer *w;
    pn_token_doc d = { 0 };
    ck_ok(pn_token_writer_open(&c, &w));
    for (int i = 0; i < DOCS; i++) {
        make_doc(i, vocab, &d);
        ck_ok(pn_token_writer_add(w, &d));
    }
    ck_assert_int_eq(pn_token_writer_docs(w), DOCS);
    ck_ok(pn_token_writer_close(&w));
    ck_assert_ptr_null(w);
    pn_token_doc_free(&d);
}

static void same_doc(const pn_token_doc *a, const pn_token_doc *b) {
    ck_assert_int_eq(a->n, b->n);
    ck_assert_mem_eq(a->tokens, b->tokens, (size_t)a->n * sizeof *a->tokens);
    ck_assert_mem_eq(a->token_class, b->token_class, (size_t)a->n);
    ck_assert_int_eq(a->n_answers, b->n_answers);
    for (int64_t i = 0; i < a->n_answers; i++) {
        const pn_answer *x = &a->answers[i], *y = &b->answers[i];
        ck_assert(x->begin == y->begin && x->end == y->end && x->distance == y->distance && x->skill == y->skill &&
                  x->n_choices == y->n_choices && x->gold == y->gold && x->chance == y->chance &&
                  x->choice == y->choice);
    }
    ck_assert_int_eq(a->n_choices, b->n_choices);
    if (!a->n_choices) return;
    ck_assert_mem_eq(a->choice_begin, b->choice_begin, (size_t)(a->n_choices + 1) * sizeof *a->choice_begin);
    ck_assert_mem_eq(a->choice_tokens, b->choice_tokens,
                     (size_t)a->choice_begin[a->n_choices] * sizeof *a->choice_tokens);
}

static void round_trip(int64_t vocab, const char *name) {
    write_set(scratch(name), vocab);
    pn_token_set *set;
    ck_ok(pn_token_set_open(scratch(name), &set));
    ck_ok(pn_token_set_verify(set));
    const pn_token_info *info = pn_token_set_info(set);
    ck_assert_int_eq(info->n_docs, DOCS);
    ck_assert_int_ge(info->n_shards, 3);
    ck_assert_str_eq(info->split, "train");
    ck_assert_str_eq(info->skills[1], "facts");
    ck_assert_uint_eq(info->seed, 7);
    ck_ok(pn_token_set_needs(set, 0xfedcba9876543210u));
    /* The whole set at once, against the documents one by one. */
    int32_t *all = malloc((size_t)info->n_tokens * sizeof *all), *part = malloc((size_t)info->n_tokens * sizeof *part);
    int64_t *offsets = malloc((size_t)(info->n_tokens + 1) * sizeof *offsets), n_docs, at = 0;
    ck_ok(pn_token_set_read(set, 0, info->n_tokens, all));
    ck_ok(pn_token_set_offsets(set, 0, info->n_tokens, offsets, &n_docs));
    ck_assert_int_eq(n_docs, DOCS);
    pn_token_doc want = { 0 }, got = { 0 };
    for (int i = 0; i < DOCS; i++) {
        make_doc(i, vocab, &want);
        ck_ok(pn_token_set_doc(set, i, &got));
        same_doc(&want, &got);
        int64_t begin, n;
        ck_ok(pn_token_set_doc_range(set, i, &begin, &n));
        ck_assert(begin == at && n == want.n && offsets[i] == begin && offsets[i + 1] == begin + n);
        ck_assert_mem_eq(all + begin, want.tokens, (size_t)n * sizeof *all);
        at += n;
    }
    ck_assert_int_eq(at, info->n_tokens);
    /* Windows anywhere, across shards too; their offsets are the set's, cut. */
    for (int64_t begin = 0; begin < info->n_tokens; begin += 331) {
        int64_t n = info->n_tokens - begin < 6000 ? info->n_tokens - begin : 6000, cut[6001], d = 0;
        ck_ok(pn_token_set_read(set, begin, n, part));
        ck_assert_mem_eq(part, all + begin, (size_t)n * sizeof *part);
        ck_ok(pn_token_set_offsets(set, begin, n, cut, &n_docs));
        for (int i = 0; i <= DOCS; i++)
            if (offsets[i] > begin && offsets[i] < begin + n) ck_assert_int_eq(cut[++d], offsets[i] - begin);
        ck_assert_int_eq(n_docs, d + 1);
        ck_assert(cut[0] == 0 && cut[n_docs] == n);
    }
    ck_assert_int_eq(pn_token_set_read(set, info->n_tokens - 1, 2, part), PN_USAGE);
    ck_assert_int_eq(pn_token_set_read(set, INT64_MAX, 1, part), PN_USAGE);
    ck_assert_int_eq(pn_token_set_doc(set, DOCS, &got), PN_USAGE);
    pn_token_doc_free(&want);
    pn_token_doc_free(&got);
    free(offsets);
    free(part);
    free(all);
    pn_token_set_close(&set);
}

START_TEST(narrow_and_wide_ids_come_back) {
    round_trip(300, "narrow");
    round_trip(65536, "edge");
    round_trip(151665, "wide");
}
END_TEST

START_TEST(equal_input_gives_equal_files) {
    write_set(scratch("a"), 300);
    sleep(1); /* a time stamp anywhere would differ */
    write_set(scratch("b"), 300);
    ck_assert_int_eq(run("diff -r %s %s", scratch("a"), scratch("b")), 0);
}
END_TEST

/* Opens and verifies; what a reader of the whole set would see. */
static pn_status read_everything(const char *dir) {
    pn_token_set *set;
    PN_TRY(pn_token_set_open(dir, &set));
    pn_status s = pn_token_set_verify(set);
    pn_token_set_close(&set);
    return s;
}

static void expect(const char *dir, pn_status want, const char *word) {
    ck_refused(read_everything(dir), want, word);
}

START_TEST(damage_is_named) {
    char dir[256];
    snprintf(dir, sizeof dir, "%s", scratch("set"));
    write_set(dir, 300);
    ck_ok(read_everything(dir));
    ck_assert_int_eq(run("cp -r %s %s", dir, scratch("good")), 0);
    /* every place of a shard matters: one changed byte in each 1/16 of it */
    struct stat st;
    ck_assert_int_eq(stat(scratch("set/shard-00001.h5"), &st), 0);
    for (int k = 0; k < 16; k++) {
        FILE *f = fopen(scratch("set/shard-00001.h5"), "r+b");
        long at = (long)(st.st_size * k / 16 + 5);
        fseek(f, at, SEEK_SET);
        int c = fgetc(f);
        fseek(f, at, SEEK_SET);
        fputc(c ^ 1, f);
        fclose(f);
        expect(dir, PN_FORMAT, "shard-00001.h5: changed");
        f = fopen(scratch("set/shard-00001.h5"), "r+b");
        fseek(f, at, SEEK_SET);
        fputc(c, f);
        fclose(f);
    }
    ck_ok(read_everything(dir));
    ck_assert_int_eq(truncate(scratch("set/shard-00001.h5"), st.st_size - 1), 0);
    expect(dir, PN_FORMAT, "shard-00001.h5: ");
    expect(dir, PN_FORMAT, "cut short");
    ck_assert_int_eq(unlink(scratch("set/shard-00001.h5")), 0);
    expect(dir, PN_IO, "missing");
    ck_assert_int_eq(run("cp %s %s", scratch("good/shard-00002.h5"), scratch("set/shard-00001.h5")), 0);
    expect(dir, PN_FORMAT, "shard-00001.h5");
    expect(scratch("nowhere"), PN_IO, "manifest");
}
END_TEST

START_TEST(a_shard_changed_while_open_is_noticed) {
    write_set(scratch("set"), 300);
    pn_token_set *set;
    ck_ok(pn_token_set_open(scratch("set"), &set)); /* nothing is hashed yet */
    FILE *f = fopen(scratch("set/shard-00000.h5"), "r+b");
    fseek(f, 4000, SEEK_SET);
    fputc('!', f);
    fclose(f);
    int32_t token;
    ck_assert_int_eq(pn_token_set_read(set, 0, 1, &token), PN_FORMAT);
    pn_token_set_close(&set);
}
END_TEST

static void put_byte(const char *path, char c) {
    usleep(20000); /* times of files have the kernel's ticks */
    FILE *f = fopen(path, "r+b");
    fseek(f, 4000, SEEK_SET);
    fputc(c, f);
    fclose(f);
}

/* What was read and found right is looked at again once somebody has written to it. */
START_TEST(a_shard_changed_after_it_was_read_is_noticed) {
    write_set(scratch("set"), 300);
    char path[256];
    pn_token_set *set;
    int32_t token;
    strcpy(path, scratch("set/shard-00000.h5"));
    ck_ok(pn_token_set_open(scratch("set"), &set));
    ck_ok(pn_token_set_read(set, 0, 1, &token));
    FILE *f = fopen(path, "rb");
    fseek(f, 4000, SEEK_SET);
    const char was = (char)fgetc(f);
    fclose(f);
    put_byte(path, was);
    ck_ok(pn_token_set_read(set, 0, 1, &token)); /* written to, and the same */
    put_byte(path, (char)(was + 1));
    ck_assert_int_eq(pn_token_set_read(set, 0, 1, &token), PN_FORMAT);
    ck_assert_int_eq(pn_token_set_read(set, 0, 1, &token), PN_FORMAT);
    put_byte(path, was);
    ck_ok(pn_token_set_read(set, 0, 1, &token));
    ck_assert_int_eq(remove(path), 0);
    ck_ok(pn_token_set_read(set, 0, 1, &token)); /* open still */
    pn_token_set_close(&set);
}
END_TEST

static size_t read_text(const char *path, char *text, size_t room) {
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    size_t n = fread(text, 1, room - 1, f);
    fclose(f);
    text[n] = '\0';
    return n;
}

/* Replaces the first `from` in the set's manifest, expects a refusal, and puts the manifest back. */
static void forge(const char *from, const char *to, pn_status want, const char *word) {
    static char kept[1 << 16], changed[1 << 16];
    read_text(scratch("set/manifest.json"), kept, sizeof kept);
    const char *at = strstr(kept, from);
    ck_assert_msg(at != NULL, "no %s in the manifest", from);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - kept), kept, to, at + strlen(from));
    write_text(scratch("set/manifest.json"), changed);
    expect(scratch("set"), want, word);
    write_text(scratch("set/manifest.json"), kept);
}

START_TEST(a_forged_manifest_is_refused) {
    write_set(scratch("set"), 300);
    forge("postnas-token-shards", "other", PN_FORMAT, "not a manifest");
    forge("\"version\": 1", "\"version\": 9", PN_UNSUPPORTED, "version 9");
    forge("shard-00001.h5", "../../etc/passwd", PN_FORMAT, "expected \"shard-00001.h5\"");
    forge("\"n_tokens\": ", "\"n_tokens\": 99999999", PN_FORMAT, "cannot hold");
    forge("\"n_tokens\": ", "\"n_tokens\": -", PN_FORMAT, "n_tokens");
    forge("\"n_docs\": 1", "\"n_docs\": 2", PN_FORMAT, "doc_offsets");
    forge("\"vocab\": 300", "\"vocab\": 3", PN_FORMAT, "outside the vocabulary");
    forge("\"vocab\": 300", "\"vocab\": 70000", PN_FORMAT, "element type");
    forge("\"token_class\": true", "\"token_class\": 1", PN_FORMAT, "token_class");
    forge("\"n_bytes\": ", "\"n_bytes\": 1", PN_FORMAT, "bytes");
    forge("\"xxh3_64\": \"", "\"xxh3_64\": \"z", PN_FORMAT, "hexadecimal");
    forge("\"shards\": [", "\"shards\": [3,", PN_FORMAT, "shards[0]");
    forge("{", "{{", PN_FORMAT, "manifest.json:1");
    ck_ok(read_everything(scratch("set")));
}
END_TEST

START_TEST(another_tokenizer_is_refused) {
    write_set(scratch("set"), 300);
    pn_token_set *set;
    ck_ok(pn_token_set_open(scratch("set"), &set));
    ck_assert_int_eq(pn_token_set_needs(set, 1), PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "another tokenizer"));
    pn_token_set_close(&set);
}
END_TEST

START_TEST(nothing_is_left_behind) {
    char root[256], dir[300];
    snprintf(root, sizeof root, "%s", scratch("folder"));
    snprintf(dir, sizeof dir, "%s/set", root);
    ck_assert_int_eq(mkdir(root, 0777), 0);
    pn_token_writer_config c = config(dir, 300);
    pn_token_writer *w;
    pn_token_doc d = { 0 };
    make_doc(0, 300, &d);
    ck_ok(pn_token_writer_open(&c, &w));
    ck_ok(pn_token_writer_add(w, &d));
    ck_assert_int_ne(access(c.dir, F_OK), 0); /* not before it is whole */
    d.tokens[0] = 300;
    ck_assert_int_eq(pn_token_writer_add(w, &d), PN_USAGE);
    d.tokens[0] = -1;
    ck_assert_int_eq(pn_token_writer_add(w, &d), PN_USAGE);
    d.tokens[0] = 0;
    d.answers[0].end = d.n + 1;
    ck_assert_int_eq(pn_token_writer_add(w, &d), PN_USAGE);
    d.answers[0].end = 2;
    d.answers[1].choice = 2;
    ck_assert_int_eq(pn_token_writer_add(w, &d), PN_USAGE);
    pn_token_writer_abort(&w);
    ck_ok(pn_token_writer_open(&c, &w));
    ck_assert_int_eq(pn_token_writer_close(&w), PN_USAGE); /* no document */
    ck_assert_ptr_null(w);
    ck_assert_int_eq(rmdir(root), 0); /* empty */
    write_text(root, "a file where a directory should be");
    ck_assert_int_eq(pn_token_writer_open(&c, &w), PN_IO);
    ck_assert_int_eq(unlink(root), 0);
    ck_ok(pn_token_writer_open(&c, &w)); /* folders above are made */
    pn_token_writer_abort(&w);
    c.dir = root;
    ck_ok(pn_token_writer_open(&c, &w)); /* an empty directory is fine */
    pn_token_writer_abort(&w);
    write_text(dir, "something");
    ck_refused(pn_token_writer_open(&c, &w), PN_USAGE, "not an empty directory");
    pn_token_doc_free(&d);
}
END_TEST

TEST_MAIN("token_shards", narrow_and_wide_ids_come_back, equal_input_gives_equal_files, damage_is_named,
          a_shard_changed_while_open_is_noticed, a_shard_changed_after_it_was_read_is_noticed,
          a_forged_manifest_is_refused, another_tokenizer_is_refused, nothing_is_left_behind)
