#include "harness.h"
#include <math.h>
#include <string.h>

#include "options.h"

typedef struct values {
    int64_t i;
    double x;
    pn_int_list ints;
} values;

typedef struct changing {
    pn_ramp r;
} changing;

static const pn_option ramps[] = {
    PN_OPT_RAMP(changing, r, 3, 0, 10, ""),
    PN_OPT_END,
};

static const pn_option rows[] = {
    PN_OPT_INT(values, i, 0, INT64_MIN, INT64_MAX, ""),
    PN_OPT_FLOAT(values, x, 0, -INFINITY, INFINITY, ""),
    PN_OPT_INTS(values, ints, NULL, 0, 9, ""),
    PN_OPT_END,
};

START_TEST(numbers_that_change) {
    changing c;
    pn_buf b = { 0 };
    ck_ok(pn_options_defaults(ramps, &c));
    ck_assert(c.r.from == 3 && c.r.to == 3);
    pn_option_text(&ramps[0], &c, &b);
    ck_assert_str_eq(pn_buf_string(&b), "3");
    ck_ok(pn_option_parse(&ramps[0], "w", "1", 0, &c));
    ck_ok(pn_option_parse(&ramps[0], "w", "0.5", 1, &c));
    ck_assert(c.r.from == 1 && c.r.to == 0.5);
    pn_buf_clear(&b);
    pn_option_text(&ramps[0], &c, &b);
    ck_assert_str_eq(pn_buf_string(&b), "[1, 0.5]");
    ck_assert(pn_ramp_at(&c.r, 0) == 1 && pn_ramp_at(&c.r, 0.5) == 0.75 && pn_ramp_at(&c.r, 1) == 0.5);
    ck_assert_int_eq(pn_option_parse(&ramps[0], "w", "1", 2, &c), PN_USAGE);
    ck_assert_int_eq(pn_option_parse(&ramps[0], "w", "11", 0, &c), PN_USAGE);
    ck_assert_int_eq(pn_option_parse(&ramps[0], "w", "x", 0, &c), PN_USAGE);
    pn_buf_free(&b);
}
END_TEST

START_TEST(whole_numbers) {
    static const struct {
        const char *text;
        int64_t value;
    } good[] = { { "0", 0 },
                 { "-17", -17 },
                 { "+5", 5 },
                 { "100_000", 100000 },
                 { "1e6", 1000000 },
                 { "2.5e6", 2500000 },
                 { "-1E3", -1000 },
                 { "9223372036854775807", INT64_MAX },
                 { "-9223372036854775808", INT64_MIN } };
    static const char *const bad[] = { "",
                                       " ",
                                       "-",
                                       "e",
                                       "x",
                                       "1x",
                                       "0x10",
                                       "1.5",
                                       "3.0",
                                       "1e-1",
                                       "1e30",
                                       "_1",
                                       "1 2",
                                       "nan",
                                       "inf",
                                       "--1",
                                       "1e",
                                       "9223372036854775808",
                                       "1111111111111111111111111111111111111111111111111111111111111111" };
    values v;
    for (size_t k = 0; k < sizeof good / sizeof *good; k++) {
        ck_ok(pn_option_parse(&rows[0], "w", good[k].text, 0, &v));
        ck_assert_int_eq(v.i, good[k].value);
    }
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        ck_assert_msg(pn_option_parse(&rows[0], "w", bad[k], 0, &v) == PN_USAGE, "\"%s\" was taken", bad[k]);
}
END_TEST

START_TEST(a_word_for_zero) {
    static const pn_option table[] = { PN_OPT_INT_OR(values, i, "auto", "auto", 1, 9, ""), PN_OPT_END };
    values v = { .i = 5 };
    pn_buf b = { 0 };
    ck_ok(pn_options_defaults(table, &v));
    ck_assert_int_eq(v.i, 0);
    pn_option_text(table, &v, &b);
    ck_assert_str_eq(pn_buf_string(&b), "auto");
    ck_ok(pn_option_parse(table, "w", "9", 0, &v));
    pn_buf_clear(&b);
    pn_option_text(table, &v, &b);
    ck_assert_str_eq(pn_buf_string(&b), "9");
    ck_assert_int_eq(pn_option_parse(table, "w", "0", 0, &v), PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "i is 0; it must lie in 1 .. 9"));
    ck_assert_int_eq(pn_option_parse(table, "w", "automatic", 0, &v), PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "it must be a whole number or auto"));
    ck_assert_int_eq(v.i, 9);
    pn_buf_free(&b);
}
END_TEST

START_TEST(numbers) {
    static const char *const bad[] = { "", "x", "1x", "nan", "inf", "-inf", "1e999" };
    values v;
    ck_ok(pn_option_parse(&rows[1], "w", "-2.5e-3", 0, &v));
    ck_assert_double_eq(v.x, -2.5e-3);
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        ck_assert_msg(pn_option_parse(&rows[1], "w", bad[k], 0, &v) == PN_USAGE, "\"%s\" was taken", bad[k]);
}
END_TEST

START_TEST(nearest_names) {
    static const char *const names[] = { "list", "generate", "search", "id" };
    ck_assert_str_eq(pn_nearest("serch", names, 4), "search");
    ck_assert_str_eq(pn_nearest("genrate", names, 4), "generate");
    ck_assert_str_eq(pn_nearest("lst", names, 4), "list");
    ck_assert_str_eq(pn_nearest("ids", names, 4), "id");
    ck_assert_str_eq(pn_nearest("gen", names, 4), "generate");
    ck_assert_ptr_null(pn_nearest("ge", names, 4));
    ck_assert_ptr_null(pn_nearest("zzzz", names, 4));
    ck_assert_ptr_null(pn_nearest("", names, 0));
    ck_assert_int_eq(pn_edit_distance("kitten", "sitting"), 3);
    ck_assert_int_eq(pn_edit_distance("", "abc"), 3);
    char longest[100];
    memset(longest, 'a', sizeof longest - 1);
    longest[99] = '\0';
    ck_assert_ptr_null(pn_nearest(longest, names, 4));
}
END_TEST

START_TEST(texts_read_back) {
    values v = { .i = -3, .x = 1.0 / 3, .ints = { .n = 2, .item = { 4, 7 } } }, back;
    pn_buf b = { 0 };
    for (int k = 0; k < 2; k++) {
        pn_buf_clear(&b);
        pn_option_text(&rows[k], &v, &b);
        ck_ok(pn_option_parse(&rows[k], "w", pn_buf_string(&b), 0, &back));
    }
    ck_assert(back.i == v.i && back.x == v.x);
    pn_buf_clear(&b);
    pn_option_text(&rows[2], &v, &b);
    ck_assert_str_eq(pn_buf_string(&b), "[4, 7]");
    pn_buf_free(&b);
}
END_TEST

TEST_MAIN("options", numbers_that_change, whole_numbers, a_word_for_zero, numbers, nearest_names, texts_read_back)
