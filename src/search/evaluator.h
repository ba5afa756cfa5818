/* The evaluator measures paths on tasks, computing common prefixes once.
 *
 * Paths of one call are sorted and walked as a tree, layer by layer: hidden states after a shared prefix are computed
 * once and held only while some path below them is unfinished, so memory is depth x batch, not paths x batch. */
#ifndef PN_SEARCH_EVALUATOR_H
#define PN_SEARCH_EVALUATOR_H

#include "task.h"

typedef struct pn_evaluator pn_evaluator;

/* The model's own path is the teacher of kl tasks that have not been measured before; a kl task keeps its teacher.
 * Tasks are borrowed; scores (NULL: none) is read before and written after every measurement. */
pn_status pn_evaluator_create(const pn_model *m, pn_task *const *tasks, int n_tasks, pn_scores *scores,
                              pn_evaluator **out);
void pn_evaluator_destroy(pn_evaluator **e);
/* Makes the model the teacher of its kl tasks now: needed where known scores may leave nothing to measure on it before
 * another model is. */
pn_status pn_evaluator_teach(pn_evaluator *e);

/* metrics: n_paths x n_tasks. `what` names the progress line; NULL: none. PN_INTERRUPTED between layers;
 * PN_NUMERIC when a metric is not finite. */
pn_status pn_evaluator_run(pn_evaluator *e, const pn_path *paths, int n_paths, const char *what, pn_metrics *metrics);
/* How many (path, task) pairs were measured and how many came from the table, so far. */
void pn_evaluator_counts(const pn_evaluator *e, int64_t *measured, int64_t *known);

#endif
