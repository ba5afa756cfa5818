#include <string.h>

#include "args.h"
#include "block.h"
#include "json.h"
#include "op.h"
#include "search.h"
#include "skills.h"
#include "task.h"

typedef struct item {
    const char *name;
    char summary[256];
    const pn_option *options; /* NULL: none */
} item;

typedef struct kind {
    const char *name;
    int (*count)(void);
    item (*at)(int i);
} kind;

static int count_commands(void) {
    int n;
    pn_commands(&n);
    return n;
}

static item command_at(int i) {
    int n;
    const pn_command *c = pn_commands(&n)[i];
    item it = { .name = c->name };
    snprintf(it.summary, sizeof it.summary, "%s", c->summary);
    return it;
}

static int count_blocks(void) {
    int n;
    pn_block_types(&n);
    return n;
}

static item block_at(int i) {
    int n;
    const pn_block_type *b = pn_block_types(&n)[i];
    item it = { .name = b->name, .options = b->options };
    snprintf(it.summary, sizeof it.summary, "%s", b->summary);
    return it;
}

static int count_ops(void) {
    int n;
    pn_op_list(&n);
    return n;
}

/* An op's summary: its implementations, best first, per backend. */
static item op_at(int i) {
    int n;
    const pn_op *op = pn_op_list(&n)[i];
    item it = { .name = op->name };
    size_t len = 0;
    for (int b = 0; b < PN_PLAN; b++)
        for (const pn_op_impl *const *impl = op->impl[b]; impl && *impl && len < sizeof it.summary; impl++)
            len += (size_t)snprintf(it.summary + len, sizeof it.summary - len, "%s%s", len ? ", " : "", (*impl)->name);
    return it;
}

static int count_skills(void) {
    int n;
    pn_skill_types(&n);
    return n;
}

static item skill_at(int i) {
    int n;
    const pn_skill_type *t = pn_skill_types(&n)[i];
    item it = { .name = t->name, .options = t->options };
    snprintf(it.summary, sizeof it.summary, "%s", t->summary);
    return it;
}

static int count_searches(void) {
    int n;
    pn_search_types(&n);
    return n;
}

static item search_at(int i) {
    int n;
    const pn_search_type *t = pn_search_types(&n)[i];
    item it = { .name = t->name, .options = t->options };
    snprintf(it.summary, sizeof it.summary, "%s", t->summary);
    return it;
}

static int count_tasks(void) {
    int n;
    pn_task_kinds(&n);
    return n;
}

static item task_at(int i) {
    int n;
    const pn_task_kind_info *t = &pn_task_kinds(&n)[i];
    item it = { .name = t->name, .options = pn_task_option_table };
    snprintf(it.summary, sizeof it.summary, "%s", t->summary);
    return it;
}

static const kind kinds[] = {
    { .name = "commands", .count = count_commands, .at = command_at },
    { .name = "blocks", .count = count_blocks, .at = block_at },
    { .name = "ops", .count = count_ops, .at = op_at },
    { .name = "skills", .count = count_skills, .at = skill_at },
    { .name = "searches", .count = count_searches, .at = search_at },
    { .name = "tasks", .count = count_tasks, .at = task_at },
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static pn_status find_kind(const char *name, const kind **out) {
    const char *names[N_KINDS];
    for (int k = 0; k < N_KINDS; k++) {
        names[k] = kinds[k].name;
        *out = &kinds[k];
        if (!strcmp(kinds[k].name, name)) return PN_OK;
    }
    const char *near = pn_nearest(name, names, N_KINDS);
    PN_FAIL(PN_USAGE, "postnas list: nothing is registered as %s; %s%s%ssee `postnas list`", name,
            near ? "did you mean " : "", near ? near : "", near ? "? " : "");
}

static pn_status find_item(const kind *k, const char *name, item *out) {
    enum { MOST = 256 };
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

static void print_kind(const kind *k) {
    printf("%s\n", k->name);
    for (int i = 0; i < k->count(); i++) {
        item it = k->at(i);
        printf("  %-22s %s\n", it.name, it.summary);
    }
}

static void print_item(const item *it) {
    printf("%s: %s\n", it->name, it->summary);
    if (it->options && it->options->name) pn_options_help(it->options, 2, stdout);
}

static pn_status print_json(int from, int to) {
    json_t *root = json_object();
    for (int k = from; k < to; k++) {
        json_t *rows = json_array();
        json_object_set_new(root, kinds[k].name, rows);
        for (int i = 0; i < kinds[k].count(); i++) {
            item it = kinds[k].at(i);
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
    const kind *only = NULL;
    if (args->n_operands > 0) PN_TRY(find_kind(args->operand[0], &only));
    int from = only ? (int)(only - kinds) : 0, to = only ? from + 1 : N_KINDS;
    if (args->n_operands > 1) {
        item it;
        PN_CHECK(!pn_args_has(args, "json"), PN_USAGE, "postnas list: --json lists a kind; leave out %s",
                 args->operand[1]);
        PN_TRY(find_item(only, args->operand[1], &it));
        print_item(&it);
        return PN_OK;
    }
    if (pn_args_has(args, "json")) return print_json(from, to);
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
    .flags = flags,
    .max_operands = 2,
    .run = run,
};
