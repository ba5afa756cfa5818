#include "config_keys.h"

#include <stdlib.h>
#include <string.h>

#include "registry.h"

/* ---- for a terminal ---- */

static bool continues(const pn_config_section *first, const pn_config_section *s) {
    return s > first && !strcmp(s[-1].path, s->path);
}

void pn_config_keys_print(const pn_command *command, FILE *out) {
    for (const pn_config_section *s = command->sections; s->path; s++) {
        if (!continues(command->sections, s)) fprintf(out, "%s\n", *s->path ? s->path : "top level");
        if (s->kind)
            fprintf(out, "  and the keys of the one that is named: `postnas list %s NAME`\n", s->kind);
        else
            pn_options_help(s->table, 2, out);
    }
}

/* ---- Markdown ---- */

/* A table's cell: the bar ends it, also inside code. */
static void cell(const char *text, FILE *out) {
    for (; *text; text++) {
        if (*text == '|') fputc('\\', out);
        fputc(*text, out);
    }
}

static void code_cell(const char *text, FILE *out) {
    fputc('`', out);
    cell(text, out);
    fputc('`', out);
}

static void key_row(const pn_option *o, FILE *out) {
    pn_buf type = { 0 }, def = { 0 };
    pn_option_type_text(o, &type);
    pn_option_default_text(o, &def);
    fputs("| ", out);
    code_cell(o->name, out);
    fputs(" | ", out);
    cell(pn_buf_string(&type), out);
    fputs(" | ", out);
    if (o->def)
        code_cell(pn_buf_string(&def), out);
    else if (o->kind != PN_OPTION_SECTION)
        fputs("none", out);
    fputs(" | ", out);
    cell(o->help, out);
    fputs(" | ", out);
    if (o->kind != PN_OPTION_SECTION) {
        pn_buf example = { 0 };
        pn_buf_printf(&example, "%s: %s", o->name, o->example ? o->example : pn_buf_string(&def));
        code_cell(pn_buf_string(&example), out);
        pn_buf_free(&example);
    }
    fputs(" |\n", out);
    pn_buf_free(&type);
    pn_buf_free(&def);
}

static void table_head(FILE *out) {
    fputs("\n| key | value | default | meaning | example |\n| --- | --- | --- | --- | --- |\n", out);
}

static void command_page(const pn_command *command, FILE *out) {
    fprintf(out, "\n## %s\n\n`postnas %s`: %s. On a terminal: `postnas config %s --keys`.\n", command->name,
            command->name, command->summary, command->name);
    bool in_table = false;
    for (const pn_config_section *s = command->sections; s->path; s++) {
        if (!continues(command->sections, s)) {
            if (*s->path)
                fprintf(out, "\n### %s: `%s`\n", command->name, s->path);
            else
                fprintf(out, "\n### %s: top level\n", command->name);
            in_table = false;
        }
        if (s->kind) {
            fprintf(out, "\nAnd the keys of the one that is named, under [%s](#%s).\n", s->kind, s->kind);
            in_table = false;
            continue;
        }
        if (!in_table) table_head(out);
        in_table = true;
        for (const pn_option *o = s->table; o->name; o++) key_row(o, out);
    }
}

static void registry_page(const pn_registry *kind, FILE *out) {
    fprintf(out, "\n## %s\n\nOn a terminal: `postnas list %s NAME`.\n", kind->name, kind->name);
    for (int i = 0; i < kind->count(); i++) {
        pn_registered item = kind->at(i);
        fprintf(out, "\n### %s: `%s`\n\n%s.\n", kind->name, item.name, item.summary);
        if (!item.options || !item.options->name) continue;
        table_head(out);
        for (const pn_option *o = item.options; o->name; o++) key_row(o, out);
    }
}

/* Kinds whose options some command's configuration takes. */
static bool in_configurations(const char *kind) {
    int n;
    const pn_command *const *commands = pn_commands(&n);
    for (int i = 0; i < n; i++)
        for (const pn_config_section *s = commands[i]->sections; s && s->path; s++)
            if (s->kind && !strcmp(s->kind, kind)) return true;
    return false;
}

void pn_config_keys_page(FILE *out) {
    int n, n_kinds;
    const pn_command *const *commands = pn_commands(&n);
    const pn_registry *kinds = pn_registries(&n_kinds);
    fputs("# Configuration keys\n\n"
          "Written by `scripts/docs.sh` from the program's own tables; do not edit.\n\n"
          "A configuration is a YAML file for `--config`; single values are set by\n"
          "`--set search.limits.full_attention=2`. A section is a mapping, `mixture[]` each element of a list. A key\n"
          "that nothing knows is refused, with the nearest one that exists. `postnas eval` reads the configuration\n"
          "of a search. `postnas config COMMAND --print --config FILE` shows every value and where it came from.\n",
          out);
    for (int i = 0; i < n; i++)
        if (commands[i]->sections) command_page(commands[i], out);
    for (int k = 0; k < n_kinds; k++)
        if (in_configurations(kinds[k].name)) registry_page(&kinds[k], out);
}
