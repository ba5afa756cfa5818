/* The rows of the final table that are paths through the super-network: teacher, rivals, winner. */
#include "run_phases.h"

#include <stdlib.h>
#include <string.h>

pn_status pn_run_add_row(pn_run *r, const char *name, const pn_model *m, const pn_path *path, bool distilled) {
    char text[PN_PATH_TEXT_MAX], what[96];
    pn_table_row *row;
    pn_path_text(m, path, text, sizeof text);
    snprintf(what, sizeof what, "held-out: %s", name);
    PN_TRY(pn_table_add_row(r->table, name, text, distilled, &row));
    PN_TRY(pn_heldout_measure(&r->heldout, m, path, true, m == r->net ? r->scores : NULL, what, row));
    return PN_OK;
}

/* The best of all placements on the held-out samples themselves: nothing can be above it but noise. */
static pn_status add_exhaustive_row(pn_run *r) {
    const pn_search_type *type = &pn_search_exhaustive;
    pn_search *search;
    PN_TRY(pn_search_create(type, &r->space, r->config.exhaustive_options, &search));
    static pn_path paths[PN_RUN_ASK];
    int n, samples = r->heldout.n_samples, task = 0;
    while (strcmp(r->config.tasks[task].options.name, r->config.objective_task)) task++;
    double sign = pn_metric_ascending(r->config.objective_metric) ? -1 : 1, best_value = 0;
    pn_path best = { 0 };
    pn_status s = PN_OK;
    while (!s && !(s = type->ask(search, paths, PN_RUN_ASK, &n)) && n) {
        pn_evaluator *e = NULL;
        pn_metrics *metrics = calloc((size_t)(n * samples), sizeof *metrics);
        if (!metrics) s = pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
        if (!s) s = pn_evaluator_create(r->net, &r->heldout.task[task * samples], samples, NULL, &e);
        if (!s) s = pn_evaluator_run(e, paths, n, "held-out: every placement", metrics);
        for (int i = 0; i < n && !s; i++) {
            double value = 0;
            for (int k = 0; k < samples; k++)
                value += sign * *pn_metrics_get(&metrics[i * samples + k], r->config.objective_metric) / samples;
            if (!best.n || value < best_value) {
                best_value = value;
                best = paths[i];
            }
        }
        pn_evaluator_destroy(&e);
        free(metrics);
    }
    pn_search_destroy(&search);
    PN_TRY(s);
    PN_TRY(pn_run_add_row(r, "best of all placements", r->net, &best, false));
    return PN_OK;
}

pn_status pn_run_table(pn_run *r) {
    const pn_search_config *c = &r->config;
    PN_TRY(pn_table_create(c->tasks, c->n_tasks, (int)c->heldout_samples, &r->table));
    pn_path teacher = pn_model_own_path(r->net), linear = pn_space_all_linear(&r->space),
            uniform = pn_space_uniform(&r->space);
    PN_TRY(pn_heldout_teach(&r->heldout, r->net));
    PN_TRY(pn_run_add_row(r, "teacher", r->net, &teacher, false));
    if (c->compare.all_linear) PN_TRY(pn_run_add_row(r, "all linear", r->net, &linear, false));
    if (c->compare.uniform) PN_TRY(pn_run_add_row(r, "uniform", r->net, &uniform, false));
    PN_TRY(pn_run_add_row(r, "PostNAS", r->net, &r->winner, false));
    if (c->compare.exhaustive) PN_TRY(add_exhaustive_row(r));
    return PN_OK;
}
