#include "harness.h"
#include <string.h>

#include "config.h"

typedef struct beam {
    int64_t width, kind;
    double margin;
    bool verbose;
    const char *name;
    pn_int_list sizes;
} beam;

static const char *const kinds[] = { "slow", "fast", NULL };
static const pn_option table[] = {
    PN_OPT_INT(beam, width, 2, 1, 100, "paths kept"),
    PN_OPT_ENUM(beam, kind, "slow", kinds, "how"),
    PN_OPT_FLOAT(beam, margin, 0.25, 0, 1, "margin"),
    PN_OPT_BOOL(beam, verbose, false, "talk"),
    PN_OPT_STRING(beam, name, NULL, "a name"),
    PN_OPT_INTS(beam, sizes, "[64, 128]", 1, 1000, "sizes"),
    PN_OPT_END,
};

static void fails_with(const char *text, const char *message) {
    pn_config *c = NULL;
    beam b;
    pn_status s = pn_config_parse("a.yaml", text, &c);
    if (!s) s = pn_config_read(c, "search.beam", table, &b);
    if (!s) s = pn_config_finish(c);
    ck_assert_int_eq(s, PN_USAGE);
    ck_assert_msg(strstr(pn_error_message(), message) != NULL, "\"%s\" does not hold \"%s\"", pn_error_message(),
                  message);
    pn_config_destroy(&c);
}

START_TEST(values_and_defaults) {
    pn_config *c;
    beam b;
    ck_ok(pn_config_parse(
        "a.yaml", "search:\n  beam:\n    width: 7\n    kind: fast\n    name: \"a b\"\n    sizes: [1, 2, 3]\n", &c));
    ck_ok(pn_config_set(c, "search.beam.margin=0.5"));
    ck_ok(pn_config_read(c, "search.beam", table, &b));
    ck_ok(pn_config_finish(c));
    ck_assert_int_eq(b.width, 7);
    ck_assert_int_eq(b.kind, 1);
    ck_assert_double_eq(b.margin, 0.5);
    ck_assert_str_eq(b.name, "a b");
    ck_assert_int_eq(b.sizes.n, 3);
    ck_assert_int_eq(b.sizes.item[2], 3);
    pn_config_destroy(&c);
}
END_TEST

START_TEST(printed_config_loads_again) {
    pn_config *c, *again;
    beam b, b2;
    char text[4096] = { 0 };
    ck_ok(pn_config_parse("a.yaml", "search:\n  beam:\n    width: 7\n", &c));
    ck_ok(pn_config_read(c, "search.beam", table, &b));
    FILE *f = fmemopen(text, sizeof text - 1, "w");
    pn_config_print(c, f);
    fclose(f);
    ck_assert_ptr_nonnull(strstr(text, "width: 7  # a.yaml:3"));
    ck_assert_ptr_nonnull(strstr(text, "margin: 0.25  # default"));
    ck_ok(pn_config_parse("printed", text, &again));
    ck_ok(pn_config_read(again, "search.beam", table, &b2));
    ck_ok(pn_config_finish(again));
    ck_assert_int_eq(b2.width, 7);
    ck_assert_int_eq(b2.sizes.n, 2);
    ck_assert_int_eq(b2.sizes.item[1], 128);
    pn_config_destroy(&again);
    pn_config_destroy(&c);
}
END_TEST

START_TEST(errors_name_place_and_remedy) {
    fails_with("search:\n  beam:\n    widht: 7\n", "a.yaml:3: unknown key search.beam.widht; did you mean width?");
    fails_with("search:\n  beam:\n    width: 700\n", "a.yaml:3: search.beam: width is 700; it must lie in 1 .. 100");
    fails_with("search:\n  beam:\n    width: x\n", "must be a whole number");
    fails_with("search:\n  beam:\n    kind: quick\n", "it must be one of: slow, fast");
    fails_with("search:\n  beam:\n    width: 1\n    width: 2\n", "a.yaml:4: key width stands twice");
    fails_with("search:\n  beam: &x\n    width: 1\n", "anchors and aliases");
    fails_with("search: *x\n", "anchors and aliases");
    fails_with("search: [1\n", "a.yaml:2: not valid YAML");
    fails_with("serch: 1\n", "unknown key serch");
    fails_with("- 1\n", "top level must be keys");
    fails_with("search: {beam: [1]}\n", "must be a section");
    char deep[256] = "search: ";
    for (int i = 0; i < 20; i++) strcat(deep, "{a: ");
    strcat(deep, "1");
    for (int i = 0; i < 20; i++) strcat(deep, "}");
    fails_with(deep, "nested deeper than 16");
}
END_TEST

START_TEST(set_errors) {
    pn_config *c;
    ck_ok(pn_config_parse("a.yaml", "list: [{a: 1}]\n", &c));
    ck_assert_int_eq(pn_config_set(c, "width"), PN_USAGE);
    ck_assert_int_eq(pn_config_set(c, "list.3.a=1"), PN_USAGE);
    ck_ok(pn_config_set(c, "list.0.a=2"));
    ck_ok(pn_config_set(c, "fresh.section.key=2"));
    ck_assert(pn_config_has(c, "fresh.section.key"));
    pn_config_destroy(&c);
}
END_TEST

TEST_MAIN("config", values_and_defaults, printed_config_loads_again, errors_name_place_and_remedy, set_errors)
