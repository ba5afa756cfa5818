/* The rows of the final table that are paths through the super-network: teacher, rivals, winner. */
#include "run_phases.h"

#include <stdlib.h>
#include <string.h>

pn_status pn_run_add_row(pn_run *r, const char *name, const pn_model *m, const pn_path *path, bool distilled) {
    char text[PN_PATH_TEXT_MAX], what[96];
    pn_table_row *row;
    pn_scores *own = NULL; /* of a model that is not the super-network: in the same file, told apart by its weights */
    pn_path_text(m, path, text, sizeof text);
    snprintf(what, sizeof what, "held-out: %s", name);
    PN_TRY(pn_table_add_row(r->table, name, text, distilled, &row));
    pn_status s = PN_OK;
    if (m != r->net) {
        uint64_t weights;
        PN_TRY(pn_scores_shared_hash(m, &weights));
        PN_TRY(pn_scores_open(r->scores->file, weights, &own));
        s = pn_scores_identify(own, m);
    }
    if (!s) s = pn_heldout_measure(&r->heldout, m, path, true, own ? own : r->scores, what, row);
    pn_scores_close(&own);
    PN_TRY(s);
    return PN_OK;
}

pn_status pn_run_heldout_objective(pn_run *r, const pn_objective *o, const pn_path *paths, int n, const char *what,
                                   double *values) {
    int tasks = r->config.n_tasks, samples = r->heldout.n_samples;
    pn_status s = PN_OK;
    pn_evaluator *e = NULL;
    pn_metrics *measured = calloc((size_t)(n * samples), sizeof *measured);
    pn_metrics *metrics = calloc((size_t)(n * samples * tasks), sizeof *metrics); /* paths x samples x tasks */
    if (!measured || !metrics) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    for (int k = 0; k < tasks; k++) {
        if (!pn_objective_uses(o, k)) continue;
        PN_TRY_GOTO(s, pn_evaluator_create(r->net, &r->heldout.task[k * samples], samples, r->scores, &e), done);
        PN_TRY_GOTO(s, pn_evaluator_run(e, paths, n, what, measured), done);
        pn_evaluator_destroy(&e);
        for (int i = 0; i < n * samples; i++) metrics[i * tasks + k] = measured[i];
    }
    for (int i = 0; i < n * samples; i++) values[i] = pn_objective_value(o, &metrics[i * tasks]);
done:
    pn_evaluator_destroy(&e);
    free(measured);
    free(metrics);
    return s;
}

/* Mean loss over the held-out samples, one per path. */
static pn_status mean_losses(pn_run *r, const pn_objective *o, const pn_path *paths, int n, double *losses) {
    int samples = r->heldout.n_samples;
    double *values = calloc((size_t)(n * samples), sizeof *values);
    PN_CHECK(values, PN_MEMORY, "out of memory");
    pn_status s = pn_run_heldout_objective(r, o, paths, n, "held-out: every placement", values);
    for (int i = 0; i < n; i++) {
        double mean = 0;
        for (int k = 0; k < samples; k++) mean += values[i * samples + k] / samples;
        losses[i] = pn_objective_loss(o, mean);
    }
    free(values);
    return s;
}

/* The best of a stage's placements on the held-out samples themselves. */
static pn_status best_of_stage(pn_run *r, int stage, pn_path *placed) {
    static pn_proposal asked[PN_RUN_ASK];
    static pn_path paths[PN_RUN_ASK];
    const pn_search_input in =
        pn_run_search_input(r, &r->final, stage, placed, pn_search_config_options(&r->config, &pn_search_exhaustive));
    const pn_objective *o = r->stage[stage].objective;
    pn_search *search;
    PN_TRY(pn_search_create(&pn_search_exhaustive, &in, &search));
    double losses[PN_RUN_ASK], best = 0;
    bool any = false;
    int n;
    pn_status s;
    while (!(s = pn_search_ask(search, asked, PN_RUN_ASK, &n)) && n) {
        for (int i = 0; i < n; i++) paths[i] = asked[i].path;
        if ((s = mean_losses(r, o, paths, n, losses))) break;
        for (int i = 0; i < n; i++) {
            if (any && losses[i] >= best) continue;
            any = true;
            best = losses[i];
            *placed = paths[i];
        }
    }
    pn_search_destroy(&search);
    return s;
}

/* Nothing can be above this row but noise: every placement, stage by stage, is measured as the table measures. */
static pn_status add_exhaustive_row(pn_run *r) {
    pn_path best = pn_space_all_linear(&r->final);
    for (int i = 0; i < r->n_placements; i++) PN_TRY(best_of_stage(r, i, &best));
    PN_TRY(pn_run_add_row(r, "best of all placements", r->net, &best, false));
    return PN_OK;
}

/* What the stages before the last had chosen. */
static pn_status add_stage_rows(pn_run *r) {
    char name[48];
    for (int i = r->n_placements - 1; i < r->n_stages - 1; i++) {
        snprintf(name, sizeof name, "PostNAS, after %s", r->stage[i].name);
        PN_TRY(pn_run_add_row(r, name, r->net, &r->placed[i], false));
    }
    return PN_OK;
}

pn_status pn_run_table(pn_run *r) {
    const pn_search_config *c = &r->config;
    PN_TRY(pn_table_create(c->tasks, c->n_tasks, (int)c->heldout_samples, &r->table));
    pn_path teacher = pn_model_own_path(r->net), linear = pn_space_all_linear(&r->final),
            uniform = pn_space_uniform(&r->final);
    PN_TRY(pn_heldout_teach(&r->heldout, r->net));
    PN_TRY(pn_run_add_row(r, "teacher", r->net, &teacher, false));
    if (c->compare.all_linear) PN_TRY(pn_run_add_row(r, "all linear", r->net, &linear, false));
    if (c->compare.uniform) PN_TRY(pn_run_add_row(r, "uniform", r->net, &uniform, false));
    PN_TRY(add_stage_rows(r));
    PN_TRY(pn_run_add_row(r, "PostNAS", r->net, &r->winner, false));
    if (c->compare.exhaustive) PN_TRY(add_exhaustive_row(r));
    return PN_OK;
}
