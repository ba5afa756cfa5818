/* Search: strategies propose paths, the evaluator measures them. A strategy never evaluates; the driver never ranks.
 *
 * A strategy is a const table (src/search/<name>.c, one row in searches.def). The driver asks for paths until none
 * come, and tells each one's loss: lower is better, and what every task measured. Scores live in a table of their own
 * (scores.h). */
#ifndef PN_SEARCH_SEARCH_H
#define PN_SEARCH_SEARCH_H

#include "gates.h"
#include "options.h"
#include "space.h"
#include "task.h"

typedef struct pn_search_type pn_search_type;

typedef struct pn_search_input { /* what a strategy works from; what is pointed to must outlive the search */
    pn_space space;
    const void *options;       /* type->options_bytes; NULL: the type has none */
    uint64_t seed;             /* of strategies that draw */
    const pn_gates *gates;     /* of the super-network; NULL or not present: it was trained without */
    const pn_task_spec *tasks; /* n_tasks that paths are measured on */
    int n_tasks;
} pn_search_input;

typedef struct pn_search {
    const pn_search_type *type;
    pn_search_input in;
    void *data; /* owned; type->data_bytes, zeroed at start */
} pn_search;

typedef struct pn_proposal {
    pn_path path;
    int round;  /* from 0 */
    int parent; /* the proposal that this one changes, counted from 0 since the start; -1: none of them */
} pn_proposal;

struct pn_search_type {
    const char *name, *summary;
    const pn_option *options; /* NULL: none */
    size_t options_bytes, data_bytes;
    bool decides; /* the last path it asks for is its placement, whatever its loss; else the best complete path is */
    /* Refuses a space or options that it cannot meet (PN_USAGE), before anything is trained: gates may be present and
     * still unknown here. NULL: nothing to do. */
    pn_status (*start)(pn_search *s);
    /* Up to `room` paths that can be evaluated side by side; *n = 0 when finished. Every path of an ask is told before
     * the next ask. */
    pn_status (*ask)(pn_search *s, pn_proposal *out, int room, int *n);
    /* metrics: per task of the input. NULL: it does not learn. */
    pn_status (*tell)(pn_search *s, const pn_path *path, double loss, const pn_metrics *metrics);
    void (*stop)(pn_search *s); /* frees what data points to; NULL: nothing */
};

#define PN_SEARCH(name) extern const pn_search_type pn_search_##name;
#include "searches.def"
#undef PN_SEARCH

enum {
#define PN_SEARCH(name) PN_SEARCH_##name,
#include "searches.def"
#undef PN_SEARCH
    PN_SEARCHES,            /* how many there are */
    PN_SEARCH_OPTIONS = 256 /* bytes that the options of any take at most */
};

const pn_search_type *pn_search_find(const char *name);
const pn_search_type *const *pn_search_types(int *n);
/* Its place in that list. */
int pn_search_index(const pn_search_type *type);

/* PN_USAGE when the limits do not fit, or the strategy refuses them. */
pn_status pn_search_create(const pn_search_type *type, const pn_search_input *in, pn_search **out);
void pn_search_destroy(pn_search **s);
pn_status pn_search_ask(pn_search *s, pn_proposal *out, int room, int *n);
pn_status pn_search_tell(pn_search *s, const pn_path *path, double loss, const pn_metrics *metrics);

/* For strategies: PN_USAGE, with the remedy, when the super-network has no gates. */
pn_status pn_search_needs_gates(const pn_search *s, const char *what);
/* The task that the option `key` of the strategy names; NULL: the first of that kind. PN_USAGE, with the remedy, when
 * there is none, or it is of another kind. *task: into the input's. */
pn_status pn_search_needs_task(const pn_search *s, const char *key, const char *name, pn_task_kind kind, int *task);

/* Not in the list: the refinement after any strategy (swap.c). */
extern const pn_search_type pn_search_swap;
typedef struct pn_swap_options {
    int64_t rounds;
    pn_path from; /* a complete path, and its loss */
    double loss;
} pn_swap_options;

#endif
