#include "harness.h"
#include <string.h>

static pn_status inner(void) {
    PN_FAIL(PN_FORMAT, "shard 3: row %d is cut short", 7);
}
static pn_status outer(void) {
    PN_TRY(inner());
    return PN_OK;
}

START_TEST(first_failure_writes_the_story) {
    ck_assert_int_eq(outer(), PN_FORMAT);
    ck_assert_str_eq(pn_error_message(), "shard 3: row 7 is cut short");
    char buffer[4096] = { 0 };
    FILE *f = fmemopen(buffer, sizeof buffer - 1, "w");
    pn_error_print(f, 1);
    fclose(f);
    ck_assert_ptr_nonnull(strstr(buffer, "inner()"));
}
END_TEST

START_TEST(exit_codes) {
    ck_assert_int_eq(pn_exit_code(PN_OK), 0);
    ck_assert_int_eq(pn_exit_code(PN_MISMATCH), 1);
    ck_assert_int_eq(pn_exit_code(PN_FORMAT), 2);
    ck_assert_int_eq(pn_exit_code(PN_USAGE), 2);
    ck_assert_int_eq(pn_exit_code(PN_INTERRUPTED), 75);
}
END_TEST

TEST_MAIN("status", first_failure_writes_the_story, exit_codes)
