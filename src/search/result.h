/* result.json: everything a search measured, without timings, so that equal runs give equal files. report.html is made
 * from it alone. */
#ifndef PN_SEARCH_RESULT_H
#define PN_SEARCH_RESULT_H

#include <jansson.h>

#include "comparison.h"
#include "run_variants.h"
#include "search_config.h"
#include "table.h"

/* One path the search looked at, in order. */
typedef struct pn_history {
    pn_path path;
    pn_metrics *metrics; /* per task; owned */
    double objective;    /* of its stage, as it reads */
    int stage, round;    /* rounds count on over the stages */
    int parent;          /* the row whose path this one goes on from; -1: none */
} pn_history;

typedef struct pn_result {
    const pn_search_config *config; /* borrowed, like the rest */
    const pn_model *supernet;
    pn_space space;
    const pn_stage *stage; /* n_stages */
    const pn_path *placed; /* n_stages: the best path of each */
    int n_placements, n_stages;
    const pn_variants *variants; /* PN_VARIANT_STAGES */
    const pn_history *history;
    int n_history;
    pn_path winner;
    const pn_supernet_result *trained;
    const pn_curve *distill_curve;
    const pn_table *table;
    const pn_comparison *comparison; /* NULL: none */
    const char *config_text;         /* the run's configuration, as YAML */
    uint64_t weights_hash;
} pn_result;

/* Gates over training and at the end, rows per layer; the caller owns it. They must be present. */
json_t *pn_gates_json(const pn_model *supernet, const pn_supernet_result *trained);

/* Parts of it; the caller owns them.
 *
 * The stages after the placement: variants with what they scored and cost, no timings. */
json_t *pn_variants_json(const pn_result *r);
json_t *pn_metrics_json(const pn_metrics *m);
/* metrics: per task. */
json_t *pn_tasks_json(const pn_search_config *c, const pn_metrics *metrics);
json_t *pn_local_errors_json(const pn_model *supernet, const pn_supernet_result *trained);

/* The rows of a table, every metric with mean, min, max and values; the caller owns it. */
json_t *pn_table_json(const pn_table *t);

pn_status pn_result_json(const pn_result *r, json_t **out);

#endif
