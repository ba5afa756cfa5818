#include "search_run.h"

#include <stdlib.h>

#include "clock.h"
#include "json.h"
#include "log.h"
#include "model_load.h"
#include "run_phases.h"

static void end_phase(pn_run *r, const char *name) {
    double now = pn_seconds();
    if (r->n_phases < PN_RUN_PHASES) r->phase[r->n_phases++] = (pn_run_phase){ name, now - r->started };
    r->started = now;
}

/* ---- preparation ---- */

static pn_status open_inputs(pn_run *r, pn_config *file) {
    PN_TRY(pn_search_config_read(file, &r->config));
    const pn_search_config *c = &r->config;
    PN_TRY(pn_tokenizer_open(c->top.model, &r->tokenizer));
    PN_TRY(pn_search_config_mixture(c, r->tokenizer, &r->mixture));
    PN_TRY(pn_model_load(c->top.model, PN_F32, &r->net));
    PN_CHECK(pn_tokenizer_vocab(r->tokenizer) <= r->net->config.vocab, PN_FORMAT,
             "%s: the tokenizer has %lld tokens, the model only %lld", c->top.model,
             (long long)pn_tokenizer_vocab(r->tokenizer), (long long)r->net->config.vocab);
    for (int l = 0; l < r->net->config.n_layers; l++)
        PN_CHECK(r->net->config.layer[l].type == &pn_block_attention, PN_USAGE,
                 "%s: layer %d is %s; a search starts from a model with full attention in every layer", c->top.model, l,
                 r->net->config.layer[l].type->name);
    return PN_OK;
}

/* Whether a strategy takes every stage with these options: asked before anything is trained, with stand-ins for what
 * the stages will place. */
static pn_status try_strategy(const pn_run *r, const pn_search_type *type, const void *options) {
    pn_path placed = pn_space_all_linear(&r->space);
    for (int i = 0; i < r->n_stages; i++) {
        const pn_search_input in = pn_run_search_input(r, i, &placed, options);
        pn_search *search = NULL;
        PN_TRY(pn_search_create(type, &in, &search));
        pn_search_destroy(&search);
        placed = pn_space_uniform(&in.space);
    }
    return PN_OK;
}

static pn_status prepare_space(pn_run *r) {
    const pn_search_config *c = &r->config;
    r->space = pn_search_config_space(c, r->net->config.n_layers);
    PN_TRY(pn_space_check(&r->space));
    r->n_stages = pn_search_config_stages(c, &r->space, r->stage);
    PN_TRY(try_strategy(r, c->strategy, c->strategy_options));
    if (c->compare.exhaustive) PN_TRY(try_strategy(r, &pn_search_exhaustive, c->exhaustive_options));
    return PN_OK;
}

/* Everything that can be wrong with the input is found here, before the directory of the run is made. */
static pn_status prepare(pn_run *r, pn_config *file) {
    PN_TRY(open_inputs(r, file));
    PN_TRY(prepare_space(r));
    const pn_search_config *c = &r->config;
    r->search_task = calloc((size_t)c->n_tasks, sizeof *r->search_task);
    PN_CHECK(r->search_task, PN_MEMORY, "out of memory");
    for (int k = 0; k < c->n_tasks; k++)
        PN_TRY(pn_task_prepare(&c->tasks[k], r->tokenizer, PN_SPLIT_SEARCH, 0, &r->search_task[k]));
    PN_TRY(pn_heldout_prepare(c->tasks, c->n_tasks, (int)c->heldout_samples, r->tokenizer, &r->heldout));
    PN_TRY(pn_supernet_build(r->net, c->blocks, c->n_blocks, c->limit[PN_KIND_NONE] > 0, (uint64_t)c->top.seed));
    PN_TRY(pn_run_dir_open(c->top.output, file, &r->dir));
    if (r->dir.resumed) pn_info("going on with the run in %s", r->dir.path);
    return PN_OK;
}

/* ---- super-network ---- */

static pn_status train_net(pn_run *r) {
    const pn_search_config *c = &r->config;
    char dir[PN_PATH_MAX];
    PN_TRY(pn_run_dir_file(&r->dir, "state/supernet", dir));
    r->errors = calloc((size_t)pn_supernet_error_count(r->net) + 1, sizeof *r->errors);
    PN_CHECK(r->errors, PN_MEMORY, "out of memory");
    PN_TRY(pn_supernet_train(r->net, &c->supernet, &c->supernet_train, r->mixture, (uint64_t)c->top.seed, dir,
                             r->errors, &r->n_errors, &r->net_curve));
    pn_params_train(r->net->params, "*", false);
    return PN_OK;
}

static pn_status write_timing(pn_run *r) {
    char path[PN_PATH_MAX];
    PN_TRY(pn_run_dir_file(&r->dir, "timing.json", path));
    json_t *root = json_object();
    double total = 0;
    for (int i = 0; i < r->n_phases; i++) {
        json_object_set_new(root, r->phase[i].name, json_real(r->phase[i].seconds));
        total += r->phase[i].seconds;
    }
    json_object_set_new(root, "total_seconds", json_real(total));
    pn_status s = pn_json_write(path, root);
    json_decref(root);
    char text[32];
    fprintf(r->out, "total time: %s\n", pn_duration_text(total, text, sizeof text));
    return s;
}

static pn_status phases(pn_run *r, pn_config *file) {
    r->started = pn_seconds();
    PN_TRY(prepare(r, file));
    end_phase(r, "prepare_seconds");
    PN_TRY(train_net(r));
    end_phase(r, "supernet_seconds");
    PN_TRY(pn_run_choose(r));
    end_phase(r, "search_seconds");
    PN_TRY(pn_run_table(r));
    end_phase(r, "heldout_seconds");
    PN_TRY(pn_run_distill(r));
    end_phase(r, "distill_and_export_seconds");
    PN_TRY(pn_run_results(r));
    PN_TRY(write_timing(r));
    return PN_OK;
}

static void free_run(pn_run *r) {
    pn_evaluator_destroy(&r->evaluator);
    pn_scores_close(&r->scores);
    for (int k = 0; r->search_task && k < r->config.n_tasks; k++) pn_task_destroy(&r->search_task[k]);
    free(r->search_task);
    pn_heldout_free(&r->heldout);
    for (int i = 0; i < r->n_history; i++) free(r->history[i].metrics);
    free(r->history);
    free(r->errors);
    pn_curve_free(&r->net_curve);
    pn_curve_free(&r->distill_curve);
    pn_table_destroy(&r->table);
    pn_model_destroy(&r->net);
    pn_mixture_destroy(&r->mixture);
    pn_tokenizer_destroy(&r->tokenizer);
    pn_search_config_free(&r->config);
    free(r);
}

pn_status pn_search_run(pn_config *file, FILE *out) {
    pn_run *r = calloc(1, sizeof *r);
    PN_CHECK(r, PN_MEMORY, "out of memory");
    r->out = out;
    pn_status s = phases(r, file);
    free_run(r);
    return s;
}
