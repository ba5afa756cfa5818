/* What the tests of file readers share: a directory of their own, files of given bytes, checks of a refusal's message.
 */
#ifndef PN_TESTS_IO_FIXTURE_H
#define PN_TESTS_IO_FIXTURE_H

#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"

static char scratch_dir[64];

static inline int scratch_unlink(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}
static inline void scratch_remove(void) {
    nftw(scratch_dir, scratch_unlink, 8, FTW_DEPTH | FTW_PHYS);
}
/* A path inside this test process's own directory, which goes when the process exits. Valid for the next 8 calls. */
static inline const char *scratch(const char *name) {
    static char paths[8][256];
    static unsigned next;
    if (!scratch_dir[0]) {
        strcpy(scratch_dir, "/tmp/postnas-test-XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(scratch_dir));
        atexit(scratch_remove);
    }
    char *p = paths[next++ % 8];
    snprintf(p, sizeof paths[0], "%s/%s", scratch_dir, name);
    return p;
}

static inline void write_bytes(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
    ck_assert_int_eq(fclose(f), 0);
}
static inline void write_text(const char *path, const char *text) {
    write_bytes(path, text, strlen(text));
}

/* Fails with `status`, and the message contains each of the words given (the last argument is NULL). */
#define ck_refused(expr, status, ...)                                                                                  \
    do {                                                                                                               \
        pn_error_clear();                                                                                              \
        pn_status ck_s_ = (expr);                                                                                      \
        ck_assert_msg(ck_s_ == (status), "%s: %s, not %s: %s", #expr, pn_status_text(ck_s_), pn_status_text(status),   \
                      pn_error_message());                                                                             \
        const char *const words_[] = { __VA_ARGS__, NULL };                                                            \
        for (int i_ = 0; words_[i_]; i_++)                                                                             \
            ck_assert_msg(strstr(pn_error_message(), words_[i_]) != NULL, "no '%s' in: %s", words_[i_],                \
                          pn_error_message());                                                                         \
    } while (0)

#endif
