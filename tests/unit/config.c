#include "harness.h"
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "files.h"
#include "rng.h"

typedef struct beam {
    int64_t width, kind, n_steps;
    double margin;
    bool verbose;
    const char *name;
    pn_int_list sizes;
    pn_string_list tasks, tags;
} beam;

static const char *const kinds[] = { "slow", "fast", NULL };
static const pn_option table[] = {
    PN_OPT_INT(beam, width, 2, 1, 100, "paths kept"),
    PN_OPT_ENUM(beam, kind, "slow", kinds, "how"),
    PN_OPT_INT(beam, n_steps, 1000, 0, INT64_MAX, "steps"),
    PN_OPT_FLOAT(beam, margin, 0.25, 0, 1, "margin"),
    PN_OPT_BOOL(beam, verbose, false, "talk"),
    PN_OPT_STRING(beam, name, NULL, "a name"),
    PN_OPT_INTS(beam, sizes, "[64, 128]", 1, 1000, "sizes"),
    PN_OPT_STRINGS(beam, tasks, "[lambada, recall]", "tasks"),
    PN_OPT_STRINGS(beam, tags, NULL, "tags"),
    PN_OPT_END,
};

static pn_status read_beam(const char *text, const char *set, beam *b) {
    pn_config *c = NULL;
    pn_status s = pn_config_parse("a.yaml", text, &c);
    if (!s && set) s = pn_config_set(c, set);
    if (!s) s = pn_config_read(c, "search.beam", table, b);
    if (!s) s = pn_config_finish(c);
    pn_config_destroy(&c);
    return s;
}

static void fails_with(const char *text, const char *message) {
    beam b;
    ck_assert_int_eq(read_beam(text, NULL, &b), PN_USAGE);
    ck_assert_str_eq(pn_error_message(), message);
}

static void set_fails_with(const char *text, const char *set, const char *message) {
    beam b;
    ck_assert_int_eq(read_beam(text, set, &b), PN_USAGE);
    ck_assert_str_eq(pn_error_message(), message);
}

static char *printed(const pn_config *c) {
    static char text[1 << 16];
    memset(text, 0, sizeof text);
    FILE *f = fmemopen(text, sizeof text - 1, "w");
    pn_config_print(c, f);
    fclose(f);
    return text;
}

START_TEST(values_and_defaults) {
    pn_config *c;
    beam b;
    ck_ok(pn_config_parse("a.yaml",
                          "search:\n  beam:\n    width: 7\n    kind: fast\n    name: \"a b\"\n    sizes: [1, 2, 3]\n"
                          "    n_steps: 2e6\n    verbose: True\n    tasks:\n      - one\n      - two\n    tags: only\n",
                          &c));
    ck_ok(pn_config_set(c, "search.beam.margin=0.5"));
    ck_ok(pn_config_read(c, "search.beam", table, &b));
    ck_ok(pn_config_finish(c));
    ck_assert_int_eq(b.width, 7);
    ck_assert_int_eq(b.kind, 1);
    ck_assert_int_eq(b.n_steps, 2000000);
    ck_assert(b.verbose);
    ck_assert_double_eq(b.margin, 0.5);
    ck_assert_str_eq(b.name, "a b");
    ck_assert_int_eq(b.sizes.n, 3);
    ck_assert_int_eq(b.sizes.item[2], 3);
    ck_assert_int_eq(b.tasks.n, 2);
    ck_assert_str_eq(b.tasks.item[1], "two");
    ck_assert_int_eq(b.tags.n, 1); /* a value alone is a list of one */
    ck_assert_str_eq(b.tags.item[0], "only");
    pn_config_destroy(&c);
    pn_config_destroy(&c);

    /* nothing said, or null said */
    const char *silent[] = { "", "---\n", "search:\n", "search:\n  beam:\n",
                             "search: {beam: {width: ~, name: null, tasks: , sizes: ~}}\n" };
    for (size_t i = 0; i < sizeof silent / sizeof *silent; i++) {
        ck_ok(read_beam(silent[i], NULL, &b));
        ck_assert_int_eq(b.width, 2);
        ck_assert_int_eq(b.kind, 0);
        ck_assert_ptr_null(b.name);
        ck_assert(b.sizes.n == 2 && b.sizes.item[1] == 128);
        ck_assert(b.tasks.n == 2 && !strcmp(b.tasks.item[0], "lambada") && !strcmp(b.tasks.item[1], "recall"));
        ck_assert_int_eq(b.tags.n, 0);
    }
}
END_TEST

START_TEST(errors_name_place_and_remedy) {
    fails_with("search:\n  beam:\n    widht: 7\n",
               "a.yaml:3: unknown key search.beam.widht; did you mean width? Known keys: width, kind, n_steps, margin, "
               "verbose, name, sizes, tasks, tags");
    fails_with("search:\n  beam:\n    zzzzz: 7\n",
               "a.yaml:3: unknown key search.beam.zzzzz; known keys: width, kind, n_steps, margin, verbose, name, "
               "sizes, tasks, tags");
    fails_with("serch: 1\n", "a.yaml:1: unknown key serch; did you mean search? Known keys: search");
    fails_with("search: {bean: {width: 1}}\n",
               "a.yaml:1: unknown key search.bean; did you mean beam? Known keys: beam");
    fails_with("search:\n  beam:\n    width: 700\n", "a.yaml:3: search.beam: width is 700; it must lie in 1 .. 100");
    fails_with("search:\n  beam:\n    n_steps: -1\n", "a.yaml:3: search.beam: n_steps is -1; it must be at least 0");
    fails_with("search:\n  beam:\n    width: x\n", "a.yaml:3: search.beam: width is \"x\"; it must be a whole number");
    fails_with("search:\n  beam:\n    width: 1.5\n",
               "a.yaml:3: search.beam: width is \"1.5\"; it must be a whole number");
    fails_with("search: {beam: {width: 99999999999999999999}}\n",
               "a.yaml:1: search.beam: width is \"99999999999999999999\"; it must be a whole number");
    fails_with("search:\n  beam:\n    margin: .nan\n",
               "a.yaml:3: search.beam: margin is \".nan\"; it must be a number");
    fails_with("search:\n  beam:\n    margin: 1.25\n", "a.yaml:3: search.beam: margin is 1.25; it must lie in 0 .. 1");
    fails_with("search:\n  beam:\n    verbose: 1\n",
               "a.yaml:3: search.beam: verbose is \"1\"; it must be true or false");
    fails_with("search:\n  beam:\n    kind: fst\n",
               "a.yaml:3: search.beam: kind is \"fst\"; did you mean fast? it must be one of: slow, fast");
    fails_with("search:\n  beam:\n    kind: quick\n",
               "a.yaml:3: search.beam: kind is \"quick\"; it must be one of: slow, fast");
    fails_with("search:\n  beam:\n    width: [1]\n", "a.yaml:3: search.beam: width must be a single value");
    fails_with("search:\n  beam:\n    sizes: {a: 1}\n", "a.yaml:3: search.beam: sizes must be a list");
    fails_with("search:\n  beam:\n    sizes:\n      - 1\n      - [2]\n",
               "a.yaml:5: search.beam: sizes must be a list of values");
    fails_with("search:\n  beam:\n    sizes:\n      - 1\n      - 2000\n",
               "a.yaml:5: search.beam: sizes is 2000; it must lie in 1 .. 1000");
    fails_with("search:\n  beam:\n    width: 1\n    width: 2\n", "a.yaml:4: key width stands twice; remove one");
    fails_with("search:\n  beam: &x\n    width: 1\n",
               "a.yaml:2: anchors and aliases are not supported; write the value out");
    fails_with("search: *x\n", "a.yaml:1: anchors and aliases are not supported; write the value out");
    fails_with("search:\n  <<: {a: 1}\n",
               "a.yaml:2: a key must be a plain word of at most 63 letters, digits, _ and -");
    fails_with("? [a]\n: 1\n", "a.yaml:1: a key must be a plain word of at most 63 letters, digits, _ and -");
    fails_with("a.b: 1\n", "a.yaml:1: a key must be a plain word of at most 63 letters, digits, _ and -");
    fails_with("search: !!int 1\n", "a.yaml:1: tags (\"!\") are not supported; the key decides the type of its value");
    fails_with("search:\n  beam:\n    name: \"a\\0b\"\n", "a.yaml:3: a value holds a NUL byte");
    fails_with("- 1\n", "a.yaml: the top level must be keys and values");
    fails_with("a: 1\n---\nb: 2\n", "a.yaml: more than one YAML document");
    fails_with("search: {beam: [1]}\n", "a.yaml:1: search.beam: must be a section with keys of its own");
    beam b;
    ck_assert_int_eq(read_beam("search: [1\n", NULL, &b), PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "a.yaml:2: not valid YAML: "));

    char many[70 * 12] = "search: {beam: {sizes: [1";
    for (int i = 0; i < 64; i++) strcat(many, ", 1");
    strcat(many, "]}}");
    fails_with(many, "a.yaml:1: search.beam: sizes has more than 64 items");

    /* 16 levels are taken, 17 are not; the message is the parser's, before any table is asked */
    char deep[256] = "";
    pn_config *c;
    for (int i = 0; i < 16; i++) strcat(deep, "{a: ");
    strcat(deep, "1}}}}}}}}}}}}}}}}");
    ck_ok(pn_config_parse("a.yaml", deep, &c));
    pn_config_destroy(&c);
    deep[0] = '\0';
    for (int i = 0; i < 17; i++) strcat(deep, "{a: ");
    strcat(deep, "1}}}}}}}}}}}}}}}}}");
    fails_with(deep, "a.yaml:1: nested deeper than 16 levels");
}
END_TEST

START_TEST(files_that_cannot_be_read) {
    pn_config *c = NULL;
    ck_assert_int_eq(pn_config_load("/nowhere/a.yaml", &c), PN_IO);
    ck_assert_str_eq(pn_error_message(), "/nowhere/a.yaml: cannot open: No such file or directory");
    char path[] = "/tmp/postnas-config-XXXXXX";
    close(mkstemp(path));
    char *big = malloc((1 << 20) + 1);
    memset(big, '#', (1 << 20) + 1);
    ck_ok(pn_file_write(path, big, (1 << 20) + 1));
    ck_assert_int_eq(pn_config_load(path, &c), PN_IO);
    ck_ok(pn_file_write(path, "a: \xff\n", 5)); /* not UTF-8 */
    ck_assert_int_eq(pn_config_load(path, &c), PN_USAGE);
    ck_assert_ptr_null(c);
    free(big);
    remove(path);
}
END_TEST

START_TEST(set) {
    beam b;
    pn_config *c;
    set_fails_with("", "width", "--set width: write it as key=value, for example search.beam.width=4");
    set_fails_with("", "=4", "--set =4: write it as key=value, for example search.beam.width=4");
    set_fails_with("", "a..b=4", "--set a..b=4: a key must be a plain word of letters, digits, _ and -");
    set_fails_with("", "a b=4", "--set a b=4: a key must be a plain word of letters, digits, _ and -");
    set_fails_with("list: [{a: 1}]\n", "list.3.a=1", "--set list.3.a=1: the list there has 1 elements, counted from 0");
    set_fails_with("list: [{a: 1}]\n", "list.x.a=1", "--set list.x.a=1: the list there has 1 elements, counted from 0");
    set_fails_with("a: 1\n", "a.b=1", "--set a.b=1: b lies inside a plain value");
    set_fails_with("", "a=[1", "--set a=[1: not valid YAML: did not find expected ',' or ']'");
    set_fails_with("", "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a=1",
                   "--set a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a=1: nested deeper than 16 levels");
    set_fails_with(
        "", "search.beam.widht=4",
        "--set: unknown key search.beam.widht; did you mean width? Known keys: width, kind, n_steps, margin, "
        "verbose, name, sizes, tasks, tags");
    set_fails_with("", "search.beam.width=400", "--set: search.beam: width is 400; it must lie in 1 .. 100");
    ck_ok(read_beam("search:\n", "search.beam.width=4", &b)); /* below a section that says nothing */
    ck_assert_int_eq(b.width, 4);
    ck_ok(read_beam("search: {beam: {width: 9}}\n", "search.beam.width=", &b)); /* back to the default */
    ck_assert_int_eq(b.width, 2);
    ck_ok(read_beam("search: {beam: {width: 9}}\n", "search={beam: {width: 5, sizes: [8]}}", &b));
    ck_assert_int_eq(b.width, 5);
    ck_assert(b.sizes.n == 1 && b.sizes.item[0] == 8);

    ck_ok(pn_config_parse("a.yaml", "list:\n  - {a: 1}\n  - {a: 2}\n", &c));
    ck_ok(pn_config_set(c, "list.1.a=7"));
    ck_ok(pn_config_set(c, "fresh.section.key=2"));
    ck_assert(pn_config_has(c, "fresh.section.key"));
    ck_assert_str_eq(printed(c), "list:\n"
                                 "  - a: 1  # a.yaml:2\n"
                                 "  - a: 7  # --set\n"
                                 "fresh:\n"
                                 "  section:\n"
                                 "    key: 2  # --set\n");
    pn_config_destroy(&c);
}
END_TEST

typedef struct element {
    int64_t heads;
    const char *block;
} element;
static const pn_option element_table[] = { PN_OPT_INT(element, heads, 4, 1, 64, "heads"),
                                           PN_OPT_STRING(element, block, "jet", "block"), PN_OPT_END };

START_TEST(lists_of_sections) {
    pn_config *c;
    element e;
    int n;
    ck_ok(
        pn_config_parse("a.yaml", "net:\n  blocks:\n    - block: swa\n    - block: gla\n      heads: 8\n    -\n", &c));
    ck_ok(pn_config_list_size(c, "net.blocks", &n));
    ck_assert_int_eq(n, 3);
    ck_ok(pn_config_read(c, "net.blocks.0", element_table, &e));
    ck_assert(e.heads == 4 && !strcmp(e.block, "swa"));
    ck_ok(pn_config_read(c, "net.blocks.1", element_table, &e));
    ck_assert(e.heads == 8 && !strcmp(e.block, "gla"));
    ck_assert_int_eq(pn_config_finish(c), PN_USAGE);
    ck_assert_str_eq(pn_error_message(), "a.yaml:6: net.blocks.2 is not read by anything; remove it");
    ck_ok(pn_config_read(c, "net.blocks.2", element_table, &e));
    ck_assert(e.heads == 4 && !strcmp(e.block, "jet"));
    ck_assert_int_eq(pn_config_read(c, "net.blocks.3", element_table, &e), PN_USAGE);
    ck_ok(pn_config_finish(c));
    ck_ok(pn_config_list_size(c, "net.none", &n));
    ck_assert_int_eq(n, 0);
    ck_assert_int_eq(pn_config_list_size(c, "net", &n), PN_USAGE);
    ck_assert_str_eq(pn_config_where(c, "net.blocks.1.heads"), "a.yaml:5: net.blocks.1.heads");
    const char *const *keys;
    ck_assert_int_eq(pn_config_keys(c, "net.blocks.1", &keys), 2);
    ck_assert(!strcmp(keys[0], "block") && !strcmp(keys[1], "heads"));
    ck_assert_int_eq(pn_config_keys(c, "net.blocks.2", &keys), 0); /* defaults are not said */
    ck_assert(pn_config_has(c, "net.blocks.1.heads") && !pn_config_has(c, "net.blocks.0.heads"));
    pn_config_destroy(&c);
}
END_TEST

static void strip_comments(char *text) {
    for (char *p = text; (p = strstr(p, "  # "));) memmove(p, p + strcspn(p, "\n"), strlen(p + strcspn(p, "\n")) + 1);
}

START_TEST(printed_config_loads_again) {
    pn_config *c, *again;
    beam b, b2;
    char path[] = "/tmp/postnas-config-XXXXXX";
    ck_ok(pn_config_parse("a.yaml", "search:\n  beam:\n    width: 7\n    margin: ~\n    tags: [a, \"b, c\"]\n", &c));
    ck_ok(pn_config_read(c, "search.beam", table, &b));
    ck_assert_str_eq(printed(c), "search:\n"
                                 "  beam:\n"
                                 "    width: 7  # a.yaml:3\n"
                                 "    margin: 0.25  # default\n"
                                 "    tags: [a, \"b, c\"]  # a.yaml:5\n"
                                 "    kind: slow  # default\n"
                                 "    n_steps: 1000  # default\n"
                                 "    verbose: false  # default\n"
                                 "    name: ~  # default\n"
                                 "    sizes: [64, 128]  # default\n"
                                 "    tasks: [lambada, recall]  # default\n");
    close(mkstemp(path));
    ck_ok(pn_config_write(c, path));
    ck_ok(pn_config_load(path, &again));
    ck_ok(pn_config_read(again, "search.beam", table, &b2));
    ck_ok(pn_config_finish(again));
    ck_assert(b2.width == 7 && b2.margin == 0.25 && b2.sizes.n == 2 && b2.sizes.item[1] == 128 && !b2.name);
    ck_assert(b2.tags.n == 2 && !strcmp(b2.tags.item[1], "b, c") && b2.tasks.n == 2);
    pn_config_destroy(&again);
    pn_config_destroy(&c);
    remove(path);

    /* shapes a section can have, and back */
    const char *shapes = "a: {}\nb: []\nc:\nd: [[1, 2], [], {}, [[3]], {x: {y: 1}, z: [1]}]\ne: {f: {g: -1}}\n";
    char first[1 << 12];
    ck_ok(pn_config_parse("x", shapes, &c));
    strcpy(first, printed(c));
    ck_ok(pn_config_parse("x", first, &again));
    strip_comments(first);
    ck_assert_str_eq(first, "a: {}\nb: []\nc: ~\nd:\n  - [1, 2]\n  - []\n  - {}\n  - - [3]\n  - x:\n      y: 1\n"
                            "    z: [1]\ne:\n  f:\n    g: -1\n");
    char *second = printed(again);
    strip_comments(second);
    ck_assert_str_eq(first, second);
    pn_config_destroy(&again);
    pn_config_destroy(&c);
    ck_ok(pn_config_parse("x", "", &c));
    ck_assert_str_eq(printed(c), "{}\n");
    pn_config_destroy(&c);
}
END_TEST

static void text_round_trips(const char *text) {
    pn_config *c;
    pn_buf b = { 0 };
    beam got;
    pn_buf_text(&b, "search: {beam: {tags: [x, ");
    pn_yaml_string(text, &b);
    pn_buf_text(&b, "], name: ");
    pn_yaml_string(text, &b);
    pn_buf_text(&b, " }}  # comment\n");
    ck_ok(pn_buf_status(&b));
    ck_ok(pn_config_parse("x", pn_buf_string(&b), &c));
    ck_ok(pn_config_read(c, "search.beam", table, &got));
    ck_assert_ptr_nonnull(got.name);
    ck_assert_str_eq(got.name, text);
    ck_assert_str_eq(got.tags.item[1], text);
    pn_config_destroy(&c);
    pn_buf_free(&b);
}

START_TEST(every_text_round_trips) {
    static const char *const hard[] = { "",     " ",   "~",    "null", "NULL", "true", "12", "-",  "-1", "- a",
                                        "---",  "...", "a: b", "a #b", "#",    "?",    "*a", "&a", "!a", "%a",
                                        "@a",   "`a",  "'",    "\"",   "\\",   "\\n",  "=",  "<<", " a", "a ",
                                        "a\nb", "\t",  "\r",   "[a]",  "{a}",  "a,b",  "a]", "|",  ">" };
    for (size_t i = 0; i < sizeof hard / sizeof *hard; i++) text_round_trips(hard[i]);
    for (unsigned code = 1; code < 0x10000; code += code < 0x3000 || code > 0xfe00 ? 1 : 97) {
        char text[8];
        if (code >= 0xd800 && code < 0xe000) continue;
        if (code < 0x80)
            snprintf(text, sizeof text, "a%cb", (int)code);
        else if (code < 0x800)
            snprintf(text, sizeof text, "%c%cb", (int)(0xc0 | code >> 6), (int)(0x80 | (code & 63)));
        else
            snprintf(text, sizeof text, "%c%c%cb", (int)(0xe0 | code >> 12), (int)(0x80 | (code >> 6 & 63)),
                     (int)(0x80 | (code & 63)));
        text_round_trips(text);
    }
    char *longest = malloc(100001);
    memset(longest, 'x', 100000);
    longest[100000] = '\0';
    longest[5] = ' ';
    text_round_trips(longest);
    free(longest);
}
END_TEST

START_TEST(help_names_every_key) {
    char text[4096] = "";
    FILE *f = fmemopen(text, sizeof text - 1, "w");
    pn_config *c;
    beam b;
    ck_ok(pn_config_parse("x", "", &c));
    ck_ok(pn_config_read(c, "search.beam", table, &b));
    ck_ok(pn_config_read(c, "search.beam", table, &b)); /* twice is once */
    pn_config_help(c, f);
    fclose(f);
    ck_assert(!strncmp(text, "search.beam\n  width ", 20));
    for (const pn_option *o = table; o->name; o++) {
        ck_assert_ptr_nonnull(strstr(text, o->name));
        ck_assert_ptr_nonnull(strstr(text, o->help));
    }
    ck_assert_ptr_nonnull(strstr(text, "(a whole number in 1 .. 100; default 2)"));
    ck_assert_ptr_nonnull(strstr(text, "(a whole number at least 0; default 1000)"));
    ck_assert_ptr_nonnull(strstr(text, "slow | fast; default slow)"));
    ck_assert_ptr_null(strstr(strstr(text, "paths kept") + 1, "paths kept"));
    pn_config_destroy(&c);
}
END_TEST

/* Whatever bytes come, the parser says yes or USAGE; what it took, it prints so that it loads again. */
START_TEST(mutated_files) {
    static const char good[] = "search:\n  beam: {width: 7, name: \"a\\tb\", sizes: [1, 2]}\nlist:\n  - a: 1\n  - ~\n";
    static const char bytes[] = ":-[]{},#&*!|>'\"%@`\n\t \\ab01~?.\xc2\x85\xff";
    pn_rng r;
    int taken = 0;
    pn_rng_stream(1, "mutated configs", 0, &r);
    for (int i = 0; i < 20000; i++) {
        char text[sizeof good];
        memcpy(text, good, sizeof good);
        for (uint64_t k = 1 + pn_rng_below(&r, 4); k; k--)
            text[pn_rng_below(&r, sizeof good - 1)] = bytes[pn_rng_below(&r, sizeof bytes - 1)];
        pn_config *c = NULL, *again = NULL;
        pn_status s = pn_config_parse("a", text, &c);
        ck_assert(s == PN_OK || s == PN_USAGE);
        if (s) continue;
        taken++;
        beam b;
        char first[4096];
        strcpy(first, printed(c));
        ck_assert_msg(pn_config_parse("a", first, &again) == PN_OK, "%s\n%s\n%s", text, first, pn_error_message());
        pn_config_destroy(&again);
        s = pn_config_read(c, "search.beam", table, &b);
        ck_assert(s == PN_OK || s == PN_USAGE);
        pn_config_destroy(&c);
    }
    ck_assert_int_gt(taken, 1000);
}
END_TEST

/* ---- comparing ---- */

typedef struct stage {
    int64_t tokens, keep;
    pn_ramp kl;
    const char *name;
} stage;

static const pn_option stage_rows[] = {
    PN_OPT_INT(stage, tokens, 1000, 0, 1e9, "of a stage"),
    PN_OPT_INT(stage, keep, 2, 1, 9, "how many stay", .incidental = true),
    PN_OPT_RAMP(stage, kl, 1, 0, 1, "weight"),
    PN_OPT_STRING(stage, name, NULL, "a name", .example = "a"),
    PN_OPT_END,
};
static const pn_option top_rows[] = { PN_OPT_SECTION("stages", "some"),
                                      PN_OPT_SECTION("ranks", "how they meet", .incidental = true), PN_OPT_END };

static pn_config *staged(const char *text) {
    pn_config *c;
    stage s;
    int n;
    ck_ok(pn_config_parse("a.yaml", text, &c));
    ck_ok(pn_config_read(c, "", top_rows, NULL));
    ck_ok(pn_config_read(c, "ranks", stage_rows, &s));
    ck_ok(pn_config_list_size(c, "stages", &n));
    for (int i = 0; i < n; i++) {
        char path[32];
        snprintf(path, sizeof path, "stages.%d", i);
        ck_ok(pn_config_read(c, path, stage_rows, &s));
    }
    ck_ok(pn_config_finish(c));
    return c;
}

/* What the print of `before` and `now` differ in: "where|value|before", "" for nothing. */
static void ck_difference(const char *before, const char *now, const char *expected) {
    pn_config *a = staged(before), *b = staged(now), *printed;
    pn_config_difference d;
    char *text, said[1100] = "";
    size_t n;
    FILE *f = open_memstream(&text, &n);
    pn_config_print(a, f);
    ck_assert_int_eq(fclose(f), 0);
    ck_ok(pn_config_parse("run/config.yaml", text, &printed));
    if (pn_config_differs(b, printed, &d)) snprintf(said, sizeof said, "%s|%s|%s", d.where, d.value, d.before);
    ck_assert_str_eq(said, expected);
    free(text);
    pn_config_destroy(&a);
    pn_config_destroy(&b);
    pn_config_destroy(&printed);
}

START_TEST(the_first_value_that_differs) {
    static const char two[] = "stages:\n- {tokens: 5, kl: [1, 0.1], name: \"a: b\"}\n- {keep: 3}\n";
    ck_difference(two, two, "");
    ck_difference("stages: []\nranks:\n", "stages: []\n", "");
    ck_difference(two, "stages:\n- {tokens: 5, kl: [1.0, 1e-1], name: \"a: b\", keep: 7}\n- {tokens: 1e3}\n", "");
    ck_difference(two, "ranks: {tokens: 9}\nstages:\n- {tokens: 5, kl: [1, 0.1], name: \"a: b\"}\n- {keep: 3}\n", "");
    ck_difference(two, "stages:\n- {tokens: 5, kl: [1, 0.1], name: \"a: b\"}\n- {tokens: 6}\n",
                  "a.yaml:3: stages.1.tokens|6|1000");
    ck_difference(two, "stages:\n- {tokens: 5, kl: [1, 0.2], name: \"a: b\"}\n- {keep: 3}\n",
                  "a.yaml:2: stages.0.kl.1|0.2|0.1");
    ck_difference(two, "stages:\n- {tokens: 5, kl: 1, name: \"a: b\"}\n- {keep: 3}\n",
                  "a.yaml:2: stages.0.kl|1|[1, 0.1]");
    ck_difference(two, "stages:\n- {tokens: 5, kl: [1, 0.1]}\n- {keep: 3}\n", "default: stages.0.name|~|\"a: b\"");
    ck_difference(two, "stages:\n- {tokens: 5, kl: [1, 0.1], name: \"a: b\"}\n", "a.yaml: stages.1|not set|a section");
    ck_difference("stages:\n- {name: 1}\n", "stages:\n- {name: 1.0}\n", "a.yaml:2: stages.0.name|1.0|1");
}
END_TEST

TEST_MAIN("config", the_first_value_that_differs, values_and_defaults, errors_name_place_and_remedy,
          files_that_cannot_be_read, set, lists_of_sections, printed_config_loads_again, every_text_round_trips,
          help_names_every_key, mutated_files)
