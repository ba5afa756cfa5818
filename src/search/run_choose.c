/* The search itself: stage by stage the strategy asks and the evaluator tells, then what it found is refined. */
#include "run_phases.h"

#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "monitor.h"

pn_search_input pn_run_search_input(const pn_run *r, const pn_space *space, int stage, const pn_path *placed,
                                    const void *options) {
    const pn_stage *g = &r->stage[stage];
    return (pn_search_input){ .space = pn_space_part(space, g->first, g->n, placed),
                              .options = options,
                              .seed = (uint64_t)r->config.top.seed,
                              .gates = &r->gates,
                              .tasks = r->config.tasks,
                              .n_tasks = r->config.n_tasks };
}

/* ---- history ---- */

static pn_status remember(pn_run *r, const pn_history *row) {
    if (r->n_history == r->cap_history) {
        int cap = r->cap_history ? 2 * r->cap_history : 256;
        pn_history *grown = realloc(r->history, (size_t)cap * sizeof *grown);
        PN_CHECK(grown, PN_MEMORY, "out of memory");
        r->history = grown;
        r->cap_history = cap;
    }
    size_t bytes = (size_t)r->config.n_tasks * sizeof *row->metrics;
    pn_metrics *copy = malloc(bytes);
    PN_CHECK(copy, PN_MEMORY, "out of memory");
    memcpy(copy, row->metrics, bytes);
    r->history[r->n_history] = *row;
    r->history[r->n_history++].metrics = copy;
    return PN_OK;
}

void pn_run_free_history(pn_run *r) {
    for (int i = 0; i < r->n_history; i++) free(r->history[i].metrics);
    free(r->history);
}

/* ---- one search ---- */

/* A strategy at work on a stage. Its proposals are the history's rows from `first` on. */
typedef struct driver {
    pn_run *r;
    pn_search *search;
    int stage, first, first_round;
    int root; /* the row that proposals without a parent change; -1: none */
} driver;

double pn_run_loss(const pn_run *r, int row) {
    const pn_history *h = &r->history[row];
    const pn_variants *v = r->stage_variants[h->stage];
    return pn_objective_loss(r->stage[h->stage].objective, h->objective) + (v ? pn_variants_penalty(v, &h->path) : 0);
}

/* Measures what was asked on the search tasks, remembers and tells it. */
static pn_status measure(driver *d, const pn_proposal *asked, int n, const char *what) {
    pn_run *r = d->r;
    int tasks = r->config.n_tasks;
    pn_metrics *metrics = calloc((size_t)(n * tasks), sizeof *metrics);
    pn_path *paths = calloc((size_t)n, sizeof *paths);
    pn_status s = PN_OK;
    if (!metrics || !paths) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    for (int i = 0; i < n; i++) paths[i] = asked[i].path;
    PN_TRY_GOTO(s, pn_evaluator_run(r->evaluator, paths, n, what, metrics), done);
    for (int i = 0; i < n; i++) {
        const pn_history row = { .path = paths[i],
                                 .metrics = &metrics[i * tasks],
                                 .objective = pn_objective_value(r->stage[d->stage].objective, &metrics[i * tasks]),
                                 .stage = d->stage,
                                 .round = d->first_round + asked[i].round,
                                 .parent = asked[i].parent < 0 ? d->root : d->first + asked[i].parent };
        PN_TRY_GOTO(s, remember(r, &row), done);
        PN_TRY_GOTO(s, pn_search_tell(d->search, &paths[i], pn_run_loss(r, r->n_history - 1), row.metrics), done);
    }
done:
    free(metrics);
    free(paths);
    return s;
}

static pn_status run_rounds(driver *d) {
    static pn_proposal asked[PN_RUN_ASK];
    pn_run *r = d->r;
    for (;;) {
        int n, first = r->n_history, best = first;
        char what[64], text[PN_PATH_TEXT_MAX];
        PN_TRY(pn_search_ask(d->search, asked, PN_RUN_ASK, &n));
        if (!n) return PN_OK;
        snprintf(what, sizeof what, "%s search, round %d, %d paths", d->search->type->name,
                 d->first_round + asked[0].round, n);
        PN_TRY(measure(d, asked, n, what));
        for (int i = first; i < r->n_history; i++)
            if (pn_run_loss(r, i) < pn_run_loss(r, best)) best = i;
        const pn_scalar scalars[] = { { "search/best_objective", r->history[best].objective }, { "search/paths", n } };
        if (!r->aside) pn_monitor_point(d->search->type->name, d->first_round + asked[0].round, scalars, 2);
        pn_info("  best %s %.4f  %s", r->stage[d->stage].objective->text, r->history[best].objective,
                pn_path_text(r->net, &r->history[best].path, text, sizeof text));
    }
}

pn_status pn_run_search(pn_run *r, const pn_search_type *type, const pn_search_input *in, int stage, int root) {
    driver d = { .r = r, .stage = stage, .first = r->n_history, .root = root };
    if (r->n_history) d.first_round = r->history[r->n_history - 1].round + 1;
    PN_TRY(pn_search_create(type, in, &d.search));
    pn_status s = run_rounds(&d);
    pn_search_destroy(&d.search);
    return s;
}

/* ---- the stages ---- */

/* The best row of the stage, from `first` on, that is complete in its space. */
static int best_row(const pn_run *r, int stage, const pn_space *space, int first) {
    int best = -1;
    for (int i = first; i < r->n_history; i++)
        if (r->history[i].stage == stage && pn_space_complete(space, &r->history[i].path) &&
            (best < 0 || pn_run_loss(r, i) < pn_run_loss(r, best)))
            best = i;
    PN_ASSERT(best >= 0);
    return best;
}

/* placed, root: what the stage before has placed, and its row; -1: all linear, none. Both receive this stage's. */
static pn_status run_stage(pn_run *r, int stage, pn_path *placed, int *root) {
    pn_search_input in =
        pn_run_search_input(r, &r->space, stage, placed, pn_search_config_options(&r->config, r->config.strategy));
    PN_TRY(pn_run_search(r, r->config.strategy, &in, stage, *root));
    int best = r->config.strategy->decides ? r->n_history - 1 : best_row(r, stage, &in.space, 0);
    if (r->config.refine) {
        const pn_swap_options swap = { r->config.refine, r->history[best].path, pn_run_loss(r, best) };
        in.options = &swap;
        PN_TRY(pn_run_search(r, &pn_search_swap, &in, stage, best));
        best = best_row(r, stage, &in.space, best);
    }
    *root = best;
    *placed = r->placed[stage] = r->history[best].path;
    return PN_OK;
}

/* Normalised objectives need to know what the two ends of their scale score. */
static pn_status scale_objectives(pn_run *r) {
    if (!r->config.objective[0].normalised) return PN_OK;
    int tasks = r->config.n_tasks;
    const pn_path ends[] = { pn_space_all_linear(&r->space), pn_model_own_path(r->net) };
    pn_metrics *metrics = calloc((size_t)(2 * tasks), sizeof *metrics);
    PN_CHECK(metrics, PN_MEMORY, "out of memory");
    pn_status s = pn_evaluator_run(r->evaluator, ends, 2, "all linear and teacher", metrics);
    for (int k = 0; k < PN_KINDS && !s; k++)
        s = pn_objective_scale(&r->config.objective[k], r->config.tasks, metrics, metrics + tasks);
    for (int k = 0; k < PN_VARIANT_STAGES && !s; k++)
        if (r->config.variants[k].wanted)
            s = pn_objective_scale(&r->config.variants[k].objective, r->config.tasks, metrics, metrics + tasks);
    free(metrics);
    return s;
}

pn_status pn_run_place(pn_run *r) {
    char text[PN_PATH_TEXT_MAX];
    pn_path placed = pn_space_all_linear(&r->space);
    int root = -1;
    for (int i = 0; i < r->n_placements; i++) PN_TRY(run_stage(r, i, &placed, &root));
    r->winner = placed;
    r->winner_row = root;
    pn_info("chosen: %s", pn_path_text(r->net, &r->winner, text, sizeof text));
    return PN_OK;
}

pn_status pn_run_choose(pn_run *r) {
    char file[PN_PATH_MAX];
    uint64_t weights;
    PN_TRY(pn_scores_shared_hash(r->net, &weights));
    PN_TRY(pn_run_dir_file(&r->dir, "state", file));
    PN_TRY(pn_make_directories(file));
    PN_TRY(pn_run_dir_file(&r->dir, "state/scores.jsonl", file));
    PN_TRY(pn_scores_open(file, weights, &r->scores));
    PN_TRY(pn_scores_identify(r->scores, r->net));
    PN_TRY(pn_evaluator_create(r->net, r->search_task, r->config.n_tasks, r->scores, &r->evaluator));
    PN_TRY(scale_objectives(r));
    PN_TRY(pn_run_place(r));
    return PN_OK;
}
