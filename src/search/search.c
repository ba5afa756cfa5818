#include "search.h"

#include <stdlib.h>
#include <string.h>

static const pn_search_type *const types[] = {
#define PN_SEARCH(name) &pn_search_##name,
#include "searches.def"
#undef PN_SEARCH
    NULL,
};

const pn_search_type *const *pn_search_types(int *n) {
    *n = PN_SEARCHES;
    return types;
}

const pn_search_type *pn_search_find(const char *name) {
    for (const pn_search_type *const *t = types; *t; t++)
        if (!strcmp((*t)->name, name)) return *t;
    return NULL;
}

int pn_search_index(const pn_search_type *type) {
    int i = 0;
    while (types[i] && types[i] != type) i++;
    PN_ASSERT(i < PN_SEARCHES);
    return i;
}

pn_status pn_search_create(const pn_search_type *type, const pn_search_input *in, pn_search **out) {
    PN_TRY(pn_space_check(&in->space));
    pn_search *s = calloc(1, sizeof *s);
    PN_CHECK(s, PN_MEMORY, "out of memory");
    s->type = type;
    s->in = *in;
    s->data = calloc(1, type->data_bytes + 1);
    pn_status status = PN_OK;
    if (!s->data) status = pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    if (!status && type->start) status = type->start(s);
    if (status) {
        pn_search_destroy(&s);
        return status;
    }
    *out = s;
    return PN_OK;
}

void pn_search_destroy(pn_search **s) {
    if (!s || !*s) return;
    if ((*s)->data && (*s)->type->stop) (*s)->type->stop(*s);
    free((*s)->data);
    free(*s);
    *s = NULL;
}

pn_status pn_search_ask(pn_search *s, pn_proposal *out, int room, int *n) {
    PN_TRY(s->type->ask(s, out, room, n));
    return PN_OK;
}

pn_status pn_search_tell(pn_search *s, const pn_path *path, double loss, const pn_metrics *metrics) {
    if (s->type->tell) PN_TRY(s->type->tell(s, path, loss, metrics));
    return PN_OK;
}

pn_status pn_search_needs_gates(const pn_search *s, const char *what) {
    PN_CHECK(s->in.gates && s->in.gates->present, PN_USAGE,
             "%s needs the gates of a super-network; train one with supernet.mode: gated, or search without gates",
             what);
    return PN_OK;
}

pn_status pn_search_needs_task(const pn_search *s, const char *key, const char *name, pn_task_kind kind, int *task) {
    int n_kinds;
    const pn_task_kind_info *kinds = pn_task_kinds(&n_kinds);
    for (*task = 0; *task < s->in.n_tasks; (*task)++) {
        const pn_task_options *o = &s->in.tasks[*task].options;
        if (name ? strcmp(o->name, name) != 0 : o->kind != kind) continue;
        PN_CHECK(o->kind == kind, PN_USAGE, "search.%s.%s: task %s is of kind %s; name one of kind %s", s->type->name,
                 key, name, kinds[o->kind].name, kinds[kind].name);
        return PN_OK;
    }
    PN_CHECK(!name, PN_USAGE, "search.%s.%s: no task is named %s", s->type->name, key, name);
    PN_FAIL(PN_USAGE, "strategy %s needs a task of kind %s; add one to search.tasks", s->type->name, kinds[kind].name);
}
