/* What the program says of itself is whole and true: help of commands, keys of configurations, the pages in docs/. */
#include "harness.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wordexp.h>

#include "args.h"
#include "registry.h"

static void ends_with_newline(const pn_command *c, const char *what, const char *text) {
    ck_assert_msg(text && *text && text[strlen(text) - 1] == '\n', "postnas %s: %s", c->name, what);
}

/* The command line at `line`, with the lines that a backslash joins to it. */
static void command_line(const char *line, char *out, size_t room) {
    size_t n = 0;
    for (const char *p = line; *p && (*p != '\n' || p[-1] == '\\'); p++) {
        if (*p == '\n') n--; /* the backslash */
        ck_assert_uint_lt(n, room - 1);
        out[n++] = *p == '\n' ? ' ' : *p;
    }
    out[n] = '\0';
}

/* Examples can be copied: their commands and options exist. */
START_TEST(every_command_teaches) {
    int n;
    const pn_command *const *commands = pn_commands(&n);
    for (int i = 0; i < n; i++) {
        const pn_command *c = commands[i];
        ends_with_newline(c, "help", c->help);
        ends_with_newline(c, "reads", c->reads);
        ends_with_newline(c, "writes", c->writes);
        ends_with_newline(c, "see", c->see);
        int examples = 0;
        for (const char *p = c->help; (p = strstr(p, "    postnas ")); p++) {
            char line[512];
            wordexp_t words;
            pn_args args;
            command_line(p + strspn(p, " "), line, sizeof line);
            ck_assert_msg(wordexp(line, &words, WRDE_NOCMD | WRDE_UNDEF) == 0, "%s", line);
            ck_assert_uint_ge(words.we_wordc, 2);
            const pn_command *named = pn_command_find(words.we_wordv[1]);
            ck_assert_msg(named != NULL, "%s", line);
            pn_status s = pn_args_parse(named, (int)words.we_wordc - 1, words.we_wordv + 1, &args);
            ck_assert_msg(s == PN_OK, "%s: %s", line, pn_error_message());
            pn_args_free(&args);
            wordfree(&words);
            examples += named == c;
        }
        ck_assert_msg(examples > 0, "postnas %s has no example", c->name);
    }
}
END_TEST

/* Defaults of options are values that the options take. */
START_TEST(defaults_are_used) {
    char name[] = "generate", model[] = "m";
    pn_args a;
    ck_ok(pn_args_parse(pn_command_find("generate"), 2, (char *[]){ name, model, NULL }, &a));
    int64_t tokens = 0;
    double top_p = 0;
    ck_ok(pn_args_i64(&a, "tokens", 1, 1000, &tokens));
    ck_ok(pn_args_f64(&a, "top-p", 0, 1, &top_p));
    ck_assert_int_eq(tokens, 64);
    ck_assert_double_eq(top_p, 1);
    ck_assert(!pn_args_has(&a, "tokens"));
    ck_assert_ptr_null(pn_args_value(&a, "prompt"));
    pn_args_free(&a);
}
END_TEST

/* ---- keys ---- */

/* The example, or else the default, is a value that the key takes. */
static void check_key(const char *path, const pn_option *row) {
    static _Alignas(64) unsigned char out[1 << 17];
    ck_assert_msg(row->help && *row->help, "%s.%s says nothing", path, row->name);
    if (row->kind == PN_OPTION_SECTION) return;
    ck_assert_msg(row->def || row->example, "%s.%s has neither a default nor an example", path, row->name);
    ck_assert_uint_lt(row->offset, sizeof out - sizeof(pn_string_list));
    char text[512];
    const pn_option table[] = { *row, PN_OPT_END };
    pn_config *c;
    snprintf(text, sizeof text, "%s: %s\n", row->name, row->example ? row->example : row->def);
    if (!row->example && row->kind == PN_OPTION_STRING) *text = '\0'; /* a default need not be YAML */
    ck_ok(pn_config_parse(path, text, &c));
    ck_ok(pn_config_read(c, "", table, out));
    ck_ok(pn_config_finish(c));
    pn_config_destroy(&c);
}

START_TEST(every_key_has_an_example) {
    int n, n_kinds, keys = 0;
    const pn_command *const *commands = pn_commands(&n);
    for (int i = 0; i < n; i++)
        for (const pn_config_section *s = commands[i]->sections; s && s->path; s++) {
            ck_assert_msg(!s->table == !!s->kind && (!s->kind || pn_registry_find(s->kind)), "%s", s->path);
            for (const pn_option *o = s->table; o && o->name; o++, keys++) check_key(s->path, o);
        }
    const pn_registry *kinds = pn_registries(&n_kinds);
    for (int k = 0; k < n_kinds; k++)
        for (int i = 0; i < kinds[k].count(); i++) {
            pn_registered item = kinds[k].at(i);
            for (const pn_option *o = item.options; o && o->name; o++, keys++) check_key(item.name, o);
        }
    ck_assert_int_gt(keys, 100);
}
END_TEST

typedef struct reading {
    const pn_command *command;
    int tables;
} reading;

static bool registered(const char *kind, const pn_option *table) {
    const pn_registry *r = pn_registry_find(kind);
    for (int i = 0; r && i < r->count(); i++)
        if (r->at(i).options == table) return true;
    return false;
}

/* "search.STRATEGY" stands for the section of any strategy. */
static bool same_section(const char *listed, const char *read) {
    const char *dot = strrchr(listed, '.');
    if (!dot || dot[1] < 'A' || dot[1] > 'Z') return !strcmp(listed, read);
    size_t n = (size_t)(dot + 1 - listed);
    return !strncmp(listed, read, n) && !strchr(read + n, '.');
}

static void is_listed(void *ctx, const char *path, const pn_option *table) {
    reading *r = ctx;
    r->tables++;
    for (const pn_config_section *s = r->command->sections; s->path; s++)
        if (same_section(s->path, path) && (s->kind ? registered(s->kind, table) : s->table == table)) return;
    ck_assert_msg(false, "%s reads keys of section \"%s\" that its list of sections leaves out (first: %s)",
                  r->command->name, path, table->name);
}

/* What reading a configuration asks for is what the list of all keys shows. */
START_TEST(every_section_that_is_read_is_listed) {
    static const struct {
        const char *command, *file;
    } files[] = { { "search", "/configs/quickstart.yaml" },
                  { "finetune", "/experiments/01-quickstart-base/base.yaml" },
                  { "finetune", "/configs/quickstart-finetune.yaml" },
                  { "finetune", "/configs/jet-nemotron-2b.yaml" },
                  { "finetune", "/configs/jet-nemotron-4b.yaml" } };
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0); /* what the files name is relative to it */
    for (int i = 0; i < (int)(sizeof files / sizeof *files); i++) {
        reading r = { .command = pn_command_find(files[i].command) };
        pn_config *c;
        char path[512];
        snprintf(path, sizeof path, POSTNAS_SOURCE_DIR "%s", files[i].file);
        ck_ok(pn_config_load(path, &c));
        ck_ok(r.command->read_config(c));
        pn_config_each_table(c, is_listed, &r);
        ck_assert_int_gt(r.tables, 5);
        pn_config_destroy(&c);
    }
}
END_TEST

START_TEST(the_pages_are_current) {
    int status = system(POSTNAS_SOURCE_DIR "/scripts/docs.sh --check --program " POSTNAS_BIN);
    ck_assert_msg(status == 0, "run scripts/docs.sh and commit docs/");
}
END_TEST

TEST_MAIN("docs", every_command_teaches, defaults_are_used, every_key_has_an_example,
          every_section_that_is_read_is_listed, the_pages_are_current)
