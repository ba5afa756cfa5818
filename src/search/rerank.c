#include "rerank.h"

#include <stdlib.h>
#include <string.h>

#include "run_phases.h"

enum { CONTEXT = 65536 }; /* tokens at which decode states are compared */

typedef struct ranked {
    pn_path path;
    double value;
    bool known; /* every task of the objective is measured */
} ranked;

typedef struct rerank {
    pn_run run; /* as it was configured: inputs, super-network, scores */
    pn_search_config asked;
    const pn_rerank_options *options;
    pn_objective objective;
    pn_space space;
    pn_task **task; /* asked.n_tasks */
    ranked *row;
    int n_rows;
    pn_metrics *metrics; /* rows x tasks; n 0: not measured */
} rerank;

/* ---- what the run left ---- */

static pn_status open_run(rerank *k, const char *dir, pn_config *file) {
    pn_run *r = &k->run;
    char scores[PN_PATH_MAX];
    PN_TRY(pn_run_open(r, file));
    PN_TRY(pn_run_build_net(r));
    if (k->options->measure)
        PN_TRY(pn_run_open_dir(r, dir, file)); /* no other process may write scores meanwhile */
    else
        snprintf(r->dir.path, sizeof r->dir.path, "%s", dir);
    r->trained_before = true;
    PN_TRY(pn_run_train_net(r));
    uint64_t weights;
    PN_TRY(pn_scores_shared_hash(r->net, &weights));
    PN_TRY(pn_run_dir_file(&r->dir, "state/scores.jsonl", scores));
    if (k->options->measure)
        PN_TRY(pn_scores_open(scores, weights, &r->scores));
    else
        PN_TRY(pn_scores_read(scores, weights, &r->scores));
    PN_TRY(pn_scores_identify(r->scores, r->net));
    return PN_OK;
}

/* ---- what is asked ---- */

/* The asked limits, in the choice numbers of the run's super-network. */
static pn_status read_space(rerank *k) {
    for (int i = 0; i < PN_KINDS; i++)
        PN_CHECK(!k->asked.limit[i] || k->run.config.choice[i] >= 0, PN_USAGE,
                 "search.limits.%s: the super-network of %s was trained without; search again with this limit",
                 pn_kind_names[i], k->run.dir.path);
    memcpy(k->asked.choice, k->run.config.choice, sizeof k->asked.choice);
    k->space = pn_search_config_space(&k->asked, k->run.net->config.n_layers);
    PN_TRY(pn_space_check(&k->space));
    return PN_OK;
}

static pn_status read_asked(rerank *k, pn_config *asked) {
    pn_mixture *unused = NULL;
    PN_TRY(pn_search_config_read(asked, &k->asked));
    PN_TRY(pn_search_config_mixture(&k->asked, k->run.tokenizer, &unused)); /* with it all keys are read */
    pn_mixture_destroy(&unused);
    PN_TRY(read_space(k));
    k->objective = k->asked.objective_all;
    k->task = calloc((size_t)k->asked.n_tasks, sizeof *k->task);
    PN_CHECK(k->task, PN_MEMORY, "out of memory");
    for (int i = 0; i < k->asked.n_tasks; i++)
        PN_TRY(pn_task_prepare(&k->asked.tasks[i], k->run.tokenizer, PN_SPLIT_SEARCH, 0, &k->task[i]));
    return PN_OK;
}

/* ---- the ranking ---- */

static bool listed(const rerank *k, const pn_path *path) {
    for (int i = 0; i < k->n_rows; i++)
        if (pn_path_equal(&k->row[i].path, path)) return true;
    return false;
}

/* Every complete path that the run has measured on anything. */
static pn_status list_paths(rerank *k) {
    const pn_scores *s = k->run.scores;
    k->row = calloc((size_t)s->n + 1, sizeof *k->row);
    PN_CHECK(k->row, PN_MEMORY, "out of memory");
    for (int i = 0; i < s->n; i++) {
        pn_path path;
        if (pn_path_parse(k->run.net, s->row[i].path, &path)) { /* of a later stage, whose blocks are not here */
            pn_error_clear();
            continue;
        }
        if (s->row[i].path_key == pn_scores_path_key(s, &path) && pn_space_complete(&k->space, &path) &&
            !listed(k, &path))
            k->row[k->n_rows++].path = path;
    }
    PN_CHECK(k->n_rows, PN_USAGE, "%s: has measured no path of these search.limits; search again with them",
             k->run.dir.path);
    return PN_OK;
}

/* Metrics of paths (n x tasks) from the scores; with measure all of them, else n stays 0 for what is missing. */
static pn_status find_metrics(rerank *k, const pn_path *paths, int n, const char *what, pn_metrics *metrics) {
    pn_run *r = &k->run;
    if (k->options->measure) {
        if (!r->evaluator) PN_TRY(pn_evaluator_create(r->net, k->task, k->asked.n_tasks, r->scores, &r->evaluator));
        PN_TRY(pn_evaluator_run(r->evaluator, paths, n, what, metrics));
        return PN_OK;
    }
    for (int i = 0; i < n; i++) {
        uint64_t key = pn_scores_path_key(r->scores, &paths[i]);
        for (int t = 0; t < k->asked.n_tasks; t++) {
            const pn_metrics *m = pn_scores_find(r->scores, key, k->task[t]->key);
            metrics[i * k->asked.n_tasks + t] = m ? *m : (pn_metrics){ 0 };
        }
    }
    return PN_OK;
}

static bool measured(const rerank *k, const pn_metrics *metrics) {
    for (int t = 0; t < k->asked.n_tasks; t++)
        if (pn_objective_uses(&k->objective, t) && !metrics[t].n) return false;
    return true;
}

static pn_status scale_objective(rerank *k) {
    if (!k->objective.normalised) return PN_OK;
    int tasks = k->asked.n_tasks;
    const pn_path ends[] = { pn_space_all_linear(&k->space), pn_model_own_path(k->run.net) };
    pn_metrics *metrics = calloc((size_t)(2 * tasks), sizeof *metrics);
    PN_CHECK(metrics, PN_MEMORY, "out of memory");
    pn_status s = find_metrics(k, ends, 2, "all linear and teacher", metrics);
    if (!s && !(measured(k, metrics) && measured(k, metrics + tasks)))
        s = pn_fail_at(__FILE__, __LINE__, PN_USAGE,
                       "search.normalise: %s has no scores of the all-linear path and of the teacher for this "
                       "objective; add --measure",
                       k->run.dir.path);
    if (!s) s = pn_objective_scale(&k->objective, k->asked.tasks, metrics, metrics + tasks);
    free(metrics);
    return s;
}

static pn_status value_rows(rerank *k) {
    int tasks = k->asked.n_tasks, n_known = 0;
    pn_path *paths = calloc((size_t)k->n_rows, sizeof *paths);
    k->metrics = calloc((size_t)(k->n_rows * tasks), sizeof *k->metrics);
    pn_status s = PN_OK;
    if (!paths || !k->metrics) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    for (int i = 0; i < k->n_rows; i++) paths[i] = k->row[i].path;
    PN_TRY_GOTO(s, find_metrics(k, paths, k->n_rows, "stored paths", k->metrics), done);
    for (int i = 0; i < k->n_rows; i++) {
        ranked *row = &k->row[i];
        row->known = measured(k, &k->metrics[i * tasks]);
        if (row->known) row->value = pn_objective_value(&k->objective, &k->metrics[i * tasks]);
        n_known += row->known;
    }
    if (!n_known)
        PN_FAIL_GOTO(s, PN_USAGE, done, "%s: no path has scores for %s; add --measure", k->run.dir.path,
                     k->objective.text);
done:
    free(paths);
    return s;
}

/* ---- the table ---- */

/* The next row to print: the best after `rank` rows are printed. Marks it so that it is printed once. */
static int take_best(rerank *k, bool *taken) {
    int best = -1;
    for (int i = 0; i < k->n_rows; i++)
        if (k->row[i].known && !taken[i] &&
            (best < 0 ||
             pn_objective_loss(&k->objective, k->row[i].value) < pn_objective_loss(&k->objective, k->row[best].value)))
            best = i;
    if (best >= 0) taken[best] = true;
    return best;
}

static void print_row(const rerank *k, int rank, int i, FILE *out) {
    char text[PN_PATH_TEXT_MAX];
    const ranked *row = &k->row[i];
    fprintf(out, "%4d  %10.4f", rank, row->value);
    for (int t = 0; t < k->asked.n_tasks; t++)
        pn_task_print(&k->asked.tasks[t], &k->metrics[i * k->asked.n_tasks + t], out);
    fprintf(out, "  %10.3f  %s\n", pn_model_cache_bytes(k->run.net, &row->path, CONTEXT, 2) / (1 << 20),
            pn_path_text(k->run.net, &row->path, text, sizeof text));
}

static pn_status print(rerank *k, FILE *out) {
    bool *taken = calloc((size_t)k->n_rows, sizeof *taken);
    PN_CHECK(taken, PN_MEMORY, "out of memory");
    int n_known = 0;
    for (int i = 0; i < k->n_rows; i++) n_known += k->row[i].known;
    fprintf(out, "ranked by %s%s, %s is better\n", k->objective.text,
            k->objective.normalised ? ", 0 all linear and 1 the teacher" : "",
            k->objective.ascending ? "more" : "less");
    fprintf(out, "rank  %10s", "objective");
    for (int t = 0; t < k->asked.n_tasks; t++) pn_task_print(&k->asked.tasks[t], NULL, out);
    fprintf(out, "  %10s  %s\n", "MiB at 64K", "path");
    for (int rank = 1, i; rank <= k->options->top && (i = take_best(k, taken)) >= 0; rank++) print_row(k, rank, i, out);
    fprintf(out, "%d of %d stored paths of these limits", n_known, k->n_rows);
    fprintf(out, n_known < k->n_rows ? " are ranked; the others lack scores, which --measure adds\n" : "\n");
    free(taken);
    return PN_OK;
}

static pn_status run_all(rerank *k, const char *dir, pn_config *file, pn_config *asked, FILE *out) {
    PN_TRY(open_run(k, dir, file));
    PN_TRY(read_asked(k, asked));
    PN_TRY(list_paths(k));
    PN_TRY(scale_objective(k));
    PN_TRY(value_rows(k));
    PN_TRY(print(k, out));
    return PN_OK;
}

pn_status pn_rerank(const char *dir, pn_config *file, pn_config *asked, const pn_rerank_options *options, FILE *out) {
    rerank *k = calloc(1, sizeof *k);
    PN_CHECK(k, PN_MEMORY, "out of memory");
    k->options = options;
    pn_status s = run_all(k, dir, file, asked, out);
    for (int i = 0; k->task && i < k->asked.n_tasks; i++) pn_task_destroy(&k->task[i]);
    free(k->task);
    free(k->row);
    free(k->metrics);
    pn_search_config_free(&k->asked);
    pn_run_free(&k->run);
    free(k);
    return s;
}
