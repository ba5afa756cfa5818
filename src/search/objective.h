/* What a search ranks paths by: a metric of a task, or a weighted sum of several.
 *
 *     recall.nll                        the metric as it reads
 *     recall.nll + 0.5 facts.nll        each term a positive weight (1 when left out) and task.metric
 *
 * Whether more is better is known from each metric. Terms that disagree are taken as losses: those of which more is
 * better are subtracted, so that less of the sum is better. A sum adds what its metrics count in (nats, shares);
 * `normalised` objectives first put every metric on one scale, on which 0 is the all-linear path's value and 1 the
 * teacher's, and average: more is better, and 1 is as good as the teacher. */
#ifndef PN_SEARCH_OBJECTIVE_H
#define PN_SEARCH_OBJECTIVE_H

#include "task.h"

enum { PN_OBJECTIVE_TERMS = 8 };

typedef struct pn_objective_term {
    int task; /* index into the tasks */
    char metric[24];
    double factor, zero; /* the term is factor x (metric - zero) */
} pn_objective_term;

typedef struct pn_objective {
    char text[256]; /* as configured */
    int n;
    pn_objective_term term[PN_OBJECTIVE_TERMS];
    bool ascending;  /* more is better */
    bool normalised; /* needs pn_objective_scale before it has values */
} pn_objective;

/* PN_USAGE, starting with `where`: unknown tasks and metrics, weights that are no positive number, anything else than
 * terms joined by +. */
pn_status pn_objective_parse(const char *text, const char *where, const pn_task_spec *tasks, int n_tasks,
                             bool normalised, pn_objective *out);
/* For normalised objectives: metrics per task of the two paths that are 0 and 1. PN_NUMERIC when they are the same. */
pn_status pn_objective_scale(pn_objective *o, const pn_task_spec *tasks, const pn_metrics *linear,
                             const pn_metrics *teacher);
/* metrics: per task. */
double pn_objective_value(const pn_objective *o, const pn_metrics *metrics);
/* The value as a loss: lower is better. */
double pn_objective_loss(const pn_objective *o, double value);
bool pn_objective_uses(const pn_objective *o, int task);

#endif
