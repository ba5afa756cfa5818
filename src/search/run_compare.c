/* The comparison of selectors: every strategy that compare.selectors names places every number of full-attention layers
 * that compare.full_attention lists, with the super-network, the search tasks and the stored scores of the run, so that
 * a path is measured once however many selectors ask for it. Other limits stay as they are, and nothing is refined. */
#include "run_phases.h"

#include <stdlib.h>
#include <string.h>

/* A copy of the run that searches for so many layers on the side: it shares everything but the history. */
static pn_status open_aside(const pn_run *r, int full_attention, pn_run **out) {
    pn_run *aside = malloc(sizeof *aside);
    PN_CHECK(aside, PN_MEMORY, "out of memory");
    *aside = *r;
    aside->aside = true;
    aside->history = NULL;
    aside->n_history = aside->cap_history = 0;
    aside->config.refine = 0;
    aside->space.limit[0].count = full_attention;
    *out = aside;
    return PN_OK;
}

static void close_aside(pn_run *aside) {
    pn_run_free_history(aside);
    free(aside);
}

/* Turns the failure that has just been into one that names the place. */
static pn_status fail_at_key(const pn_run *r, const char *key, int full_attention, pn_status s) {
    char said[1024];
    snprintf(said, sizeof said, "%s", pn_error_message());
    PN_FAIL(s, "%s: with full_attention %d: %s", pn_config_where(r->config.file, key), full_attention, said);
}

pn_status pn_run_check_selectors(pn_run *r) {
    const pn_search_config *c = &r->config;
    for (int64_t i = 0; i < c->compare.full_attention.n; i++) {
        int count = (int)c->compare.full_attention.item[i];
        pn_run *aside;
        PN_TRY(open_aside(r, count, &aside));
        const char *key = "compare.full_attention";
        pn_status s = pn_space_check(&aside->space);
        for (int k = 0; k < c->compare.n_selectors && !s; k++) {
            key = "compare.selectors";
            s = pn_run_try_strategy(aside, c->compare.selector[k]);
        }
        close_aside(aside);
        if (s) PN_TRY(fail_at_key(r, key, count, s));
    }
    return PN_OK;
}

static pn_status place(const pn_run *r, pn_compared *row) {
    pn_run *aside;
    PN_TRY(open_aside(r, row->full_attention, &aside));
    aside->config.strategy = row->selector;
    pn_status s = pn_run_place(aside);
    if (!s) s = pn_run_count_paths(aside, &row->n_paths);
    row->path = aside->winner;
    for (int i = 0; i < aside->n_history && !s; i++)
        if (pn_path_equal(&aside->history[i].path, &row->path))
            row->searched = pn_objective_value(r->comparison.objective, aside->history[i].metrics);
    close_aside(aside);
    return s;
}

pn_status pn_run_compare(pn_run *r) {
    const pn_search_config *c = &r->config;
    int selectors = c->compare.n_selectors, counts = (int)c->compare.full_attention.n;
    if (!selectors) return PN_OK;
    PN_TRY(pn_run_clock_begin(&r->clock, "compare_seconds"));
    PN_TRY(pn_comparison_create(r->stage[0].objective, r->heldout.n_samples, selectors * counts, &r->comparison));
    for (int i = 0; i < r->comparison.n; i++) {
        pn_compared *row = &r->comparison.row[i];
        row->full_attention = (int)c->compare.full_attention.item[i / selectors];
        row->selector = c->compare.selector[i % selectors];
        PN_TRY(place(r, row));
        PN_TRY(
            pn_run_heldout_objective(r, r->comparison.objective, &row->path, 1, "held-out: selectors", row->heldout));
    }
    return PN_OK;
}
