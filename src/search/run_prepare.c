/* What a run works on: inputs, the space, the super-network. */
#include "run_phases.h"

#include <stdlib.h>

#include "model_load.h"

pn_status pn_run_open(pn_run *r, pn_config *file) {
    PN_TRY(pn_search_config_read(file, &r->config));
    const pn_search_config *c = &r->config;
    PN_TRY(pn_compute_open(&c->compute, pn_config_where(file, "precision"), &r->on));
    PN_TRY(pn_tokenizer_open(c->top.model, &r->tokenizer));
    PN_TRY(pn_search_config_mixture(c, r->tokenizer, &r->mixture));
    PN_TRY(pn_model_load(c->top.model, PN_F32, &r->net));
    PN_TRY(pn_params_hash(r->net->params, &r->base_hash));
    PN_CHECK(pn_tokenizer_vocab(r->tokenizer) <= r->net->config.vocab, PN_FORMAT,
             "%s: the tokenizer has %lld tokens, the model only %lld", c->top.model,
             (long long)pn_tokenizer_vocab(r->tokenizer), (long long)r->net->config.vocab);
    for (int l = 0; l < r->net->config.n_layers; l++)
        PN_CHECK(r->net->config.layer[l].type == &pn_block_attention, PN_USAGE,
                 "%s: layer %d is %s; a search starts from a model with full attention in every layer", c->top.model, l,
                 r->net->config.layer[l].type->name);
    return PN_OK;
}

/* With stand-ins for what the stages will place. */
pn_status pn_run_try_strategy(const pn_run *r, const pn_search_type *type) {
    pn_path placed = pn_space_all_linear(&r->space);
    for (int i = 0; i < r->n_placements; i++) {
        const pn_search_input in =
            pn_run_search_input(r, &r->space, i, &placed, pn_search_config_options(&r->config, type));
        pn_search *search = NULL;
        PN_TRY(pn_search_create(type, &in, &search));
        pn_search_destroy(&search);
        placed = pn_space_uniform(&in.space);
    }
    return PN_OK;
}

pn_status pn_run_space(pn_run *r) {
    const pn_search_config *c = &r->config;
    for (int i = 0; i < c->supernet.n_phases; i++) r->gates.present |= c->supernet.phase[i].mode == PN_SUPERNET_GATED;
    r->space = pn_search_config_space(c, r->net->config.n_layers);
    PN_TRY(pn_space_check(&r->space));
    r->final = r->space;
    r->n_placements = r->n_stages = pn_search_config_stages(c, &r->space, r->stage);
    PN_TRY(pn_run_try_strategy(r, c->strategy));
    if (c->compare.exhaustive) PN_TRY(pn_run_try_strategy(r, &pn_search_exhaustive));
    PN_TRY(pn_run_check_selectors(r));
    return PN_OK;
}

pn_status pn_run_build_net(pn_run *r) {
    const pn_search_config *c = &r->config;
    PN_TRY(pn_supernet_build(r->net, c->blocks, c->n_blocks, c->limit[PN_KIND_NONE] > 0, (uint64_t)c->top.seed));
    PN_TRY(pn_params_move(r->net->params, r->on.backend, r->on.dtype));
    return PN_OK;
}

pn_status pn_run_open_dir(pn_run *r, const char *path, const pn_config *file) {
    const char *model = r->config.top.model;
    const pn_run_input inputs[] = { { "base", "base model", model, r->base_hash },
                                    { "tokenizer", "tokenizer", model, pn_tokenizer_hash(r->tokenizer) },
                                    { "data", "training data", "the mixture", pn_mixture_hash(r->mixture) } };
    PN_TRY(pn_run_dir_open(path, file, inputs, (int)(sizeof inputs / sizeof *inputs), &r->dir));
    return PN_OK;
}

pn_status pn_run_check_latency(const pn_run *r) {
    pn_latency *table = NULL;
    PN_TRY(pn_latency_open(NULL, r->config.latency.table, &table));
    pn_latency_close(&table);
    return PN_OK;
}

static pn_status open_latency(pn_run *r) {
    char state[PN_PATH_MAX], file[PN_PATH_MAX];
    PN_TRY(pn_run_dir_file(&r->dir, "state", state));
    PN_TRY(pn_run_dir_file(&r->dir, "state/latency.json", file));
    if (!r->trained_before) PN_TRY(pn_make_directories(state));
    PN_TRY(pn_latency_open(file, r->trained_before ? NULL : r->config.latency.table, &r->latency));
    PN_TRY(pn_latency_on(r->latency, r->on.backend, r->on.dtype));
    return PN_OK;
}

pn_status pn_run_train_net(pn_run *r) {
    const pn_search_config *c = &r->config;
    char dir[PN_PATH_MAX];
    PN_TRY(open_latency(r));
    PN_TRY(pn_run_dir_file(&r->dir, "state/supernet", dir));
    const pn_supernet_job job = { .config = &c->supernet,
                                  .mixture = r->mixture,
                                  .seed = (uint64_t)c->top.seed,
                                  .start = c->start,
                                  .n_starts = c->n_blocks,
                                  .full_attention = c->limit[PN_KIND_ATTENTION],
                                  .latency = r->latency,
                                  .latency_options = &c->latency,
                                  .state_dir = dir,
                                  .finished = r->trained_before };
    PN_TRY(pn_supernet_train(r->net, &job, &r->trained));
    r->gates = r->trained.gates;
    pn_params_train(r->net->params, "*", false);
    return PN_OK;
}

void pn_run_free(pn_run *r) {
    pn_run_clock_close(&r->clock);
    pn_run_dir_close(&r->dir);
    pn_evaluator_destroy(&r->evaluator);
    pn_scores_close(&r->scores);
    for (int k = 0; r->search_task && k < r->config.n_tasks; k++) pn_task_destroy(&r->search_task[k]);
    free(r->search_task);
    pn_heldout_free(&r->heldout);
    pn_run_free_history(r);
    pn_comparison_free(&r->comparison);
    pn_supernet_result_free(&r->trained);
    for (int k = 0; k < PN_VARIANT_STAGES; k++) pn_variants_free(&r->variants[k]);
    pn_latency_close(&r->latency);
    json_decref(r->speed);
    pn_curve_free(&r->distill_curve);
    pn_table_destroy(&r->table);
    pn_model_destroy(&r->net);
    pn_mixture_destroy(&r->mixture);
    pn_tokenizer_destroy(&r->tokenizer);
    pn_search_config_free(&r->config);
}
