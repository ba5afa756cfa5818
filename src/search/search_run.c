#include "search_run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "clock.h"
#include "json.h"
#include "log.h"
#include "model_load.h"
#include "report.h"
#include "result.h"
#include "run_dir.h"
#include "scores.h"

enum { ASK_ROOM = 256, MAX_PHASES = 16 };

typedef struct phase {
    const char *name;
    double seconds;
} phase;

typedef struct run {
    pn_search_config config;
    pn_run_dir dir;
    pn_tokenizer *tokenizer;
    pn_mixture *mixture;
    pn_model *net; /* the super-network; its own path is the teacher */
    pn_space space;
    pn_supernet_result trained;
    pn_curve distill_curve;
    pn_task **search_task; /* n_tasks */
    pn_heldout heldout;
    pn_scores *scores;
    pn_evaluator *evaluator;
    pn_history *history;
    int n_history, cap_history;
    pn_path winner;
    pn_table *table;
    phase phase[MAX_PHASES];
    int n_phases;
    double started;
    FILE *out;
} run;

static void end_phase(run *r, const char *name) {
    double now = pn_seconds();
    if (r->n_phases < MAX_PHASES) r->phase[r->n_phases++] = (phase){ name, now - r->started };
    r->started = now;
}

/* ---- preparation ---- */

static pn_status open_inputs(run *r, pn_config *file) {
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

/* Whether a strategy takes this space with these options: asked before anything is trained. */
static pn_status try_strategy(const run *r, const pn_search_type *type, const void *options) {
    pn_search *search = NULL;
    PN_TRY(pn_search_create(type, &r->space, options, &search));
    pn_search_destroy(&search);
    return PN_OK;
}

static pn_status prepare_space(run *r) {
    const pn_search_config *c = &r->config;
    r->space = (pn_space){ .n_layers = r->net->config.n_layers,
                           .linear = 1,
                           .attention = 0,
                           .none = c->none > 0 ? 1 + c->n_blocks : -1,
                           .full_attention = (int)c->full_attention,
                           .max_none = (int)c->none };
    PN_TRY(try_strategy(r, c->strategy, c->strategy_options));
    if (c->compare.exhaustive) PN_TRY(try_strategy(r, &pn_search_exhaustive, c->exhaustive_options));
    return PN_OK;
}

/* Everything that can be wrong with the input is found here, before the directory of the run is made. */
static pn_status prepare(run *r, pn_config *file) {
    PN_TRY(open_inputs(r, file));
    PN_TRY(prepare_space(r));
    const pn_search_config *c = &r->config;
    r->search_task = calloc((size_t)c->n_tasks, sizeof *r->search_task);
    PN_CHECK(r->search_task, PN_MEMORY, "out of memory");
    for (int k = 0; k < c->n_tasks; k++)
        PN_TRY(pn_task_prepare(&c->tasks[k], r->tokenizer, PN_SPLIT_SEARCH, 0, &r->search_task[k]));
    PN_TRY(pn_heldout_prepare(c->tasks, c->n_tasks, (int)c->heldout_samples, r->tokenizer, &r->heldout));
    PN_TRY(pn_supernet_build(r->net, c->blocks, c->n_blocks, c->none > 0, (uint64_t)c->top.seed));
    PN_TRY(pn_run_dir_open(c->top.output, file, &r->dir));
    if (r->dir.resumed) pn_info("going on with the run in %s", r->dir.path);
    return PN_OK;
}

/* ---- super-network ---- */

static pn_status train_net(run *r) {
    const pn_search_config *c = &r->config;
    char dir[PN_PATH_MAX];
    PN_TRY(pn_run_dir_file(&r->dir, "state/supernet", dir));
    const pn_supernet_job job = { .config = &c->supernet,
                                  .mixture = r->mixture,
                                  .seed = (uint64_t)c->top.seed,
                                  .full_attention = c->full_attention,
                                  .state_dir = dir };
    PN_TRY(pn_supernet_train(r->net, &job, &r->trained));
    pn_params_train(r->net->params, "*", false);
    return PN_OK;
}

/* ---- search ---- */

static double objective(const run *r, const pn_metrics *metrics) {
    for (int k = 0; k < r->config.n_tasks; k++)
        if (!strcmp(r->config.tasks[k].options.name, r->config.objective_task))
            return *pn_metrics_get(&metrics[k], r->config.objective_metric);
    PN_ASSERT(!"the objective's task, checked when the config was read");
}

static pn_status remember(run *r, const pn_path *path, const pn_metrics *metrics) {
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
static pn_status measure(run *r, const pn_path *paths, int n, const char *what, pn_search *search) {
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

static pn_status run_strategy(run *r, pn_search *search) {
    static pn_path paths[ASK_ROOM];
    for (int round = 0;; round++) {
        int n;
        char what[64], text[PN_PATH_TEXT_MAX];
        PN_TRY(search->type->ask(search, paths, ASK_ROOM, &n));
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

static pn_status choose(run *r) {
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

/* ---- the table ---- */

static pn_status add_row(run *r, const char *name, const pn_model *m, const pn_path *path, bool distilled) {
    char text[PN_PATH_TEXT_MAX], what[96];
    pn_table_row *row;
    pn_path_text(m, path, text, sizeof text);
    snprintf(what, sizeof what, "held-out: %s", name);
    PN_TRY(pn_table_add_row(r->table, name, text, distilled, &row));
    PN_TRY(pn_heldout_measure(&r->heldout, m, path, true, m == r->net ? r->scores : NULL, what, row));
    return PN_OK;
}

/* The best of all placements on the held-out samples themselves: nothing can be above it but noise. */
static pn_status add_exhaustive_row(run *r) {
    const pn_search_type *type = &pn_search_exhaustive;
    pn_search *search;
    PN_TRY(pn_search_create(type, &r->space, r->config.exhaustive_options, &search));
    static pn_path paths[ASK_ROOM];
    int n, samples = r->heldout.n_samples, task = 0;
    while (strcmp(r->config.tasks[task].options.name, r->config.objective_task)) task++;
    double sign = pn_metric_ascending(r->config.objective_metric) ? -1 : 1, best_value = 0;
    pn_path best = { 0 };
    pn_status s = PN_OK;
    while (!s && !(s = type->ask(search, paths, ASK_ROOM, &n)) && n) {
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
    PN_TRY(add_row(r, "best of all placements", r->net, &best, false));
    return PN_OK;
}

static pn_status table_before(run *r) {
    const pn_search_config *c = &r->config;
    PN_TRY(pn_table_create(c->tasks, c->n_tasks, (int)c->heldout_samples, &r->table));
    pn_path teacher = pn_model_own_path(r->net), linear = pn_space_all_linear(&r->space),
            uniform = pn_space_uniform(&r->space);
    PN_TRY(pn_heldout_teach(&r->heldout, r->net));
    PN_TRY(add_row(r, "teacher", r->net, &teacher, false));
    if (c->compare.all_linear) PN_TRY(add_row(r, "all linear", r->net, &linear, false));
    if (c->compare.uniform) PN_TRY(add_row(r, "uniform", r->net, &uniform, false));
    PN_TRY(add_row(r, "PostNAS", r->net, &r->winner, false));
    if (c->compare.exhaustive) PN_TRY(add_exhaustive_row(r));
    return PN_OK;
}

/* ---- distillation and export ---- */

static pn_status distill(run *r, const char *name, const char *state, const pn_path *path, pn_curve *curve,
                         pn_model **out) {
    PN_TRY(pn_supernet_extract(r->net, path, out));
    if (!r->config.distill_tokens) return PN_OK;
    char dir[PN_PATH_MAX], what[64], part[64];
    snprintf(part, sizeof part, "state/%s", state);
    snprintf(what, sizeof what, "distil %s", name);
    PN_TRY(pn_run_dir_file(&r->dir, part, dir));
    pn_path teacher = pn_model_own_path(r->net);
    const uint64_t start[] = { r->scores->weights_hash, pn_scores_path_key(r->net, path) };
    const pn_train_job job = { .name = what,
                               .options = &r->config.distill_train,
                               .mixture = r->mixture,
                               .student = *out,
                               .teacher = r->net,
                               .teacher_path = &teacher,
                               .identity = XXH3_64bits(start, sizeof start),
                               .state_dir = dir };
    PN_TRY(pn_train_run(&job, curve));
    return PN_OK;
}

static pn_status distill_rival(run *r, const char *name, const char *state, const pn_path *path) {
    pn_model *m = NULL;
    pn_status s = distill(r, name, state, path, NULL, &m);
    pn_path own = pn_model_own_path(r->net);
    char row[64];
    snprintf(row, sizeof row, "%s, distilled", name);
    if (!s) s = add_row(r, row, m, &own, true);
    pn_model_destroy(&m);
    return s;
}

static pn_status export_model(run *r, const pn_model *m) {
    char path[PN_PATH_MAX], fresh[PN_PATH_MAX];
    PN_TRY(pn_run_dir_file(&r->dir, "model", path));
    PN_TRY(
        pn_run_dir_file(&r->dir, "state/model", fresh)); /* then in place of one that an earlier end of this run left */
    PN_TRY(pn_remove_tree(fresh));
    pn_directory_writer w = { 0 };
    PN_TRY(pn_directory_writer_open(fresh, &w));
    const pn_save_options save = { .dtype = pn_export_dtype(r->config.top.dtype), .kind = PN_HF_JET_NEMOTRON };
    pn_status s = pn_model_save(m, w.temporary, &save);
    if (!s) s = pn_tokenizer_write_dir(r->tokenizer, w.temporary);
    if (!s) s = pn_directory_writer_commit(&w);
    pn_directory_writer_abort(&w);
    PN_TRY(s);
    PN_TRY(pn_remove_tree(path));
    PN_CHECK(!rename(fresh, path), PN_IO, "%s: cannot put the exported model in place: %s", path, strerror(errno));
    pn_info("wrote %s", path);
    return PN_OK;
}

/* The winner's row is measured on what was written: read back from its files. */
static pn_status finish_winner(run *r) {
    pn_model *m = NULL, *back = NULL;
    char path[PN_PATH_MAX];
    pn_path own = pn_model_own_path(r->net);
    pn_status s;
    PN_TRY_GOTO(s, distill(r, "PostNAS", "distill", &r->winner, &r->distill_curve, &m), done);
    PN_TRY_GOTO(s, export_model(r, m), done);
    pn_model_destroy(&m);
    PN_TRY_GOTO(s, pn_run_dir_file(&r->dir, "model", path), done);
    PN_TRY_GOTO(s, pn_model_load(path, PN_F32, &back), done);
    bool distilled = r->config.distill_tokens > 0;
    PN_TRY_GOTO(s, add_row(r, distilled ? "PostNAS, distilled" : "PostNAS, exported", back, &own, distilled), done);
done:
    pn_model_destroy(&m);
    pn_model_destroy(&back);
    return s;
}

static pn_status after_search(run *r) {
    const pn_search_config *c = &r->config;
    if (c->compare.distill && c->distill_tokens) {
        pn_path linear = pn_space_all_linear(&r->space), uniform = pn_space_uniform(&r->space);
        if (c->compare.all_linear) PN_TRY(distill_rival(r, "all linear", "distill-all-linear", &linear));
        if (c->compare.uniform) PN_TRY(distill_rival(r, "uniform", "distill-uniform", &uniform));
    }
    return finish_winner(r);
}

/* ---- results ---- */

static pn_status write_timing(run *r) {
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

static pn_status write_results(run *r) {
    const pn_result result = { .config = &r->config,
                               .supernet = r->net,
                               .space = r->space,
                               .history = r->history,
                               .n_history = r->n_history,
                               .winner = r->winner,
                               .trained = &r->trained,
                               .distill_curve = &r->distill_curve,
                               .table = r->table,
                               .weights_hash = r->scores->weights_hash };
    char path[PN_PATH_MAX], page[PN_PATH_MAX], text[PN_PATH_TEXT_MAX];
    json_t *root;
    PN_TRY(pn_result_json(&result, &root));
    pn_status s = pn_run_dir_file(&r->dir, "result.json", path);
    if (!s) s = pn_json_write(path, root);
    if (!s) s = pn_run_dir_file(&r->dir, "report.html", page);
    if (!s) s = pn_report_write(root, page);
    json_decref(root);
    PN_TRY(s);
    fprintf(r->out, "\n%d paths measured; %d of %d layers keep full attention:\n  %s\n\n", r->n_history,
            r->space.full_attention, r->space.n_layers, pn_path_text(r->net, &r->winner, text, sizeof text));
    pn_table_print(r->table, r->out);
    fprintf(r->out, "\nresults: %s\nreport: %s\n", path, page);
    return PN_OK;
}

static pn_status phases(run *r, pn_config *file) {
    r->started = pn_seconds();
    PN_TRY(prepare(r, file));
    end_phase(r, "prepare_seconds");
    PN_TRY(train_net(r));
    end_phase(r, "supernet_seconds");
    PN_TRY(choose(r));
    end_phase(r, "search_seconds");
    PN_TRY(table_before(r));
    end_phase(r, "heldout_seconds");
    PN_TRY(after_search(r));
    end_phase(r, "distill_and_export_seconds");
    PN_TRY(write_results(r));
    PN_TRY(write_timing(r));
    return PN_OK;
}

static void free_run(run *r) {
    pn_evaluator_destroy(&r->evaluator);
    pn_scores_close(&r->scores);
    for (int k = 0; r->search_task && k < r->config.n_tasks; k++) pn_task_destroy(&r->search_task[k]);
    free(r->search_task);
    pn_heldout_free(&r->heldout);
    for (int i = 0; i < r->n_history; i++) free(r->history[i].metrics);
    free(r->history);
    pn_supernet_result_free(&r->trained);
    pn_curve_free(&r->distill_curve);
    pn_table_destroy(&r->table);
    pn_model_destroy(&r->net);
    pn_mixture_destroy(&r->mixture);
    pn_tokenizer_destroy(&r->tokenizer);
    pn_search_config_free(&r->config);
    free(r);
}

pn_status pn_search_run(pn_config *file, FILE *out) {
    run *r = calloc(1, sizeof *r);
    PN_CHECK(r, PN_MEMORY, "out of memory");
    r->out = out;
    pn_status s = phases(r, file);
    free_run(r);
    return s;
}
