/* The Check boilerplate every test file needs, once: list the tests, get a main(). */
#ifndef PN_TESTS_HARNESS_H
#define PN_TESTS_HARNESS_H

#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "status.h"

/* ck_assert for pn_status: prints the story on failure. */
#define ck_ok(expr)                                                                                                    \
    do {                                                                                                               \
        pn_status ck_s_ = (expr);                                                                                      \
        ck_assert_msg(ck_s_ == PN_OK, "%s: %s: %s", #expr, pn_status_text(ck_s_), pn_error_message());                 \
    } while (0)

/* Whether a test was skipped: in memory that test processes share with main(). */
static inline bool *ck_skipped_(void) {
    static bool *flag;
    if (!flag) flag = mmap(NULL, sizeof *flag, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return flag;
}
/* Ends a test that this system cannot run, saying what is missing: CTest reports the file as skipped unless another of
 * its tests fails. */
#define ck_skip(...)                                                                                                   \
    do {                                                                                                               \
        printf("skipped: " __VA_ARGS__);                                                                               \
        puts("");                                                                                                      \
        *ck_skipped_() = true;                                                                                         \
        return;                                                                                                        \
    } while (0)
enum { CK_SKIPPED_ = 77 }; /* SKIP_RETURN_CODE in cmake/PostnasTarget.cmake */

/* The test program's argument, which may narrow what its tests look at; NULL without one. */
static inline const char **ck_argument(void) {
    static const char *argument;
    return &argument;
}

/* TEST_MAIN(name, test_a, test_b, ...): one test case per START_TEST function, 240 s each. */
#define TEST_MAIN(name, ...)                                                                                           \
    int main(int argc, char **argv) {                                                                                  \
        *ck_argument() = argc > 1 ? argv[1] : NULL;                                                                    \
        const TTest *const tests_[] = { __VA_ARGS__ };                                                                 \
        Suite *suite_ = suite_create(name);                                                                            \
        TCase *case_ = tcase_create(name);                                                                             \
        tcase_set_timeout(case_, 240);                                                                                 \
        for (size_t i_ = 0; i_ < sizeof tests_ / sizeof *tests_; i_++) tcase_add_test(case_, tests_[i_]);              \
        suite_add_tcase(suite_, case_);                                                                                \
        SRunner *runner_ = srunner_create(suite_);                                                                     \
        srunner_set_fork_status(runner_, CK_FORK_GETENV);                                                              \
        const bool *skipped_ = ck_skipped_(); /* before tests are processes of their own */                            \
        srunner_run_all(runner_, CK_ENV);                                                                              \
        int failed_ = srunner_ntests_failed(runner_);                                                                  \
        srunner_free(runner_);                                                                                         \
        return failed_ ? EXIT_FAILURE : *skipped_ ? CK_SKIPPED_ : EXIT_SUCCESS;                                        \
    }
#endif
