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
    *n = (int)(sizeof types / sizeof *types) - 1;
    return types;
}

const pn_search_type *pn_search_find(const char *name) {
    for (const pn_search_type *const *t = types; *t; t++)
        if (!strcmp((*t)->name, name)) return *t;
    return NULL;
}

pn_status pn_search_create(const pn_search_type *type, const pn_space *space, const void *options, pn_search **out) {
    PN_CHECK(space->full_attention >= 0 && space->max_none >= 0 &&
                 space->full_attention + space->max_none <= space->n_layers,
             PN_USAGE, "search.limits: %d full_attention and %d none do not fit %d layers; lower one of them",
             space->full_attention, space->max_none, space->n_layers);
    pn_search *s = calloc(1, sizeof *s);
    PN_CHECK(s, PN_MEMORY, "out of memory");
    s->type = type;
    s->space = *space;
    s->options = options;
    s->data = calloc(1, type->data_bytes + 1);
    pn_status status = s->data ? type->start(s) : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
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

int pn_space_count(const pn_path *path, int choice) {
    int n = 0;
    for (int l = 0; l < path->n; l++) n += path->choice[l] == choice;
    return n;
}

bool pn_space_complete(const pn_space *s, const pn_path *path) {
    return pn_space_count(path, s->attention) == s->full_attention &&
           (s->none < 0 || pn_space_count(path, s->none) <= s->max_none);
}

pn_path pn_space_all_linear(const pn_space *s) {
    pn_path p = { .n = s->n_layers };
    for (int l = 0; l < p.n; l++) p.choice[l] = (uint8_t)s->linear;
    return p;
}

pn_path pn_space_uniform(const pn_space *s) {
    pn_path p = pn_space_all_linear(s);
    for (int i = 0; i < s->full_attention; i++)
        p.choice[(2 * i + 1) * s->n_layers / (2 * s->full_attention)] = (uint8_t)s->attention;
    return p;
}
