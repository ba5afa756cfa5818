#include "registry.h"

#include <stdio.h>
#include <string.h>

#include "block.h"
#include "command.h"
#include "op.h"
#include "search.h"
#include "skills.h"
#include "task.h"

static int count_commands(void) {
    int n;
    pn_commands(&n);
    return n;
}

static pn_registered command_at(int i) {
    int n;
    const pn_command *c = pn_commands(&n)[i];
    pn_registered it = { .name = c->name };
    snprintf(it.summary, sizeof it.summary, "%s", c->summary);
    return it;
}

static int count_blocks(void) {
    int n;
    pn_block_types(&n);
    return n;
}

static pn_registered block_at(int i) {
    int n;
    const pn_block_type *b = pn_block_types(&n)[i];
    pn_registered it = { .name = b->name, .options = b->options };
    snprintf(it.summary, sizeof it.summary, "%s", b->summary);
    return it;
}

static int count_ops(void) {
    int n;
    pn_op_list(&n);
    return n;
}

/* An op's summary: its implementations, best first, per backend. */
static pn_registered op_at(int i) {
    int n;
    const pn_op *op = pn_op_list(&n)[i];
    pn_registered it = { .name = op->name };
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

static pn_registered skill_at(int i) {
    int n;
    const pn_skill_type *t = pn_skill_types(&n)[i];
    pn_registered it = { .name = t->name, .options = t->options };
    snprintf(it.summary, sizeof it.summary, "%s", t->summary);
    return it;
}

static int count_searches(void) {
    int n;
    pn_search_types(&n);
    return n;
}

static pn_registered search_at(int i) {
    int n;
    const pn_search_type *t = pn_search_types(&n)[i];
    pn_registered it = { .name = t->name, .options = t->options };
    snprintf(it.summary, sizeof it.summary, "%s", t->summary);
    return it;
}

static int count_tasks(void) {
    int n;
    pn_task_kinds(&n);
    return n;
}

static pn_registered task_at(int i) {
    int n;
    const pn_task_kind_info *t = &pn_task_kinds(&n)[i];
    pn_registered it = { .name = t->name, .options = pn_task_option_table };
    snprintf(it.summary, sizeof it.summary, "%s", t->summary);
    return it;
}

static const pn_registry registries[] = {
    { .name = "commands", .count = count_commands, .at = command_at },
    { .name = "blocks", .count = count_blocks, .at = block_at },
    { .name = "ops", .count = count_ops, .at = op_at },
    { .name = "skills", .count = count_skills, .at = skill_at },
    { .name = "searches", .count = count_searches, .at = search_at },
    { .name = "tasks", .count = count_tasks, .at = task_at },
};

const pn_registry *pn_registries(int *n) {
    *n = (int)(sizeof registries / sizeof *registries);
    return registries;
}

const pn_registry *pn_registry_find(const char *name) {
    for (size_t i = 0; i < sizeof registries / sizeof *registries; i++)
        if (!strcmp(registries[i].name, name)) return &registries[i];
    return NULL;
}
