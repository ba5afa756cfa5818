/* Documents out of text files: what is cut where, and what is refused with which message. */
#include "text_source.h"

#include <zlib.h>

#include "io_fixture.h"

/* All documents of the files, each followed by '|'. */
static pn_status read_all(const pn_text_source_config *config, char *out, size_t room) {
    pn_text_source *s;
    *out = '\0';
    PN_TRY(pn_text_source_open(config, &s));
    size_t at = 0;
    pn_status status;
    for (;;) {
        const char *text;
        size_t n;
        status = pn_text_source_next(s, &text, &n);
        if (status || !text) break;
        ck_assert_uint_lt(at + n + 1, room);
        memcpy(out + at, text, n);
        at += n;
        out[at++] = '|';
        out[at] = '\0';
    }
    if (!status) ck_assert_int_eq(pn_text_source_bytes_read(s), pn_text_source_bytes(s));
    pn_text_source_close(&s);
    ck_assert_ptr_null(s);
    return status;
}

static char got[1 << 16];

static pn_status read_one(const char *content, pn_text_format format, bool repair) {
    const char *file = scratch("input");
    write_text(file, content);
    return read_all(&(pn_text_source_config){ .files = &file, .n_files = 1, .format = format, .repair = repair }, got,
                    sizeof got);
}

static void reads(const char *content, pn_text_format format, const char *want) {
    ck_ok(read_one(content, format, false));
    ck_assert_str_eq(got, want);
}

START_TEST(documents_are_cut_as_asked) {
    reads("a\n\nb\n", PN_TEXT_FILE, "a\n\nb\n|");
    reads("", PN_TEXT_FILE, "");
    reads(" \n\t\n", PN_TEXT_FILE, "");
    reads("\xEF\xBB\xBF"
          "bom",
          PN_TEXT_FILE, "bom|");
    reads("a\nb\n\n \n\t\nc\n", PN_TEXT_PARAGRAPHS, "a\nb\n|c\n|");
    reads("\n\n\na\n\n\n", PN_TEXT_PARAGRAPHS, "a\n|");
    reads("a\r\n\r\nb", PN_TEXT_PARAGRAPHS, "a\r\n|b|");
    reads("a\fb\n\f\f c \f", PN_TEXT_PAGES, "a|b\n| c |");
    reads("{\"text\":\"a\\nb\"}\n\n{\"n\":1,\"text\":\"\"}\r\n{\"text\":\"\\u00e9\"}", PN_TEXT_JSONL, "a\nb|\xC3\xA9|");
}
END_TEST

START_TEST(long_documents_span_blocks) {
    enum { N = 300000 };
    char *big = malloc(N + 8);
    memset(big, 'x', N);
    for (int i = 1000; i < N; i += 1000) big[i] = '\n';
    strcpy(big + N, "\n\nend\n");
    const char *file = scratch("big");
    write_text(file, big);
    pn_text_source_config c = { .files = &file, .n_files = 1, .format = PN_TEXT_PARAGRAPHS };
    pn_text_source *s;
    const char *text;
    size_t n;
    ck_ok(pn_text_source_open(&c, &s));
    ck_ok(pn_text_source_next(s, &text, &n));
    ck_assert_uint_eq(n, N + 1);
    ck_assert_mem_eq(text, big, n);
    ck_ok(pn_text_source_next(s, &text, &n));
    ck_assert_uint_eq(n, 4);
    ck_assert_ptr_nonnull(strstr(pn_text_source_where(s), "big:302"));
    ck_ok(pn_text_source_next(s, &text, &n));
    ck_assert_ptr_null(text);
    pn_text_source_close(&s);
    c.max_doc_bytes = 1000;
    ck_ok(pn_text_source_open(&c, &s));
    ck_refused(pn_text_source_next(s, &text, &n), PN_FORMAT, "big:1", "more than 1000 bytes");
    pn_text_source_close(&s);
    free(big);
}
END_TEST

START_TEST(broken_lines_are_named) {
    ck_refused(read_one("{\"text\":\"a\"}\n{\"text\":\n", PN_TEXT_JSONL, false), PN_FORMAT, "input:2",
               "not a line of JSON");
    ck_assert_str_eq(got, "a|");
    ck_refused(read_one("{\"text\":\"a\"}\n\n[1]\n", PN_TEXT_JSONL, false), PN_FORMAT, "input:3", "object");
    ck_refused(read_one("{\"content\":\"a\"}\n", PN_TEXT_JSONL, false), PN_FORMAT, "input:1", "\"text\"", "--field");
    ck_refused(read_one("{\"text\":7}\n", PN_TEXT_JSONL, false), PN_FORMAT, "input:1", "\"text\"");
    ck_refused(read_one("{\"text\":\"\\ud800\"}\n", PN_TEXT_JSONL, false), PN_FORMAT, "input:1");
    const char *file = scratch("other");
    write_text(file, "{\"body\":\"b\"}\n");
    ck_ok(read_all(&(pn_text_source_config){ .files = &file, .n_files = 1, .format = PN_TEXT_JSONL, .field = "body" },
                   got, sizeof got));
    ck_assert_str_eq(got, "b|");
}
END_TEST

START_TEST(other_encodings_are_refused_or_repaired) {
    ck_refused(read_one("fine\n\nbad \xE9 byte\n", PN_TEXT_PARAGRAPHS, false), PN_FORMAT, "input", "byte 10",
               "--repair");
    ck_ok(read_one("bad \xE9 byte", PN_TEXT_FILE, true));
    ck_assert_str_eq(got, "bad \xEF\xBF\xBD byte|");
    ck_refused(read_one("{\"text\":\"\xFF\"}\n", PN_TEXT_JSONL, false), PN_FORMAT, "byte 9");
    ck_ok(read_one("{\"text\":\"\xFF\"}\n", PN_TEXT_JSONL, true));
    ck_assert_str_eq(got, "\xEF\xBF\xBD|");
}
END_TEST

START_TEST(gzip_reads_like_plain) {
    const char *file = scratch("packed.gz");
    enum { N = 200000 };
    char *text = malloc(N);
    for (int i = 0; i < N; i++) text[i] = (char)(i % 97 == 96 ? '\n' : 'a' + (i * 7919 >> 4) % 26);
    gzFile z = gzopen(file, "wb");
    ck_assert_int_eq(gzwrite(z, text, N), N);
    ck_assert_int_eq(gzclose(z), Z_OK);
    pn_text_source_config c = { .files = &file, .n_files = 1 };
    pn_text_source *s;
    const char *out;
    size_t n;
    ck_ok(pn_text_source_open(&c, &s));
    ck_ok(pn_text_source_next(s, &out, &n));
    ck_assert_uint_eq(n, N);
    ck_assert_mem_eq(out, text, N);
    pn_text_source_close(&s);
    struct stat st;
    ck_assert_int_eq(stat(file, &st), 0);
    ck_assert_int_eq(truncate(file, st.st_size / 2), 0);
    ck_ok(pn_text_source_open(&c, &s));
    ck_refused(pn_text_source_next(s, &out, &n), PN_FORMAT, "packed.gz", "cut short or damaged");
    pn_text_source_close(&s);
    free(text);
}
END_TEST

START_TEST(files_are_looked_at_first) {
    const char *files[] = { scratch("there"), scratch("nowhere") };
    write_text(files[0], "a");
    pn_text_source *s;
    ck_refused(pn_text_source_open(&(pn_text_source_config){ .files = files, .n_files = 2 }, &s), PN_IO, "nowhere");
    ck_assert_ptr_null(s);
    files[1] = scratch_dir;
    ck_refused(pn_text_source_open(&(pn_text_source_config){ .files = files, .n_files = 2 }, &s), PN_IO,
               "is a directory");
    files[1] = files[0];
    ck_ok(read_all(&(pn_text_source_config){ .files = files, .n_files = 2 }, got, sizeof got));
    ck_assert_str_eq(got, "a|a|");
}
END_TEST

TEST_MAIN("text_source", documents_are_cut_as_asked, long_documents_span_blocks, broken_lines_are_named,
          other_encodings_are_refused_or_repaired, gzip_reads_like_plain, files_are_looked_at_first)
