/* `postnas search --rerank`: the paths that a run has measured, ranked by another objective or under other limits.
 *
 * Nothing is trained: the super-network is read from the run's state, which is refused unless it was trained to the end
 * from the same base, data and settings. Scores count only when they carry the hash of exactly these weights and the
 * key of exactly the task that is asked for, so a ranking never mixes what cannot be compared. */
#ifndef PN_SEARCH_RERANK_H
#define PN_SEARCH_RERANK_H

#include <stdio.h>

#include "config.h"

typedef struct pn_rerank_options {
    int64_t top;  /* rows to print */
    bool measure; /* measures what is missing, and keeps it in the run's scores; else nothing is written */
} pn_rerank_options;

/* dir: the run. file: its configuration; asked: the same with another `search` section. Prints the ranking to `out`.
 * Of the limited kinds only those that the run's super-network holds may be asked for. */
pn_status pn_rerank(const char *dir, pn_config *file, pn_config *asked, const pn_rerank_options *options, FILE *out);

#endif
