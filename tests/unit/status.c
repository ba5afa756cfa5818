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

static pn_status quoting(const char *name) {
    PN_FAIL(PN_FORMAT, "tensor %s", name);
}

START_TEST(what_a_message_quotes_stays_on_its_line) {
    quoting("a\nb\r\t\x1b[2J\x7f");
    ck_assert_str_eq(pn_error_message(), "tensor a?b???[2J?");
    quoting("caf\xc3\xa9 \xc2\x9b"
            "2J \xc2\xa0 \xc2");
    ck_assert_str_eq(pn_error_message(), "tensor caf\xc3\xa9 ??2J \xc2\xa0 \xc2");
}
END_TEST

START_TEST(a_caller_adds_the_remedy) {
    ck_assert_int_eq(outer(), PN_FORMAT);
    pn_error_more("write it\nagain");
    ck_assert_str_eq(pn_error_message(), "shard 3: row 7 is cut short; write it?again");
    for (int i = 0; i < 1000; i++) pn_error_more("more than there is room for");
    ck_assert_uint_lt(strlen(pn_error_message()), 4096);
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

TEST_MAIN("status", first_failure_writes_the_story, what_a_message_quotes_stays_on_its_line, a_caller_adds_the_remedy,
          exit_codes)
