/* The score table: results are rows, never one number. Objectives are computed from it on reading, so ranking again is
 * free and nothing measured is lost.
 *
 *     key    path by the candidates' types, options and weights; hash of the weights all paths share; task with seed
 *            and size; backend
 *     value  every metric the task reports
 *
 * Rows are appended to <run>/state/scores.jsonl as they come; a resumed search evaluates only what is missing. */
#ifndef PN_SEARCH_SCORES_H
#define PN_SEARCH_SCORES_H

#include "model.h"

enum { PN_METRICS_MAX = 16 };

typedef struct pn_metrics { /* a value */
    int n;
    char name[PN_METRICS_MAX][24]; /* "accuracy", "nll", "accuracy@256" */
    double value[PN_METRICS_MAX];
} pn_metrics;

void pn_metrics_add(pn_metrics *m, const char *name, double value);
/* NULL when there is none of that name. */
const double *pn_metrics_get(const pn_metrics *m, const char *name);

typedef struct pn_score_row {
    uint64_t path_key;
    char *path; /* text; owned */
    char *task; /* task key; owned */
    pn_metrics metrics;
} pn_score_row;

typedef struct pn_scores {
    pn_score_row *row;
    int n, cap;
    uint64_t weights_hash;
    uint64_t (*candidate)[PN_MAX_CANDIDATES]; /* what each candidate of each layer is: type, options, weights; owned */
    pn_backend backend;                       /* of that model */
    char *file;                               /* owned; NULL: memory only */
} pn_scores;

/* weights_hash: of the weights that all paths share (pn_scores_shared_hash): other weights, other scores.
 * Reads the rows of `file` (NULL: memory only) that carry the same weights hash; a last line without its end is removed
 * from the file. PN_FORMAT with file and line for a broken one. */
pn_status pn_scores_open(const char *file, uint64_t weights_hash, pn_scores **out);
/* The same rows in memory only: the file stays as it is. */
pn_status pn_scores_read(const char *file, uint64_t weights_hash, pn_scores **out);
void pn_scores_close(pn_scores **s);

/* Of the weights outside the mixers. */
pn_status pn_scores_shared_hash(const pn_model *m, uint64_t *out);
/* Looks at the candidates of a model: before the first key is asked for, and again when some were added or trained,
 * which leaves the keys of paths through the others as they were. */
pn_status pn_scores_identify(pn_scores *s, const pn_model *m);
/* Which hybrid a path is: the chosen blocks' types, options and weights, layer by layer. */
uint64_t pn_scores_path_key(const pn_scores *s, const pn_path *path);
const pn_metrics *pn_scores_find(const pn_scores *s, uint64_t path_key, const char *task);
/* Metrics are finite. */
pn_status pn_scores_add(pn_scores *s, uint64_t path_key, const char *path, const char *task, const pn_metrics *metrics);

#endif
