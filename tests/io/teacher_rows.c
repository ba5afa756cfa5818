/* Teacher rows: what goes in comes out, the same bytes however often the writer was stopped, and nothing that was
 * changed on disk gets in. */
#include "teacher_rows.h"

#include <math.h>

#include "files.h"
#include "full_disk.h"
#include "hdf5_io.h"
#include "io_fixture.h"

enum { T = 6, K = 4, VOCAB = 50, ROW = T * K, SHARD_ROWS = 3, SHARD_BYTES = SHARD_ROWS * ROW * 8, ROWS = 8 };

static pn_teacher_info info(void) {
    return (pn_teacher_info){ .teacher = "models/big",
                              .teacher_hash = 0x1111111111111111u,
                              .tokenizer_hash = 0xfedcba9876543210u,
                              .mixture_hash = 0x123456789abcdef0u,
                              .vocab = VOCAB,
                              .sequence_length = T,
                              .k = K,
                              .temperature = 1.5 };
}

static void make_row(int64_t row, int32_t *ids, float *log_p) {
    for (int64_t t = 0; t < T; t++)
        for (int64_t j = 0; j < K; j++) {
            ids[t * K + j] = (int32_t)(j * 12 + (row * 7 + t * 5 + j) % 12);
            log_p[t * K + j] = -1.5f - 0.01f * (float)((row + t + j) % 9);
        }
}

/* Rows first .. end - 1, `each` at a time. */
static void add_rows(pn_teacher_writer *w, int64_t first, int64_t end, int64_t each) {
    int32_t ids[ROWS * ROW];
    float log_p[ROWS * ROW];
    for (int64_t some; first < end; first += some) {
        some = end - first < each ? end - first : each;
        for (int64_t i = 0; i < some; i++) make_row(first + i, ids + i * ROW, log_p + i * ROW);
        ck_ok(pn_teacher_writer_add(w, some, ids, log_p));
    }
}

static void write_rows(const char *dir, int64_t rows, int64_t each) {
    const pn_teacher_info o = info();
    pn_teacher_writer *w;
    ck_ok(pn_teacher_writer_open(dir, &o, SHARD_BYTES, &w));
    add_rows(w, pn_teacher_writer_rows(w), rows, each);
    ck_assert_int_eq(pn_teacher_writer_rows(w), rows);
    ck_ok(pn_teacher_writer_save(w));
    pn_teacher_writer_close(&w);
}

static const char *file_in(const char *dir, const char *name) {
    static char path[4][PN_PATH_MAX];
    static unsigned next;
    char *p = path[next++ % 4];
    ck_ok(pn_path_join(p, dir, name));
    return p;
}

static const char *fresh(const char *name) {
    const char *dir = scratch(name);
    ck_ok(pn_remove_tree(dir));
    return dir;
}

static void same_file(const char *a, const char *b, const char *name) {
    uint64_t x, y;
    int64_t n, m;
    ck_ok(pn_file_hash(file_in(a, name), &x, &n));
    ck_ok(pn_file_hash(file_in(b, name), &y, &m));
    ck_assert_msg(x == y && n == m, "%s differs", name);
}

static void holds_rows(const char *dir, int64_t rows) {
    pn_teacher_rows *r;
    int32_t ids[ROWS * ROW], want_ids[ROW];
    float log_p[ROWS * ROW], want_log_p[ROW];
    ck_ok(pn_teacher_rows_open(dir, &r));
    ck_assert_int_eq(pn_teacher_rows_count(r), rows);
    ck_assert_str_eq(pn_teacher_rows_info(r)->teacher, "models/big");
    ck_assert_double_eq(pn_teacher_rows_info(r)->temperature, 1.5);
    for (int64_t first = rows - 1; first >= 0; first--)
        for (int64_t n = 0; n <= rows - first; n++) {
            ck_ok(pn_teacher_rows_read(r, first, n, ids, log_p));
            for (int64_t i = 0; i < n; i++) {
                make_row(first + i, want_ids, want_log_p);
                ck_assert_mem_eq(ids + i * ROW, want_ids, sizeof want_ids);
                ck_assert_mem_eq(log_p + i * ROW, want_log_p, sizeof want_log_p);
            }
        }
    ck_refused(pn_teacher_rows_read(r, rows, 1, ids, log_p), PN_USAGE, "were asked for");
    ck_refused(pn_teacher_rows_read(r, -1, 1, ids, log_p), PN_USAGE, "were asked for");
    ck_refused(pn_teacher_rows_read(r, INT64_MAX, 1, ids, log_p), PN_USAGE, "were asked for");
    pn_teacher_rows_close(&r);
}

START_TEST(rows_come_back_and_a_stopped_writer_ends_with_the_same_bytes) {
    const char *once = fresh("once"), *often = fresh("often");
    write_rows(once, ROWS, ROWS);
    holds_rows(once, ROWS);
    for (int64_t rows = 1; rows <= ROWS; rows++) {
        write_rows(often, rows, 2);
        holds_rows(often, rows);
        write_rows(often, rows, 2); /* nothing to do */
    }
    static const char *const files[] = { "manifest.json", "rows-00000.h5", "rows-00001.h5", "rows-00002-to-2.h5" };
    for (int i = 0; i < 4; i++) same_file(once, often, files[i]);
    ck_assert(!pn_file_exists(file_in(often, "rows-00002-to-1.h5")));
    /* A writer that never saved has its whole shards, no more. */
    const pn_teacher_info o = info();
    const char *killed = fresh("killed");
    pn_teacher_writer *w;
    ck_ok(pn_teacher_writer_open(killed, &o, SHARD_BYTES, &w));
    add_rows(w, 0, 5, 5);
    pn_teacher_writer_close(&w);
    holds_rows(killed, SHARD_ROWS);
    write_rows(killed, ROWS, 3);
    for (int i = 0; i < 4; i++) same_file(once, killed, files[i]);
}
END_TEST

START_TEST(rows_of_something_else_are_not_added_to) {
    const char *dir = fresh("others");
    pn_teacher_writer *w, *second;
    write_rows(dir, 2, 2);
    pn_teacher_info o[6];
    for (int i = 0; i < 6; i++) o[i] = info();
    o[0].teacher_hash++;
    o[1].tokenizer_hash++;
    o[2].sequence_length++;
    o[3].mixture_hash++;
    o[4].k--;
    o[5].temperature = 1;
    static const char *const what[] = {
        "teacher", "tokenizer", "sequence length", "mixture or seed", "k", "temperature"
    };
    for (int i = 0; i < 6; i++)
        ck_refused(pn_teacher_writer_open(dir, &o[i], SHARD_BYTES, &w), PN_USAGE, "rows of another", what[i],
                   "remove this one to start over");
    const pn_teacher_info same = info();
    ck_ok(pn_teacher_writer_open(dir, &same, SHARD_BYTES, &w));
    ck_refused(pn_teacher_writer_open(dir, &same, SHARD_BYTES, &second), PN_USAGE, "another process");
    pn_teacher_writer_close(&w);
    const char *full = fresh("full");
    ck_ok(pn_make_directories(full));
    write_text(file_in(full, "letter.txt"), "mine");
    ck_refused(pn_teacher_writer_open(full, &same, SHARD_BYTES, &w), PN_USAGE, "other files");
}
END_TEST

/* Killed while it wrote its first shard or manifest, or another shard, a writer leaves what no manifest names. */
START_TEST(unfinished_files_are_written_again) {
    static const char *const files[] = { "manifest.json", "rows-00000.h5", "rows-00001.h5", "rows-00002-to-2.h5" };
    static const char *const left[] = { "rows-00000.h5", "rows-00000-to-2.h5", "manifest.json.tmp" };
    static const char *const not_ours[] = { "rows-00001.h5", "rows-0.h5", "rows-00000.h5.old", "rows-00000-to-0.h5" };
    const char *once = fresh("once"), *dir = fresh("left");
    const pn_teacher_info o = info();
    pn_teacher_writer *w;
    write_rows(once, ROWS, ROWS);
    ck_ok(pn_make_directories(dir));
    for (int i = 0; i < 3; i++) write_text(file_in(dir, left[i]), "part of it");
    write_rows(dir, 4, 2);
    write_text(file_in(dir, "rows-00001-to-2.h5"), "part of it");
    write_text(file_in(dir, "rows-00002.h5"), "part of it");
    write_rows(dir, ROWS, 2);
    for (int i = 0; i < 4; i++) same_file(once, dir, files[i]);
    ck_assert(!pn_file_exists(file_in(dir, "rows-00000-to-2.h5")));
    ck_assert(!pn_file_exists(file_in(dir, "rows-00001-to-2.h5")));
    ck_assert(!pn_file_exists(file_in(dir, "rows-00002.h5")));
    for (int i = 0; i < 4; i++) {
        dir = fresh("not-ours");
        ck_ok(pn_make_directories(dir));
        write_text(file_in(dir, left[0]), "part of it");
        write_text(file_in(dir, not_ours[i]), "mine");
        ck_refused(pn_teacher_writer_open(dir, &o, SHARD_BYTES, &w), PN_USAGE, "other files");
        ck_assert(pn_file_exists(file_in(dir, left[0])));
    }
}
END_TEST

/* Nothing of a shard that did not fit takes up the disk, and with room again the same writer goes on. */
START_TEST(a_full_disk_leaves_no_part_of_a_shard) {
    const pn_teacher_info o = info();
    pn_teacher_writer *w;
    const char *once = fresh("once"), *dir = fresh("short");
    write_rows(once, ROWS, ROWS);
    ck_ok(pn_teacher_writer_open(dir, &o, SHARD_BYTES, &w));
    add_rows(w, 0, 1, 1);
    let_files_grow(1000);
    const pn_status s = pn_teacher_writer_save(w);
    let_files_grow(RLIM_INFINITY);
    ck_assert_msg(s == PN_IO && strstr(pn_error_message(), "rows-00000-to-1.h5: "), "%s", pn_error_message());
    ck_assert(!pn_file_exists(file_in(dir, "rows-00000-to-1.h5")));
    ck_ok(pn_teacher_writer_save(w));
    pn_teacher_writer_close(&w);
    holds_rows(dir, 1);
    write_rows(dir, ROWS, ROWS);
    static const char *const files[] = { "manifest.json", "rows-00000.h5", "rows-00001.h5", "rows-00002-to-2.h5" };
    for (int i = 0; i < 4; i++) same_file(once, dir, files[i]);
}
END_TEST

START_TEST(training_is_told_what_does_not_fit) {
    const char *dir = fresh("needs");
    pn_teacher_rows *r;
    write_rows(dir, ROWS, ROWS);
    ck_ok(pn_teacher_rows_open(dir, &r));
    pn_teacher_info need = info();
    need.teacher_hash = 0;
    ck_ok(pn_teacher_rows_need(r, &need, ROWS, "stages.0"));
    ck_refused(pn_teacher_rows_need(r, &need, ROWS + 1, "stages.0"), PN_USAGE, "stages.0: there are 8 teacher rows",
               "reads 9", "adds the others");
    need.temperature = 2;
    ck_refused(pn_teacher_rows_need(r, &need, 1, "stages.0"), PN_USAGE, "at temperature 1.5, the loss at 2",
               "set temperature: 1.5");
    need.mixture_hash++;
    ck_refused(pn_teacher_rows_need(r, &need, 1, "stages.0"), PN_USAGE, "another mixture or seed", "postnas teach");
    need.sequence_length = 12;
    ck_refused(pn_teacher_rows_need(r, &need, 1, "stages.0"), PN_USAGE, "are of 6 tokens, the stage's of 12");
    need.vocab = 51;
    ck_refused(pn_teacher_rows_need(r, &need, 1, "stages.0"), PN_USAGE, "another tokenizer or vocabulary (50 words)");
    pn_teacher_rows_close(&r);
}
END_TEST

/* The manifest with `from` replaced by `to`. */
static void edit_manifest(const char *dir, const char *from, const char *to) {
    char *text;
    size_t n;
    ck_ok(pn_file_read(file_in(dir, "manifest.json"), 1 << 20, &text, &n));
    char *at = strstr(text, from);
    ck_assert_msg(at != NULL, "no '%s' in %s", from, text);
    FILE *f = fopen(file_in(dir, "manifest.json"), "w");
    fprintf(f, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    ck_assert_int_eq(fclose(f), 0);
    free(text);
}

START_TEST(a_manifest_that_lies_is_refused) {
    static const struct {
        const char *from, *to, *part;
    } cases[] = {
        { "postnas-teacher-rows", "postnas-token-shards", "not a manifest of teacher rows" },
        { "\"version\": 1", "\"version\": 2", "version 2" },
        { "\"k\": 4", "\"k\": 51", "k" },
        { "\"k\": 4", "\"k\": 0", "k" },
        { "\"vocab\": 50", "\"vocab\": 99999999999", "tokenizer.vocab" },
        { "\"sequence_length\": 6", "\"sequence_length\": 16777216", "cannot hold the rows it claims" },
        { "\"temperature\": 1.5", "\"temperature\": 0", "temperature" },
        { "\"temperature\": 1.5", "\"temperature\": \"warm\"", "temperature" },
        { "\"shard_rows\": 3", "\"shard_rows\": 4611686018427387904", "shard_rows" },
        { "\"shard_rows\": 3", "\"shard_rows\": 4", "rows" },
        { "\"rows\": 8", "\"rows\": 9", "rows is 9, but its shards have 8" },
        { "\"rows\": 3", "\"rows\": 2", "rows" },
        { "\"rows\": 2", "\"rows\": 0", "rows" },
        { "rows-00000.h5", "../other.h5", "the file is \"../other.h5\", expected \"rows-00000.h5\"" },
        { "\"xxh3_64\": \"1111", "\"xxh3_64\": \"11zz", "teacher.xxh3_64 must be 16 hexadecimal digits" },
        { "\"shards\"", "\"shard\"", "shards" },
        { "{", "", "manifest.json" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *dir = fresh("lies");
        pn_teacher_rows *r;
        write_rows(dir, ROWS, ROWS);
        edit_manifest(dir, cases[i].from, cases[i].to);
        pn_status s = pn_teacher_rows_open(dir, &r);
        ck_assert_msg(s == PN_FORMAT || s == PN_UNSUPPORTED, "%s for %s", cases[i].from, cases[i].to);
        ck_assert_msg(strstr(pn_error_message(), cases[i].part), "no '%s' in: %s", cases[i].part, pn_error_message());
        ck_assert_ptr_null(r);
    }
    pn_teacher_rows *r;
    ck_refused(pn_teacher_rows_open(fresh("nothing"), &r), PN_IO, "manifest.json", "postnas teach");
}
END_TEST

START_TEST(a_shard_that_changed_is_refused) {
    const char *dir = fresh("changed"), *shard;
    pn_teacher_rows *r;
    int32_t ids[ROWS * ROW];
    float log_p[ROWS * ROW];
    char *bytes;
    size_t n;
    write_rows(dir, ROWS, ROWS);
    shard = file_in(dir, "rows-00001.h5");
    ck_ok(pn_file_read(shard, 1 << 20, &bytes, &n));
    bytes[n - 5] ^= 1;
    write_bytes(shard, bytes, n);
    ck_ok(pn_teacher_rows_open(dir, &r));
    ck_ok(pn_teacher_rows_read(r, 0, SHARD_ROWS, ids, log_p));
    ck_refused(pn_teacher_rows_read(r, SHARD_ROWS, 1, ids, log_p), PN_FORMAT, "rows-00001.h5", "damaged or changed");
    pn_teacher_rows_close(&r);
    write_bytes(shard, bytes, n - 1);
    ck_refused(pn_teacher_rows_open(dir, &r), PN_FORMAT, "rows-00001.h5", "cut short");
    ck_assert_int_eq(remove(shard), 0);
    ck_refused(pn_teacher_rows_open(dir, &r), PN_IO, "rows-00001.h5", "missing");
    free(bytes);
    /* A writer does not go on after what it cannot read. */
    const pn_teacher_info o = info();
    pn_teacher_writer *w;
    ck_refused(pn_teacher_writer_open(dir, &o, SHARD_BYTES, &w), PN_IO, "rows-00001.h5");
}
END_TEST

/* Files that are whole, of their size and hash, and say what no teacher says. */
START_TEST(words_that_cannot_be_are_refused) {
    static const struct {
        int64_t at;
        int32_t id;
        float log_p;
        const char *part;
    } cases[] = {
        { ROW + 2 * K + 3, VOCAB, -1, "row 1, token 2: id 50 is outside" },
        { ROW + 2 * K, -1, -1, "row 1, token 2: id -1 is outside 0 .. 49" },
        { 5 * K + 1, 1, -1, "row 0, token 5: id 1 is outside 2 .. 49" },
        { 5 * K + 1, INT32_MIN, -1, "row 0, token 5" },
        { 2 * ROW - 1, 49, 0.5f, "row 1, token 5: a log-probability is 0.5" },
        { 2 * ROW - 1, 49, NAN, "row 1, token 5: a log-probability is" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *dir = fresh("words");
        const pn_teacher_info o = info();
        int32_t ids[2 * ROW];
        float log_p[2 * ROW];
        pn_teacher_writer *w;
        pn_teacher_rows *r;
        for (int64_t row = 0; row < 2; row++) make_row(row, ids + row * ROW, log_p + row * ROW);
        ids[cases[i].at] = cases[i].id;
        log_p[cases[i].at] = cases[i].log_p;
        ck_ok(pn_teacher_writer_open(dir, &o, SHARD_BYTES, &w));
        ck_ok(pn_teacher_writer_add(w, 2, ids, log_p));
        ck_ok(pn_teacher_writer_save(w));
        pn_teacher_writer_close(&w);
        ck_ok(pn_teacher_rows_open(dir, &r));
        ck_refused(pn_teacher_rows_read(r, 0, 2, ids, log_p), PN_FORMAT, "rows-00000-to-2.h5", cases[i].part);
        pn_teacher_rows_close(&r);
    }
}
END_TEST

/* A dataset of another length or type behind a right hash. */
START_TEST(other_datasets_are_refused) {
    for (int wrong = 0; wrong < 3; wrong++) {
        const char *dir = fresh("datasets"), *shard;
        char old[32], now[64];
        hid_t file, set;
        uint64_t hash;
        int64_t n_bytes, n;
        pn_teacher_rows *r;
        int32_t ids[ROW] = { 0 };
        float log_p[ROW];
        write_rows(dir, 1, 1);
        shard = file_in(dir, "rows-00000-to-1.h5");
        ck_ok(pn_file_hash(shard, &hash, &n));
        snprintf(old, sizeof old, "%016llx", (unsigned long long)hash);
        ck_ok(pn_h5_create(shard, &file));
        for (int k = 0; k < 2; k++) {
            const pn_h5_type stored = wrong == 1 ? PN_H5_F64 : k ? PN_H5_F32 : PN_H5_I32;
            ck_ok(pn_h5_create_array(file, shard, wrong == 2 ? "x" : k ? "log_p" : "ids", stored, 1000, &set));
            ck_ok(pn_h5_append(set, shard, "x", PN_H5_I32, 0, wrong ? ROW : ROW - 1, ids));
            pn_h5_close_dataset(&set);
            if (wrong == 2) break;
        }
        ck_ok(pn_h5_close_file(&file, shard));
        ck_ok(pn_file_hash(shard, &hash, &n_bytes));
        snprintf(now, sizeof now, "%016llx", (unsigned long long)hash);
        edit_manifest(dir, old, now);
        snprintf(old, sizeof old, "\"n_bytes\": %lld", (long long)n);
        snprintf(now, sizeof now, "\"n_bytes\": %lld", (long long)n_bytes);
        edit_manifest(dir, old, now);
        ck_ok(pn_teacher_rows_open(dir, &r));
        ck_refused(pn_teacher_rows_read(r, 0, 1, ids, log_p), PN_FORMAT, "/ids");
        pn_teacher_rows_close(&r);
    }
}
END_TEST

TEST_MAIN("teacher_rows", rows_come_back_and_a_stopped_writer_ends_with_the_same_bytes,
          rows_of_something_else_are_not_added_to, unfinished_files_are_written_again,
          a_full_disk_leaves_no_part_of_a_shard, training_is_told_what_does_not_fit, a_manifest_that_lies_is_refused,
          a_shard_that_changed_is_refused, words_that_cannot_be_are_refused, other_datasets_are_refused)
