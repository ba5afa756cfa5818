/* The Check boilerplate every test file needs, once: list the tests, get a main(). */
#ifndef PN_TESTS_HARNESS_H
#define PN_TESTS_HARNESS_H

#include <check.h>
#include <stdlib.h>

#include "status.h"

/* ck_assert for pn_status: prints the story on failure. */
#define ck_ok(expr)                                                                                                    \
    do {                                                                                                               \
        pn_status ck_s_ = (expr);                                                                                      \
        ck_assert_msg(ck_s_ == PN_OK, "%s: %s: %s", #expr, pn_status_text(ck_s_), pn_error_message());                 \
    } while (0)

/* TEST_MAIN(name, test_a, test_b, ...): one test case per START_TEST function, 120 s each. */
#define TEST_MAIN(name, ...)                                                                                           \
    int main(void) {                                                                                                   \
        const TTest *const tests_[] = { __VA_ARGS__ };                                                                 \
        Suite *suite_ = suite_create(name);                                                                            \
        TCase *case_ = tcase_create(name);                                                                             \
        tcase_set_timeout(case_, 240);                                                                                 \
        for (size_t i_ = 0; i_ < sizeof tests_ / sizeof *tests_; i_++) tcase_add_test(case_, tests_[i_]);              \
        suite_add_tcase(suite_, case_);                                                                                \
        SRunner *runner_ = srunner_create(suite_);                                                                     \
        srunner_set_fork_status(runner_, CK_FORK_GETENV);                                                              \
        srunner_run_all(runner_, CK_ENV);                                                                              \
        int failed_ = srunner_ntests_failed(runner_);                                                                  \
        srunner_free(runner_);                                                                                         \
        return failed_ ? EXIT_FAILURE : EXIT_SUCCESS;                                                                  \
    }
#endif
