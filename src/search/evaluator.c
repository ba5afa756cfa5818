#include "evaluator.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "progress.h"
#include "signals.h"

struct pn_evaluator {
    const pn_model *m;
    pn_task *const *tasks;
    int n_tasks;
    pn_scores *scores;
    pn_tape *tape;
    int64_t measured, known;
};

/* One path still to be measured on the current task. */
typedef struct item {
    const pn_path *path;
    int index; /* into the caller's paths */
    pn_tally tally;
    pn_metrics metrics;
} item;

typedef struct walk {
    pn_evaluator *e;
    const pn_task *task;
    const pn_task_batch *batch;
    bool last; /* of the task's batches: what is scored is finished */
    item *items;
    pn_progress *progress; /* NULL: silent */
} walk;

pn_status pn_evaluator_create(const pn_model *m, pn_task *const *tasks, int n_tasks, pn_scores *scores,
                              pn_evaluator **out) {
    pn_evaluator *e = calloc(1, sizeof *e);
    PN_CHECK(e, PN_MEMORY, "out of memory");
    e->m = m;
    e->tasks = tasks;
    e->n_tasks = n_tasks;
    e->scores = scores;
    pn_status s = pn_params_tape(m->params, &e->tape);
    if (s) {
        free(e);
        return s;
    }
    pn_tape_record(e->tape, false);
    *out = e;
    return PN_OK;
}

void pn_evaluator_destroy(pn_evaluator **e) {
    if (!e || !*e) return;
    pn_tape_destroy(&(*e)->tape);
    free(*e);
    *e = NULL;
}

static pn_status embed(pn_evaluator *e, const pn_task_batch *b, pn_tensor **h) {
    pn_tensor *ids, *targets, *weights;
    PN_TRY(pn_batch_tensors(&b->tokens, e->tape, &ids, &targets, &weights));
    PN_TRY(pn_model_embed(e->m, e->tape, ids, h));
    return PN_OK;
}

static pn_status check_finite(const pn_metrics *m, const char *task, const char *path) {
    for (int i = 0; i < m->n; i++)
        PN_CHECK(isfinite(m->value[i]), PN_NUMERIC,
                 "task %s: %s of %s is %g, nothing to rank by; check the base model, and lower the learning rate", task,
                 m->name[i], path, m->value[i]);
    return PN_OK;
}

/* All batches of an item are scored: its metrics, kept at once so that a stop loses no finished path. */
static pn_status finish(pn_evaluator *e, const pn_task *task, item *x) {
    char text[PN_PATH_TEXT_MAX];
    x->metrics = pn_task_metrics(task, &x->tally);
    pn_path_text(e->m, x->path, text, sizeof text);
    PN_TRY(check_finite(&x->metrics, task->name, text));
    if (e->scores)
        PN_TRY(pn_scores_add(e->scores, pn_scores_path_key(e->scores, x->path), text, task->key, &x->metrics));
    return PN_OK;
}

static pn_status score(walk *w, int lo, int hi, pn_tensor *h) {
    pn_evaluator *e = w->e;
    pn_tensor *hidden;
    PN_TRY(pn_model_final(e->m, e->tape, h, &hidden));
    for (int i = lo; i < hi; i++) {
        PN_TRY(pn_task_score(w->task, w->batch, e->m, e->tape, hidden, &w->items[i].tally));
        if (w->last) PN_TRY(finish(e, w->task, &w->items[i]));
        if (w->progress)
            pn_progress_update(w->progress, w->progress->done + w->batch->tokens.n_tokens, "%s", w->task->name);
    }
    return PN_OK;
}

/* Items lo .. hi agree on all layers before `layer`; h is the hidden state there, carry what those layers left. */
static pn_status descend(walk *w, int lo, int hi, int layer, pn_tensor *h, pn_carry carry) {
    pn_evaluator *e = w->e;
    if (layer == e->m->config.n_layers) return score(w, lo, hi, h);
    PN_CHECK(!pn_interrupted(), PN_INTERRUPTED, "stopped by a signal while measuring paths");
    for (int i = lo; i < hi;) {
        int end = i, choice = w->items[i].path->choice[layer];
        while (end < hi && w->items[end].path->choice[layer] == choice) end++;
        pn_scope scope = pn_scope_open(e->tape);
        pn_tensor *next;
        pn_carry left = carry;
        PN_TRY(pn_model_layer(e->m, layer, choice, e->tape, h, &w->batch->tokens.docs, &left, &next));
        PN_TRY(descend(w, i, end, layer + 1, next, left));
        pn_scope_close(e->tape, scope, NULL, 0);
        i = end;
    }
    return PN_OK;
}

/* The teacher's hidden states of a kl batch, computed once and kept. */
static pn_status teach(pn_evaluator *e, pn_task_batch *b) {
    if (b->teacher) return PN_OK;
    pn_tensor *ids, *targets, *weights, *hidden;
    PN_TRY(pn_batch_tensors(&b->tokens, e->tape, &ids, &targets, &weights));
    PN_TRY(pn_model_hidden(e->m, NULL, e->tape, ids, &b->tokens.docs, &hidden));
    b->teacher = pn_tensor_retain(hidden);
    b->teacher_head = pn_tensor_retain(e->m->head);
    return PN_OK;
}

static int by_path(const void *a, const void *b) {
    const item *x = a, *y = b;
    return memcmp(x->path->choice, y->path->choice, sizeof x->path->choice);
}

pn_status pn_evaluator_teach(pn_evaluator *e) {
    for (int k = 0; k < e->n_tasks; k++) {
        for (int i = 0; i < e->tasks[k]->n_batches && e->tasks[k]->kind == PN_TASK_KL; i++) {
            PN_CHECK(!pn_interrupted(), PN_INTERRUPTED, "stopped by a signal while the teacher was measured");
            PN_TRY(teach(e, &e->tasks[k]->batch[i]));
            pn_tape_reset(e->tape);
        }
    }
    return PN_OK;
}

static pn_status run_task(pn_evaluator *e, int task_index, item *items, int n, pn_progress *progress) {
    pn_task *task = e->tasks[task_index];
    qsort(items, (size_t)n, sizeof *items, by_path);
    for (int i = 0; i < task->n_batches; i++) {
        pn_tape_reset(e->tape);
        pn_tensor *h;
        if (task->kind == PN_TASK_KL) PN_TRY(teach(e, &task->batch[i]));
        PN_TRY(embed(e, &task->batch[i], &h));
        walk w = { .e = e,
                   .task = task,
                   .batch = &task->batch[i],
                   .last = i + 1 == task->n_batches,
                   .items = items,
                   .progress = progress };
        PN_TRY(descend(&w, 0, n, 0, h, (pn_carry){ 0 }));
    }
    pn_tape_reset(e->tape);
    return PN_OK;
}

pn_status pn_evaluator_run(pn_evaluator *e, const pn_path *paths, int n_paths, const char *what, pn_metrics *metrics) {
    pn_status s = PN_OK;
    item *items = malloc((size_t)(n_paths + 1) * sizeof *items);
    PN_CHECK(items, PN_MEMORY, "out of memory");
    int64_t total = 0;
    for (int k = 0; k < e->n_tasks; k++) total += e->tasks[k]->n_tokens * n_paths;
    pn_progress progress = pn_progress_begin(what ? what : "", 0, total, "path tokens");
    for (int k = 0; k < e->n_tasks && !s; k++) {
        const pn_task *task = e->tasks[k];
        int n = 0;
        for (int i = 0; i < n_paths; i++) {
            const pn_metrics *known =
                e->scores ? pn_scores_find(e->scores, pn_scores_path_key(e->scores, &paths[i]), task->key) : NULL;
            if (known) {
                metrics[i * e->n_tasks + k] = *known;
                progress.first += task->n_tokens;
                progress.done += task->n_tokens;
            } else {
                items[n++] = (item){ .path = &paths[i], .index = i };
            }
        }
        e->known += n_paths - n;
        e->measured += n;
        if (n) s = run_task(e, k, items, n, what ? &progress : NULL);
        for (int i = 0; i < n && !s; i++) metrics[items[i].index * e->n_tasks + k] = items[i].metrics;
    }
    if (!s && what) pn_progress_end(&progress);
    pn_tape_reset(e->tape);
    if (pn_tape_backend(e->tape) == PN_CUDA) pn_pool_trim(pn_tape_pool(e->tape)); /* others need the GPU's memory */
    free(items);
    return s;
}

void pn_evaluator_counts(const pn_evaluator *e, int64_t *measured, int64_t *known) {
    *measured = e->measured;
    *known = e->known;
}
