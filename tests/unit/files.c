/* Whole or not at all. Every test works in a fresh directory of its own. */
#include "harness.h"
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "files.h"

static char top[64];

static void begin(void) {
    strcpy(top, "/tmp/postnas-files-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(top));
}

static void end(void) {
    ck_ok(pn_remove_tree(top));
    ck_assert(!pn_file_exists(top));
}

static const char *in(const char *name) {
    static char path[4][PN_PATH_MAX];
    static int next;
    char *p = path[next++ % 4];
    ck_ok(pn_path_join(p, top, name));
    return p;
}

static void put(const char *path, const char *text) {
    ck_ok(pn_file_write(path, text, strlen(text)));
}

static void is(const char *path, const char *text) {
    char *data;
    size_t n;
    ck_ok(pn_file_read(path, 1 << 20, &data, &n));
    ck_assert_str_eq(data, text);
    ck_assert_uint_eq(n, strlen(text));
    free(data);
}

static void says(pn_status s, pn_status want, const char *part) {
    ck_assert_int_eq(s, want);
    ck_assert_msg(strstr(pn_error_message(), part) != NULL, "\"%s\" does not hold \"%s\"", pn_error_message(), part);
}

START_TEST(paths) {
    char path[PN_PATH_MAX], longest[PN_PATH_MAX];
    ck_ok(pn_path_join(path, "a", "b"));
    ck_assert_str_eq(path, "a/b");
    ck_ok(pn_path_join(path, "a/", "b"));
    ck_assert_str_eq(path, "a/b");
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    ck_assert_int_eq(pn_path_join(path, longest, "b"), PN_USAGE);
    begin();
    ck_ok(pn_make_directories(in("a/b//c/")));
    ck_ok(pn_make_directories(in("a/b/c")));
    ck_assert(pn_is_directory(in("a/b/c")));
    put(in("file"), "x");
    ck_assert(pn_file_exists(in("file")) && !pn_is_directory(in("file")));
    says(pn_make_directories(in("file/below")), PN_IO, "/file: cannot make this directory");
    ck_assert_int_eq(pn_make_directories(""), PN_USAGE);
    ck_assert_int_eq(pn_make_directories(longest), PN_IO); /* one name of 4095 letters */
    end();
}
END_TEST

START_TEST(reading_has_a_limit) {
    char *data = NULL;
    size_t n;
    begin();
    put(in("a"), "12345");
    ck_ok(pn_file_read(in("a"), 5, &data, &n));
    ck_assert_uint_eq(n, 5);
    free(data);
    says(pn_file_read(in("a"), 4, &data, &n), PN_IO, "/a: larger than the 4 bytes");
    says(pn_file_read(in("b"), 4, &data, &n), PN_IO, "/b: cannot open: No such file");
    says(pn_file_read(top, 4, &data, &n), PN_IO, "cannot read: Is a directory");
    char *big = malloc(300000);
    memset(big, 'y', 300000);
    ck_ok(pn_file_write(in("big"), big, 300000));
    ck_ok(pn_file_read(in("big"), SIZE_MAX, &data, &n));
    ck_assert(n == 300000 && !memcmp(data, big, n) && data[n] == '\0');
    free(data);
    free(big);
    end();
}
END_TEST

START_TEST(a_file_appears_whole) {
    pn_file_writer w;
    begin();
    put(in("a"), "old");
    ck_ok(pn_file_writer_open(in("a"), &w));
    fputs("half", w.file);
    fflush(w.file);
    is(in("a"), "old");
    pn_file_writer_abort(&w);
    is(in("a"), "old");
    ck_assert(!pn_file_exists(in("a.tmp")));
    ck_ok(pn_file_writer_open(in("a"), &w));
    fputs("new", w.file);
    ck_ok(pn_file_writer_commit(&w));
    pn_file_writer_abort(&w);
    is(in("a"), "new");
    ck_assert(!pn_file_exists(in("a.tmp")));
    says(pn_file_writer_open(in("missing/a"), &w), PN_IO, "cannot write: No such file");
    end();
}
END_TEST

START_TEST(a_full_disk_changes_nothing) {
    enum { LIMIT = 1 << 16 };
    begin();
    put(in("a"), "old");
    struct rlimit before, small = { LIMIT, LIMIT };
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN); /* writes beyond the limit fail with EFBIG */
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    char *big = calloc(1, 4 * LIMIT);
    pn_status s = pn_file_write(in("a"), big, 4 * LIMIT);
    setrlimit(RLIMIT_FSIZE, &before);
    free(big);
    says(s, PN_IO, "nothing was changed");
    is(in("a"), "old");
    ck_assert(!pn_file_exists(in("a.tmp")));
    end();
}
END_TEST

START_TEST(removal_does_not_follow_links) {
    begin();
    put(in("outside"), "kept");
    ck_ok(pn_make_directories(in("dir/deep/er")));
    put(in("dir/deep/er/file"), "x");
    ck_assert_int_eq(symlink(top, in("dir/link")), 0);
    ck_assert_int_eq(symlink("nowhere", in("dir/dangling")), 0);
    ck_ok(pn_remove_tree(in("dir")));
    ck_assert(!pn_file_exists(in("dir")));
    is(in("outside"), "kept");
    ck_ok(pn_remove_tree(in("dir"))); /* not there: fine */
    ck_ok(pn_remove_tree(in("outside")));
    ck_assert(!pn_file_exists(in("outside")));
    end();
}
END_TEST

START_TEST(a_directory_appears_whole) {
    pn_directory_writer w = { 0 };
    char path[PN_PATH_MAX];
    begin();
    pn_directory_writer_abort(&w); /* zeroed: nothing to do */
    ck_ok(pn_directory_writer_open(in("parent/out/"), &w));
    ck_ok(pn_path_join(path, w.temporary, "part"));
    put(path, "x");
    ck_assert(!pn_file_exists(in("parent/out")));
    ck_ok(pn_directory_writer_commit(&w));
    pn_directory_writer_abort(&w);
    is(in("parent/out/part"), "x");
    ck_assert(!pn_file_exists(in("parent/out.postnas-partial")));

    says(pn_directory_writer_open(in("parent/out"), &w), PN_USAGE,
         "exists and is not an empty directory; choose another or remove it first");
    put(in("file"), "x");
    says(pn_directory_writer_open(in("file"), &w), PN_USAGE, "exists and is not an empty directory");

    ck_ok(pn_make_directories(in("empty"))); /* an empty one may be filled */
    ck_ok(pn_directory_writer_open(in("empty"), &w));
    pn_directory_writer_abort(&w);
    ck_assert(pn_is_directory(in("empty")) && !pn_file_exists(in("empty.postnas-partial")));
    ck_ok(pn_directory_writer_open(in("empty"), &w));
    put(in("empty/meanwhile"), "theirs"); /* filled by someone else while we wrote */
    says(pn_directory_writer_commit(&w), PN_IO, "cannot put the finished directory in place");
    is(in("empty/meanwhile"), "theirs");
    ck_assert(!pn_file_exists(in("empty.postnas-partial")));
    end();
}
END_TEST

START_TEST(two_writers_do_not_meet) {
    pn_directory_writer first, second;
    begin();
    ck_ok(pn_directory_writer_open(in("out"), &first));
    says(pn_directory_writer_open(in("out"), &second), PN_USAGE, "another process is writing this directory");
    pn_directory_writer_abort(&second);
    ck_assert(pn_is_directory(first.temporary));
    ck_ok(pn_directory_writer_commit(&first));
    end();
}
END_TEST

/* What a killed process left aside is removed by the next. */
START_TEST(leftovers_are_removed) {
    pn_directory_writer w;
    char path[PN_PATH_MAX];
    begin();
    pid_t child = fork();
    if (child == 0) {
        pn_status s = pn_directory_writer_open(in("out"), &w);
        if (!s) s = pn_path_join(path, w.temporary, "stale");
        if (!s) s = pn_file_write(path, "x", 1);
        if (!s) raise(SIGKILL);
        _exit(1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
    ck_assert(pn_file_exists(in("out.postnas-partial/stale")));
    ck_ok(pn_directory_writer_open(in("out"), &w));
    ck_ok(pn_directory_writer_commit(&w));
    ck_assert(pn_is_directory(in("out")) && !pn_file_exists(in("out/stale")));
    end();
}
END_TEST

START_TEST(what_is_aside_can_be_gone_on_with) {
    pn_directory_writer w, other;
    char path[PN_PATH_MAX];
    begin();
    ck_ok(pn_directory_writer_resume(in("out"), &w)); /* nothing there: a fresh one */
    ck_ok(pn_path_join(path, w.temporary, "half"));
    put(path, "x");
    says(pn_directory_writer_resume(in("out"), &other), PN_USAGE, "another process is writing this directory");
    pn_directory_writer_keep(&w);
    pn_directory_writer_keep(&w); /* nothing to do */
    is(in("out.postnas-partial/half"), "x");
    ck_ok(pn_directory_writer_resume(in("out"), &w));
    ck_ok(pn_directory_writer_commit(&w));
    is(in("out/half"), "x");
    end();
}
END_TEST

START_TEST(a_directory_takes_the_place_of_another) {
    begin();
    for (int i = 0; i < 2; i++) { /* where nothing stands, then where one does */
        ck_ok(pn_make_directories(in("fresh")));
        put(in("fresh/file"), i ? "second" : "first");
        ck_ok(pn_make_directories(in("model.postnas-old"))); /* of a process that died between the renames */
        ck_ok(pn_directory_replace(in("fresh"), in("model")));
        is(in("model/file"), i ? "second" : "first");
        ck_assert(!pn_file_exists(in("fresh")) && !pn_file_exists(in("model.postnas-old")));
    }
    says(pn_directory_replace(in("nowhere"), in("model")), PN_IO, "cannot put the finished directory in place");
    end();
}
END_TEST

START_TEST(files_have_hashes) {
    uint64_t hash;
    int64_t n_bytes;
    begin();
    put(in("file"), "abc");
    ck_ok(pn_file_hash(in("file"), &hash, &n_bytes));
    ck_assert_int_eq(n_bytes, 3);
    ck_assert_uint_eq(hash, 0x78af5f94892f3950u); /* XXH3_64bits("abc") */
    ck_ok(pn_file_sync(in("file")));
    says(pn_file_hash(in("nowhere"), &hash, &n_bytes), PN_IO, "cannot read the file");
    says(pn_file_sync(in("nowhere")), PN_IO, "cannot open what was just written");
    end();
}
END_TEST

TEST_MAIN("files", paths, reading_has_a_limit, a_file_appears_whole, a_full_disk_changes_nothing,
          removal_does_not_follow_links, a_directory_appears_whole, two_writers_do_not_meet, leftovers_are_removed,
          what_is_aside_can_be_gone_on_with, a_directory_takes_the_place_of_another, files_have_hashes)
