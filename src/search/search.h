/* Search: strategies propose paths, the evaluator measures them. A strategy never evaluates; the driver never ranks.
 *
 * A strategy is a const table (src/search/<name>.c, one row in searches.def). The driver asks for paths until none
 * come, and tells each one's objective: lower is better. Scores live in a table of their own (scores.h). */
#ifndef PN_SEARCH_SEARCH_H
#define PN_SEARCH_SEARCH_H

#include "model.h"
#include "options.h"

/* What placement chooses among: every layer is the linear block unless one of the limited kinds is spent on it. */
typedef struct pn_space {
    int n_layers;
    int linear;         /* choice number of the linear block: the default of every layer */
    int attention;      /* choice number of full attention */
    int none;           /* choice number of the removed mixer; -1: not offered */
    int full_attention; /* layers of full attention: spent exactly */
    int max_none;       /* layers without mixer, at most */
} pn_space;

int pn_space_count(const pn_path *path, int choice);
/* The budget is spent: as many attention layers as allowed, not more `none` than allowed. */
bool pn_space_complete(const pn_space *s, const pn_path *path);
pn_path pn_space_all_linear(const pn_space *s);
/* Attention at layers floor((2 i + 1) L / (2 k)), i = 0 .. k - 1. */
pn_path pn_space_uniform(const pn_space *s);

typedef struct pn_search_type pn_search_type;

typedef struct pn_search {
    const pn_search_type *type;
    pn_space space;
    const void *options; /* borrowed; type->options_bytes */
    void *data;          /* owned; type->data_bytes, zeroed at start */
} pn_search;

struct pn_search_type {
    const char *name, *summary;
    const pn_option *options; /* NULL: none */
    size_t options_bytes, data_bytes;
    pn_status (*start)(pn_search *s);
    /* Up to `room` paths that can be evaluated side by side; *n = 0 when finished. Every path of an ask is told before
     * the next ask. */
    pn_status (*ask)(pn_search *s, pn_path *out, int room, int *n);
    pn_status (*tell)(pn_search *s, const pn_path *path, double objective);
    void (*stop)(pn_search *s); /* frees what data points to; NULL: nothing */
};

#define PN_SEARCH(name) extern const pn_search_type pn_search_##name;
#include "searches.def"
#undef PN_SEARCH

const pn_search_type *pn_search_find(const char *name);
const pn_search_type *const *pn_search_types(int *n);

pn_status pn_search_create(const pn_search_type *type, const pn_space *space, const void *options, pn_search **out);
void pn_search_destroy(pn_search **s);

#endif
