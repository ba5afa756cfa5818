#include "harness.h"
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "json.h"

static json_t *parsed(const char *text) {
    json_t *root = NULL;
    ck_ok(pn_json_parse("c.json", text, strlen(text), &root));
    return root;
}

static void says(pn_status s, const char *message) {
    ck_assert_int_eq(s, PN_FORMAT);
    ck_assert_str_eq(pn_error_message(), message);
}

static void broken(const char *text, const char *message) {
    json_t *root = NULL;
    pn_status s = pn_json_parse("c.json", text, strlen(text), &root);
    ck_assert_int_eq(s, PN_FORMAT);
    ck_assert_ptr_null(root);
    ck_assert_msg(!strncmp(pn_error_message(), message, strlen(message)), "\"%s\" does not begin with \"%s\"",
                  pn_error_message(), message);
}

START_TEST(broken_text_names_its_place) {
    broken("{\n  \"a\": 1,\n  \"b\" 2\n}", "c.json:3:7: not valid JSON");
    broken("", "c.json:1:1: not valid JSON");
    broken("{\"a\": 1, \"a\": 2}", "c.json:1:12: not valid JSON: duplicate object key");
    broken("{\"a\": 1} x", "c.json:1:10: not valid JSON");
    broken("{\"a\": \"x\\u0000\"}", "c.json:1:15: not valid JSON");
    char deep[512] = "";
    for (int i = 0; i < 65; i++) strcat(deep, "[");
    for (int i = 0; i < 65; i++) strcat(deep, "]");
    broken(deep, "c.json: nested deeper than 64 levels");
    deep[0] = ' ';
    deep[129] = ' ';
    json_decref(parsed(deep));
}
END_TEST

START_TEST(getters) {
    json_t *root = parsed("{\"n\": 12, \"x\": 0.5, \"flag\": true, \"name\": \"abc\", \"none\": null,"
                          " \"sub\": {\"list\": [1, {\"k\": 7}]}}");
    int64_t i;
    double x;
    bool flag = false;
    const char *text;
    const json_t *v;
    ck_ok(pn_json_get_i64(root, "c.json", "n", 0, 100, &i));
    ck_assert_int_eq(i, 12);
    ck_ok(pn_json_get_f64(root, "c.json", "x", 0, 1, &x));
    ck_assert_double_eq(x, 0.5);
    ck_ok(pn_json_get_f64(root, "c.json", "n", 0, 100, &x)); /* a whole number is a number */
    ck_assert_double_eq(x, 12);
    ck_ok(pn_json_get_bool(root, "c.json", "flag", &flag));
    ck_assert(flag);
    ck_ok(pn_json_get_str(root, "c.json", "name", &text));
    ck_assert_str_eq(text, "abc");
    ck_ok(pn_json_get_i64(root, "c.json", "sub.list.1.k", 0, 100, &i));
    ck_assert_int_eq(i, 7);
    ck_ok(pn_json_get_array(root, "c.json", "sub.list", 2, 2, &v));
    ck_ok(pn_json_get_object(root, "c.json", "sub", &v));
    ck_ok(pn_json_get_object(root, "c.json", "", &v));
    ck_assert_ptr_eq(v, root);

    json_object_set_new(root, "hash", pn_json_hex(UINT64_MAX - 1));
    uint64_t hash;
    ck_ok(pn_json_get_hex(root, "c.json", "hash", &hash));
    ck_assert(hash == UINT64_MAX - 1);
    ck_ok(pn_json_get_str(root, "c.json", "hash", &text));
    ck_assert_str_eq(text, "fffffffffffffffe");

    i = 99, x = 99, text = "kept";
    ck_ok(pn_json_find_i64(root, "c.json", "missing", 0, 100, &i));
    ck_ok(pn_json_find_i64(root, "c.json", "none", 0, 100, &i));
    ck_ok(pn_json_find_f64(root, "c.json", "sub.missing", 0, 100, &x));
    ck_ok(pn_json_find_str(root, "c.json", "sub.list.2", &text));
    ck_ok(pn_json_find_bool(root, "c.json", "sub.list.-1", &flag));
    ck_assert(i == 99 && x == 99 && !strcmp(text, "kept") && flag);
    json_decref(root);
}
END_TEST

START_TEST(getter_errors) {
    json_t *root =
        parsed("{\"n\": 12, \"x\": 0.5, \"s\": \"8\", \"sub\": {\"list\": [1, 2]}, "
               "\"hash\": [\"012345678\", \"0123456789abcde\", \"0123456789abcdef0\", \"0123456789abcdeF\"]}");
    uint64_t hash;
    int64_t i;
    double x;
    bool flag;
    const char *text;
    const json_t *v;
    says(pn_json_get_i64(root, "c.json", "n", 0, 10, &i), "c.json: n must be a whole number in 0 .. 10, but is 12");
    says(pn_json_get_i64(root, "c.json", "x", INT64_MIN, INT64_MAX, &i),
         "c.json: x must be a whole number, but is 0.5");
    says(pn_json_get_i64(root, "c.json", "m", 1, 2, &i), "c.json: m is missing; it must be a whole number in 1 .. 2");
    says(pn_json_get_f64(root, "c.json", "s", 0, 1.5, &x),
         "c.json: s must be a number in 0 .. 1.5, but is the text \"8\"");
    says(pn_json_get_hex(root, "c.json", "n", &hash), "c.json: n must be 16 hexadecimal digits, but is 12");
    says(pn_json_get_hex(root, "c.json", "hash.0", &hash),
         "c.json: hash.0 must be 16 hexadecimal digits, but is the text \"012345678\"");
    ck_assert_int_eq(pn_json_get_hex(root, "c.json", "hash.1", &hash), PN_FORMAT);
    ck_assert_int_eq(pn_json_get_hex(root, "c.json", "hash.2", &hash), PN_FORMAT);
    ck_assert_int_eq(pn_json_get_hex(root, "c.json", "hash.3", &hash), PN_FORMAT);
    says(pn_json_get_bool(root, "c.json", "n", &flag), "c.json: n must be true or false, but is 12");
    says(pn_json_get_str(root, "c.json", "sub", &text), "c.json: sub must be text, but is an object");
    says(pn_json_get_array(root, "c.json", "sub.list", 3, 3, &v),
         "c.json: sub.list must be a list of 3, but is a list of 2");
    says(pn_json_find_f64(root, "c.json", "s", 0, 1, &x),
         "c.json: s must be a number in 0 .. 1, but is the text \"8\"");
    says(pn_json_get_object(root, "c.json", "n", &v), "c.json: n must be an object, but is 12");
    json_decref(root);
}
END_TEST

START_TEST(writing_is_the_same_and_reads_back) {
    json_t *root = parsed("{\"zeta\": 0.1, \"alpha\": [1, 2.0, \"x\"], \"e\": {}, \"f\": [], \"o\": [{\"k\": 1e300}],"
                          " \"t\": \"\\u00fc\\u0001\\n\", \"third\": 0.333333333333333314829616256247, \"n\": null}");
    char *text, *again;
    ck_ok(pn_json_text(root, &text));
    ck_assert_str_eq(text, "{\n"
                           "  \"zeta\": 0.1,\n"
                           "  \"alpha\": [1, 2.0, \"x\"],\n"
                           "  \"e\": {},\n"
                           "  \"f\": [],\n"
                           "  \"o\": [\n"
                           "    {\n"
                           "      \"k\": 1e+300\n"
                           "    }\n"
                           "  ],\n"
                           "  \"t\": \"\xc3\xbc\\u0001\\n\",\n"
                           "  \"third\": 0.3333333333333333,\n"
                           "  \"n\": null\n"
                           "}\n");
    json_t *back = NULL;
    ck_ok(pn_json_parse("again", text, strlen(text), &back));
    ck_assert(json_equal(root, back));
    ck_ok(pn_json_text(back, &again));
    ck_assert_str_eq(text, again);
    free(text);
    free(again);
    json_decref(back);
    json_decref(root);
}
END_TEST

START_TEST(files_round_trip) {
    char dir[] = "/tmp/postnas-json-XXXXXX", path[PN_PATH_MAX];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_ok(pn_path_join(path, dir, "a.json"));
    json_t *root = parsed("{\"a\": [1, 2, 3]}"), *back = NULL;
    ck_ok(pn_json_write(path, root));
    ck_ok(pn_json_load(path, 1000, &back));
    ck_assert(json_equal(root, back));
    json_decref(back);
    back = NULL;
    ck_assert_int_eq(pn_json_load(path, 10, &back), PN_IO);
    ck_assert_ptr_null(back);
    ck_ok(pn_path_join(path, dir, "missing.json"));
    ck_assert_int_eq(pn_json_load(path, 10, &back), PN_IO);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "missing.json: cannot open"));
    json_decref(root);
    ck_ok(pn_remove_tree(dir));
}
END_TEST

TEST_MAIN("json", broken_text_names_its_place, getters, getter_errors, writing_is_the_same_and_reads_back,
          files_round_trip)
