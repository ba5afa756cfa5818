/* Selectors compared: where each strategy puts full attention, for several numbers of layers, on one super-network, and
 * what that is worth on held-out samples. */
#ifndef PN_SEARCH_COMPARISON_H
#define PN_SEARCH_COMPARISON_H

#include <stdio.h>

#include <jansson.h>

#include "objective.h"
#include "search.h"

typedef struct pn_compared { /* one selector at one number of layers */
    const pn_search_type *selector;
    int full_attention;
    pn_path path;    /* what it placed */
    int n_paths;     /* different paths it had measured on the search tasks */
    double searched; /* the path's objective on the search tasks */
    double *heldout; /* and on each held-out sample; owned */
} pn_compared;

typedef struct pn_comparison {
    const pn_objective *objective; /* borrowed */
    int n_samples, n;
    pn_compared *row; /* owned; by number of layers, then as the selectors are listed */
} pn_comparison;

pn_status pn_comparison_create(const pn_objective *objective, int n_samples, int n_rows, pn_comparison *out);
void pn_comparison_free(pn_comparison *c); /* also one that is zeroed */

/* A line per row: mean and spread over the held-out samples. */
void pn_comparison_print(const pn_comparison *c, const pn_model *supernet, FILE *out);
/* {"objective", "ascending", "normalised", "rows": [{"selector", "full_attention", "path", "paths", "searched",
 * "heldout": {"mean", "min", "max", "values"}}]}; the caller owns it. */
json_t *pn_comparison_json(const pn_comparison *c, const pn_model *supernet);

#endif
