/* The search itself: the strategy asks, the evaluator tells. */
#include "run_phases.h"

#include <stdlib.h>
#include <string.h>

#include "log.h"

static double objective(const pn_run *r, const pn_metrics *metrics) {
    for (int k = 0; k < r->config.n_tasks; k++)
        if (!strcmp(r->config.tasks[k].options.name, r->config.objective_task))
            return *pn_metrics_get(&metrics[k], r->config.objective_metric);
    PN_ASSERT(!"the objective's task, checked when the config was read");
}

static pn_status remember(pn_run *r, const pn_path *path, const pn_metrics *metrics) {
    if (r->n_history == r->cap_history) {
        int cap = r->cap_history ? 2 * r->cap_history : 256;
        pn_history *grown = realloc(r->history, (size_t)cap * sizeof *grown);
        PN_CHECK(grown, PN_MEMORY, "out of memory");
        r->history = grown;
        r->cap_history = cap;
    }
    size_t bytes = (size_t)r->config.n_tasks * sizeof *metrics;
    pn_metrics *copy = malloc(bytes);
    PN_CHECK(copy, PN_MEMORY, "out of memory");
    memcpy(copy, metrics, bytes);
    r->history[r->n_history++] = (pn_history){ *path, copy, objective(r, metrics) };
    return PN_OK;
}

/* Measures paths on the search tasks, remembers them, and tells the strategy (NULL: nobody). */
static pn_status measure(pn_run *r, const pn_path *paths, int n, const char *what, pn_search *search) {
    int tasks = r->config.n_tasks;
    pn_metrics *metrics = calloc((size_t)(n * tasks), sizeof *metrics);
    PN_CHECK(metrics, PN_MEMORY, "out of memory");
    double sign = pn_metric_ascending(r->config.objective_metric) ? -1 : 1;
    pn_status s = pn_evaluator_run(r->evaluator, paths, n, what, metrics);
    for (int i = 0; i < n && !s; i++) {
        s = remember(r, &paths[i], &metrics[i * tasks]);
        if (!s && search) s = search->type->tell(search, &paths[i], sign * r->history[r->n_history - 1].objective);
    }
    free(metrics);
    return s;
}

static pn_status run_strategy(pn_run *r, pn_search *search) {
    static pn_path paths[PN_RUN_ASK];
    for (int round = 0;; round++) {
        int n;
        char what[64], text[PN_PATH_TEXT_MAX];
        PN_TRY(search->type->ask(search, paths, PN_RUN_ASK, &n));
        if (!n) return PN_OK;
        snprintf(what, sizeof what, "%s search, round %d, %d paths", search->type->name, round, n);
        int first = r->n_history;
        PN_TRY(measure(r, paths, n, what, search));
        int best = first;
        double sign = pn_metric_ascending(r->config.objective_metric) ? -1 : 1;
        for (int i = first; i < r->n_history; i++)
            if (sign * r->history[i].objective < sign * r->history[best].objective) best = i;
        pn_info("  best %s.%s %.4f  %s", r->config.objective_task, r->config.objective_metric,
                r->history[best].objective, pn_path_text(r->net, &r->history[best].path, text, sizeof text));
    }
}

pn_status pn_run_choose(pn_run *r) {
    char file[PN_PATH_MAX];
    PN_TRY(pn_run_dir_file(&r->dir, "state", file));
    PN_TRY(pn_make_directories(file));
    PN_TRY(pn_run_dir_file(&r->dir, "state/scores.jsonl", file));
    PN_TRY(pn_scores_open(file, pn_params_hash(r->net->params), &r->scores));
    PN_TRY(pn_evaluator_create(r->net, r->search_task, r->config.n_tasks, r->scores, &r->evaluator));
    pn_search *search;
    PN_TRY(pn_search_create(r->config.strategy, &r->space, r->config.strategy_options, &search));
    pn_status s = run_strategy(r, search);
    pn_search_destroy(&search);
    PN_TRY(s);
    double sign = pn_metric_ascending(r->config.objective_metric) ? -1 : 1;
    int best = -1;
    for (int i = 0; i < r->n_history; i++)
        if (pn_space_complete(&r->space, &r->history[i].path) &&
            (best < 0 || sign * r->history[i].objective < sign * r->history[best].objective))
            best = i;
    PN_ASSERT(best >= 0);
    r->winner = r->history[best].path;
    char text[PN_PATH_TEXT_MAX];
    pn_info("chosen: %s", pn_path_text(r->net, &r->winner, text, sizeof text));
    return PN_OK;
}
