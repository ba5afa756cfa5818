#include "harness.h"
#include <float.h>
#include <string.h>

#include "buffer.h"

START_TEST(grows) {
    pn_buf b = { 0 };
    ck_assert_str_eq(pn_buf_string(&b), "");
    for (int i = 0; i < 1000; i++) pn_buf_printf(&b, "%04d ", i);
    ck_ok(pn_buf_status(&b));
    ck_assert_uint_eq(b.n_bytes, 5000);
    ck_assert_uint_eq(strlen(pn_buf_string(&b)), 5000);
    ck_assert(!memcmp(b.data + 4995, "0999 ", 6));
    pn_buf_clear(&b);
    ck_assert_str_eq(pn_buf_string(&b), "");
    pn_buf_append(&b, "a\0b", 3);
    pn_buf_char(&b, 'c');
    ck_assert_uint_eq(b.n_bytes, 4);
    ck_assert(!memcmp(b.data, "a\0bc", 5));
    pn_buf_free(&b);
    ck_assert_ptr_null(b.data);
}
END_TEST

START_TEST(failure_is_remembered) {
    pn_buf b = { 0 };
    pn_buf_text(&b, "x");
    pn_buf_append(&b, "y", SIZE_MAX); /* refused before anything is read */
    pn_buf_text(&b, "z");
    ck_assert_int_eq(pn_buf_status(&b), PN_MEMORY);
    ck_assert_str_eq(pn_buf_string(&b), "x");
    pn_buf_free(&b);
}
END_TEST

static void json_is(const char *text, const char *want) {
    pn_buf b = { 0 };
    pn_buf_json_string(&b, text);
    ck_assert_str_eq(pn_buf_string(&b), want);
    pn_buf_free(&b);
}

START_TEST(json_strings) {
    json_is("", "\"\"");
    json_is("a\"b\\c\n\t\x01", "\"a\\\"b\\\\c\\n\\t\\u0001\"");
    json_is("gr\xc3\xbc\xc3\x9f \xf0\x9f\x99\x82", "\"gr\xc3\xbc\xc3\x9f \xf0\x9f\x99\x82\"");
#define BAD "\xef\xbf\xbd"
    json_is("\xff", "\"" BAD "\"");
    json_is("x\xc3", "\"x" BAD "\"");                         /* cut short */
    json_is("\xc0\xaf", "\"" BAD BAD "\"");                   /* overlong */
    json_is("\xed\xa0\x80", "\"" BAD BAD BAD "\"");           /* surrogate */
    json_is("\xf4\x90\x80\x80.", "\"" BAD BAD BAD BAD ".\""); /* beyond U+10FFFF */
}
END_TEST

START_TEST(doubles_read_back) {
    static const double values[] = { 0, -0.0, 0.1, 1.0 / 3, 1e300, 5e-324, DBL_MAX, DBL_MIN, 123456789, 1e6, -2.5 };
    char text[32];
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        ck_assert_double_eq(strtod(pn_double_text(values[i], text, sizeof text), NULL), values[i]);
    ck_assert_str_eq(pn_double_text(0.1, text, sizeof text), "0.1");
    ck_assert_str_eq(pn_double_text(0.30000000000000004, text, sizeof text), "0.30000000000000004");
}
END_TEST

START_TEST(size_arithmetic) {
    size_t n;
    int64_t i;
    ck_assert(!pn_mul_overflow((size_t)3, (size_t)4, &n));
    ck_assert_uint_eq(n, 12);
    ck_assert(pn_mul_overflow(SIZE_MAX, (size_t)2, &n));
    ck_assert(pn_add_overflow(SIZE_MAX, (size_t)1, &n));
    ck_assert(pn_add_overflow(INT64_MAX, INT64_C(1), &i));
    ck_assert(pn_mul_overflow(INT64_MIN, INT64_C(-1), &i));
}
END_TEST

TEST_MAIN("buffer", grows, failure_is_remembered, json_strings, doubles_read_back, size_arithmetic)
