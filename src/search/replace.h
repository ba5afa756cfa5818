/* Searches of the stages after placement, which put other blocks where a path has its linear one. Not in the list of
 * strategies: the stages run them (run_variants.c). */
#ifndef PN_SEARCH_REPLACE_H
#define PN_SEARCH_REPLACE_H

#include "search.h"

typedef struct pn_replace_options { /* borrowed */
    pn_path from;
    int replaced;      /* choice number whose layers are searched */
    const int *choice; /* n: what may stand there */
    int n;
    int64_t width; /* mix: paths kept per layer */
} pn_replace_options;

/* One path per choice, which stands in all those layers. */
extern const pn_search_type pn_search_each;
/* Beam search: layer by layer, from the first, every choice is tried in every path kept. `from` has one of the choices
 * in those layers, so paths are complete at any time. */
extern const pn_search_type pn_search_mix;

#endif
