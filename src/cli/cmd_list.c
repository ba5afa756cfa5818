#include <string.h>

#include "args.h"
#include "json.h"
#include "registry.h"

enum { MOST = 256 };

static pn_status find_kind(const char *name, const pn_registry **out) {
    const char *names[MOST];
    int n;
    const pn_registry *kinds = pn_registries(&n);
    *out = pn_registry_find(name);
    if (*out) return PN_OK;
    PN_ASSERT(n <= MOST);
    for (int k = 0; k < n; k++) names[k] = kinds[k].name;
    const char *near = pn_nearest(name, names, n);
    PN_FAIL(PN_USAGE, "postnas list: nothing is registered as %s; %s%s%ssee `postnas list`", name,
            near ? "did you mean " : "", near ? near : "", near ? "? " : "");
}

static pn_status find_item(const pn_registry *k, const char *name, pn_registered *out) {
    const char *names[MOST];
    int n = k->count();
    PN_ASSERT(n <= MOST);
    for (int i = 0; i < n; i++) {
        *out = k->at(i);
        names[i] = out->name;
        if (!strcmp(out->name, name)) return PN_OK;
    }
    const char *near = pn_nearest(name, names, n);
    PN_FAIL(PN_USAGE, "postnas list %s: there is no %s; %s%s%ssee `postnas list %s`", k->name, name,
            near ? "did you mean " : "", near ? near : "", near ? "? " : "", k->name);
}

static void print_kind(const pn_registry *k) {
    printf("%s\n", k->name);
    for (int i = 0; i < k->count(); i++) {
        pn_registered it = k->at(i);
        printf("  %-22s %s\n", it.name, it.summary);
    }
}

static void print_item(const pn_registered *it) {
    printf("%s: %s\n", it->name, it->summary);
    if (it->options && it->options->name) pn_options_help(it->options, 2, stdout);
}

static pn_status print_json(const pn_registry *kinds, int from, int to) {
    json_t *root = json_object();
    for (int k = from; k < to; k++) {
        json_t *rows = json_array();
        json_object_set_new(root, kinds[k].name, rows);
        for (int i = 0; i < kinds[k].count(); i++) {
            pn_registered it = kinds[k].at(i);
            json_array_append_new(rows, json_pack("{s:s, s:s}", "name", it.name, "summary", it.summary));
        }
    }
    char *text = NULL;
    pn_status s = root ? pn_json_text(root, &text) : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    json_decref(root);
    if (!s) fputs(text, stdout);
    free(text);
    return s;
}

static pn_status run(const pn_args *args) {
    const pn_registry *only = NULL;
    if (args->n_operands > 0) PN_TRY(find_kind(args->operand[0], &only));
    int n;
    const pn_registry *kinds = pn_registries(&n);
    int from = only ? (int)(only - kinds) : 0, to = only ? from + 1 : n;
    if (args->n_operands > 1) {
        pn_registered it;
        PN_CHECK(!pn_args_has(args, "json"), PN_USAGE, "postnas list: --json lists a kind; leave out %s",
                 args->operand[1]);
        PN_TRY(find_item(only, args->operand[1], &it));
        print_item(&it);
        return PN_OK;
    }
    if (pn_args_has(args, "json")) return print_json(kinds, from, to);
    for (int k = from; k < to; k++) print_kind(&kinds[k]);
    return PN_OK;
}

static const pn_flag flags[] = { PN_FLAG_JSON, PN_FLAG_END };

const pn_command pn_cmd_list = {
    .name = "list",
    .summary = "what is registered: commands, blocks, ops, skills, searches, tasks",
    .usage = "[KIND [NAME]] [--json]",
    .help = "Without a word: everything this program knows, by kind. With a kind, that kind alone. With a kind and a\n"
            "name, what that one is and every option it takes.\n"
            "\n"
            "    postnas list blocks\n"
            "    postnas list blocks attention\n",
    .reads = "nothing\n",
    .writes = "standard output\n",
    .see = "docs/config.md: options of blocks, skills and searches as a page\n"
           "postnas config search --keys: where they stand in a configuration\n",
    .flags = flags,
    .max_operands = 2,
    .run = run,
};
