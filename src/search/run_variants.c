#include "run_variants.h"

#include <math.h>
#include <stdlib.h>

#include "block_cost.h"
#include "log.h"
#include "replace.h"
#include "run_phases.h"

void pn_variants_free(pn_variants *v) {
    free(v->item);
    pn_supernet_result_free(&v->trained);
    *v = (pn_variants){ 0 };
}

double pn_variants_penalty(const pn_variants *v, const pn_path *path) {
    double penalty = 0;
    for (int k = 0; k < PN_VARIANT_COSTS; k++) {
        double cost = 0;
        if (v->config->worth[k] == 0) continue;
        for (int l = 0; l < path->n; l++)
            for (int i = 0; i < v->n; i++)
                if (path->choice[l] == v->item[i].choice) cost += v->item[i].cost[k];
        if (cost > 0) penalty += v->config->worth[k] * log2(cost);
    }
    return penalty;
}

/* ---- which variants ---- */

static pn_shape current(const pn_run *r) {
    const pn_variants *block = &r->variants[PN_VARIANTS_BLOCK];
    return (pn_shape){ r->net->layer[0].candidate[r->final.linear]->spec,
                       block->n ? block->item[block->chosen].init : r->config.start[0] };
}

/* Stage block: what it lists. Stage shape: the block as it is, and what is listed for its type. */
static pn_status list_variants(const pn_run *r, pn_variant_stage stage, pn_shape *list, int *n) {
    const pn_variants_config *c = &r->config.variants[stage];
    const pn_block_type *type = NULL;
    *n = 0;
    if (stage == PN_VARIANTS_SHAPE) {
        list[(*n)++] = current(r);
        type = list[0].spec.type;
    }
    PN_TRY(pn_variants_list(c, &r->net->config.dims, type, list, n));
    return PN_OK;
}

/* How many a stage may add: stage shape the block as it is, and the most that are listed for one type. */
static pn_status most_variants(const pn_run *r, const pn_variants_config *c, bool shape, int *most) {
    pn_shape list[PN_MAX_VARIANTS];
    *most = 0;
    if (!shape) return pn_variants_list(c, &r->net->config.dims, NULL, list, most);
    for (int i = 0; i < c->n_entries; i++) {
        int n = 1;
        list[0] = (pn_shape){ 0 };
        PN_TRY(pn_variants_list(c, &r->net->config.dims, c->entry[i].type, list, &n));
        if (n > *most) *most = n;
    }
    return PN_OK;
}

pn_status pn_run_check_variants(const pn_run *r) {
    int sum = r->config.n_blocks + 2; /* with the base's own mixer and none */
    for (int k = 0; k < PN_VARIANT_STAGES; k++) {
        int most = 0;
        if (r->config.variants[k].wanted)
            PN_TRY(most_variants(r, &r->config.variants[k], k == PN_VARIANTS_SHAPE, &most));
        sum += most;
    }
    PN_CHECK(sum <= PN_MAX_CANDIDATES, PN_USAGE,
             "block.candidates and shape.candidates: %d blocks in every layer with those of the placement, at most %d "
             "can be; list fewer",
             sum, PN_MAX_CANDIDATES);
    return PN_OK;
}

static pn_status create(pn_run *r, pn_variant_stage stage, pn_variants *v) {
    pn_shape list[PN_MAX_VARIANTS];
    pn_block_spec spec[PN_MAX_VARIANTS];
    v->config = &r->config.variants[stage];
    v->replaced = r->final.linear;
    PN_TRY(list_variants(r, stage, list, &v->n));
    v->item = calloc((size_t)v->n, sizeof *v->item);
    PN_CHECK(v->item, PN_MEMORY, "out of memory");
    int first = r->net->layer[0].n_candidates;
    for (int i = 0; i < v->n; i++) spec[i] = list[i].spec;
    PN_TRY(pn_supernet_build(r->net, spec, v->n, false, (uint64_t)r->config.top.seed));
    for (int i = 0; i < v->n; i++) {
        v->item[i].choice = first + i;
        v->item[i].init = list[i].init;
        v->item[i].spec = r->net->layer[0].candidate[first + i]->spec;
        pn_shape_text(list, v->n, i, v->item[i].text, sizeof v->item[i].text);
    }
    return PN_OK;
}

static pn_status train(pn_run *r, const char *name, pn_variants *v) {
    char dir[PN_PATH_MAX], part[64];
    int64_t start[PN_MAX_CANDIDATES] = { 0 }; /* candidates of earlier stages stay what they are */
    for (int i = 0; i < v->n; i++) start[v->item[i].choice - 1] = v->item[i].init;
    snprintf(part, sizeof part, "state/%s", name);
    PN_TRY(pn_run_dir_file(&r->dir, part, dir));
    const pn_supernet_job job = { .name = name,
                                  .config = &v->config->training,
                                  .mixture = r->mixture,
                                  .seed = (uint64_t)r->config.top.seed,
                                  .start = start,
                                  .n_starts = v->item[v->n - 1].choice,
                                  .state_dir = dir };
    PN_TRY(pn_supernet_train(r->net, &job, &v->trained));
    pn_params_train(r->net->params, "*", false);
    PN_TRY(pn_scores_identify(r->scores, r->net));
    return PN_OK;
}

/* ---- what they cost ---- */

static pn_status measure_pass(pn_run *r, pn_variant *x, pn_latency_pass pass, double *rates, double *seconds) {
    const pn_int_list *context = &r->config.latency.context;
    for (int64_t i = 0; i < context->n; i++) {
        pn_latency_setting setting;
        pn_timing timing;
        PN_TRY(pn_latency_setting_of(&r->config.latency, pass, context->item[i], &r->net->config, &setting));
        PN_TRY(pn_latency_block(r->latency, &x->spec, &r->net->config.dims, &setting, &timing));
        rates[i] = pn_latency_tokens(&setting) / timing.median;
        *seconds += timing.median;
    }
    return PN_OK;
}

static pn_status measure_costs(pn_run *r, pn_variants *v) {
    for (int i = 0; i < v->n; i++) {
        pn_variant *x = &v->item[i];
        pn_block_cost cost;
        PN_TRY(pn_block_spec_cost(&x->spec, &r->net->config.dims, r->config.latency.context.item[0], 2, &cost));
        x->cost[PN_VARIANT_PARAMETERS] = cost.parameters;
        x->cost[PN_VARIANT_FLOPS] = cost.token_flops;
        x->cost[PN_VARIANT_STATE] = cost.state_bytes;
        PN_TRY(measure_pass(r, x, PN_LATENCY_DECODE, x->decode, &x->cost[PN_VARIANT_DECODE]));
        PN_TRY(measure_pass(r, x, PN_LATENCY_PREFILL, x->prefill, &x->cost[PN_VARIANT_PREFILL]));
    }
    return PN_OK;
}

/* ---- which one is chosen ---- */

static double loss_without_costs(const pn_run *r, const pn_variants *v, const pn_variant *x) {
    return pn_objective_loss(&v->config->objective, r->history[x->row].objective);
}

static void find_front(const pn_run *r, pn_variants *v) {
    for (int i = 0; i < v->n; i++) {
        double loss = loss_without_costs(r, v, &v->item[i]), time = v->item[i].cost[PN_VARIANT_DECODE];
        v->item[i].front = true;
        for (int k = 0; k < v->n; k++) {
            double other = loss_without_costs(r, v, &v->item[k]), faster = v->item[k].cost[PN_VARIANT_DECODE];
            if (other <= loss && faster <= time && (other < loss || faster < time)) v->item[i].front = false;
        }
    }
}

static int choose(const pn_run *r, const pn_variants *v) {
    double best = INFINITY;
    int chosen = 0;
    for (int i = 0; i < v->n; i++) best = fmin(best, loss_without_costs(r, v, &v->item[i]));
    for (int i = 1; i < v->n; i++) {
        const pn_variant *x = &v->item[i], *now = &v->item[chosen];
        bool near = loss_without_costs(r, v, x) <= best + v->config->tolerance;
        bool now_near = loss_without_costs(r, v, now) <= best + v->config->tolerance;
        if (v->config->choose == PN_CHOOSE_WEIGHED)
            chosen = pn_run_loss(r, x->row) < pn_run_loss(r, now->row) ? i : chosen;
        else if (near && (!now_near || x->cost[PN_VARIANT_DECODE] < now->cost[PN_VARIANT_DECODE]))
            chosen = i;
    }
    return chosen;
}

/* ---- the stage ---- */

static pn_search_input input(const pn_run *r, const void *options) {
    return (pn_search_input){ .space = { .start = r->winner, .linear = r->final.linear },
                              .options = options,
                              .seed = (uint64_t)r->config.top.seed,
                              .gates = &r->gates,
                              .tasks = r->config.tasks,
                              .n_tasks = r->config.n_tasks };
}

static int best_since(const pn_run *r, int first) {
    int best = first;
    for (int i = first; i < r->n_history; i++)
        if (pn_run_loss(r, i) < pn_run_loss(r, best)) best = i;
    return best;
}

static pn_status search_each(pn_run *r, pn_variants *v, int stage, const int *choice) {
    const pn_replace_options each = { .from = r->winner, .replaced = v->replaced, .choice = choice, .n = v->n };
    const pn_search_input in = input(r, &each);
    int first = r->n_history;
    PN_TRY(pn_run_search(r, &pn_search_each, &in, stage, r->winner_row));
    for (int i = 0; i < v->n; i++) v->item[i].row = first + i;
    return PN_OK;
}

static pn_status search_mix(pn_run *r, pn_variants *v, int stage, const int *choice) {
    int first = v->item[v->chosen].row;
    const pn_replace_options mix = { .from = r->history[first].path,
                                     .replaced = v->item[v->chosen].choice,
                                     .choice = choice,
                                     .n = v->n,
                                     .width = v->config->mix };
    const pn_search_input in = input(r, &mix);
    int searched = r->n_history;
    PN_TRY(pn_run_search(r, &pn_search_mix, &in, stage, first));
    int best = best_since(r, searched);
    if (pn_run_loss(r, best) < pn_run_loss(r, v->winner)) v->winner = best;
    return PN_OK;
}

/* Whether the placement, found with the block of the first stage, is still the best with the winner. */
static pn_status recheck(pn_run *r, pn_variants *v, int stage) {
    const pn_swap_options swap = { v->config->recheck, r->history[v->winner].path, pn_run_loss(r, v->winner) };
    pn_search_input in = input(r, &swap);
    in.space = r->final;
    int searched = r->n_history;
    PN_TRY(pn_run_search(r, &pn_search_swap, &in, stage, v->winner));
    if (r->n_history == searched) return PN_OK;
    int best = best_since(r, searched);
    if (pn_run_loss(r, best) < pn_run_loss(r, v->winner)) v->winner = best;
    return PN_OK;
}

static pn_status search_stage(pn_run *r, pn_variants *v, int stage) {
    int choice[PN_MAX_VARIANTS];
    for (int i = 0; i < v->n; i++) choice[i] = v->item[i].choice;
    PN_TRY(search_each(r, v, stage, choice));
    find_front(r, v);
    v->chosen = choose(r, v);
    v->winner = v->item[v->chosen].row;
    r->final.linear = v->item[v->chosen].choice;
    r->final.start = pn_space_all_linear(&r->final);
    if (v->config->mix) PN_TRY(search_mix(r, v, stage, choice));
    if (v->config->recheck) PN_TRY(recheck(r, v, stage));
    return PN_OK;
}

pn_status pn_run_stage_variants(pn_run *r, pn_variant_stage which) {
    pn_variants *v = &r->variants[which];
    char text[PN_PATH_TEXT_MAX];
    const char *name = pn_variant_stage_names[which];
    int stage = r->n_stages++;
    PN_TRY(create(r, which, v));
    pn_info("stage %s: %d candidates", name, v->n);
    PN_TRY(train(r, name, v));
    PN_TRY(measure_costs(r, v));
    r->stage[stage] = (pn_stage){ .name = name, .objective = &v->config->objective };
    r->stage_variants[stage] = v;
    PN_TRY(search_stage(r, v, stage));
    r->winner_row = v->winner;
    r->winner = v->path = r->placed[stage] = r->history[v->winner].path;
    pn_info("stage %s chose %s: %s", name, v->item[v->chosen].text,
            pn_path_text(r->net, &r->winner, text, sizeof text));
    return PN_OK;
}
