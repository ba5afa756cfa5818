/* From hidden states to metrics. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "embedding/embedding.h"
#include "linear_argmax/linear_argmax.h"
#include "linear_cross_entropy/linear_cross_entropy.h"
#include "linear_kl/linear_kl.h"
#include "task.h"

/* The scored rows of hidden, gathered, and their targets; both in the memory of the tape. */
static pn_status gather(const pn_task_batch *b, pn_tape *t, pn_tensor *hidden, pn_tensor **rows, pn_tensor **targets) {
    pn_tensor *index;
    PN_TRY(pn_tape_new(t, PN_I32, 1, &b->n_rows, &index));
    PN_TRY(pn_tape_new(t, PN_I32, 1, &b->n_rows, targets));
    PN_TRY(pn_tensor_write(index, b->row, PN_I64));
    PN_TRY(pn_tensor_write(*targets, b->target, PN_I32));
    PN_TRY(pn_embedding(t, index, hidden, rows));
    return PN_OK;
}

/* A report of the ops on the host: [n] values. */
static pn_status read_f32(const pn_tensor *x, float **out) {
    *out = malloc((size_t)pn_tensor_elems(x) * sizeof **out + 1);
    PN_CHECK(*out, PN_MEMORY, "out of memory");
    return pn_tensor_read(x, *out, PN_F32);
}
static pn_status read_i32(const pn_tensor *x, int32_t **out) {
    *out = malloc((size_t)pn_tensor_elems(x) * sizeof **out + 1);
    PN_CHECK(*out, PN_MEMORY, "out of memory");
    return pn_tensor_read(x, *out, PN_I32);
}

static void count_tokens(const pn_task_batch *b, const float *nll, pn_tally *y) {
    for (int64_t i = 0; i < b->tokens.n_tokens; i++) {
        if (b->tokens.targets[i] < 0) continue;
        y->nll += nll[i];
        y->tokens++;
    }
}

static pn_status score_tokens(const pn_task_batch *b, const pn_model *m, pn_tape *t, pn_tensor *hidden, pn_tally *y) {
    pn_tensor *ids, *targets, *weights, *loss, *nll;
    float *values = NULL;
    PN_TRY(pn_batch_tensors(&b->tokens, t, &ids, &targets, &weights));
    PN_TRY(pn_linear_cross_entropy(t, hidden, m->head, targets, NULL, &loss, &nll));
    pn_status s = read_f32(nll, &values);
    if (!s) count_tokens(b, values, y);
    free(values);
    return s;
}

static void count_kl(const pn_task_batch *b, const float *kl, const int32_t *first, pn_tally *y) {
    for (int64_t i = 0; i < b->tokens.n_tokens; i++) {
        y->kl += kl[i];
        y->agree += first[2 * i] == first[2 * i + 1];
        y->tokens++;
    }
}

static pn_status score_kl(const pn_task_batch *b, const pn_model *m, pn_tape *t, pn_tensor *hidden, pn_tally *y) {
    pn_tensor *loss, *kl, *first;
    float *values = NULL;
    int32_t *firsts = NULL;
    PN_TRY(pn_linear_kl(t, hidden, m->head, b->teacher, b->teacher_head, NULL, 1.0, &loss, &kl, &first));
    pn_status s = read_f32(kl, &values);
    if (!s) s = read_i32(first, &firsts);
    if (!s) count_kl(b, values, firsts, y);
    free(values);
    free(firsts);
    return s;
}

static void count_recall(const pn_task_batch *b, const float *nll, const int32_t *first, pn_tally *y) {
    for (int64_t s = 0; s < b->n_spans; s++) {
        const pn_span *span = &b->span[s];
        bool right = true;
        for (int64_t i = span->first; i < span->first + span->n; i++) {
            right = right && first[i] == b->target[i];
            y->nll += nll[i];
        }
        y->tokens += (double)span->n;
        y->questions++;
        y->correct += right;
        y->chance += span->chance;
        int bucket = 0;
        while (bucket < 31 && ((int64_t)1 << bucket) < span->distance) bucket++;
        if (span->distance > 0) {
            y->distance_questions[bucket]++;
            y->distance_correct[bucket] += right;
        }
    }
}

static pn_status score_recall(const pn_task_batch *b, const pn_model *m, pn_tape *t, pn_tensor *hidden, pn_tally *y) {
    if (!b->n_rows) return PN_OK;
    pn_tensor *rows, *targets, *loss, *nll, *first;
    float *values = NULL;
    int32_t *firsts = NULL;
    PN_TRY(gather(b, t, hidden, &rows, &targets));
    PN_TRY(pn_linear_cross_entropy(t, rows, m->head, targets, NULL, &loss, &nll));
    PN_TRY(pn_linear_argmax(t, rows, m->head, &first));
    pn_status s = read_f32(nll, &values);
    if (!s) s = read_i32(first, &firsts);
    if (!s) count_recall(b, values, firsts, y);
    free(values);
    free(firsts);
    return s;
}

/* Choices of one question follow each other, possibly across batches: a question is decided at its last choice, so the
 * tally carries the best choice so far. */
static void count_choices(const pn_task_batch *b, const float *nll, pn_tally *y) {
    for (int64_t s = 0; s < b->n_spans; s++) {
        const pn_span *span = &b->span[s];
        double sum = 0;
        for (int64_t i = span->first; i < span->first + span->n; i++) sum += nll[i];
        if (y->questions == 0 ||
            span->group != y->group) { /* a new question: it counts as wrong until its best is gold */
            y->group = span->group;
            y->questions++;
            y->chance += span->chance;
            y->best = INFINITY;
            y->best_gold = false;
        }
        if (sum < y->best) {
            y->correct += (double)(span->gold != 0) - (double)y->best_gold;
            y->best = sum;
            y->best_gold = span->gold != 0;
        }
        if (span->gold) {
            y->nll += sum;
            y->tokens += (double)span->n;
        }
    }
}

static pn_status score_choice(const pn_task_batch *b, const pn_model *m, pn_tape *t, pn_tensor *hidden, pn_tally *y) {
    if (!b->n_rows) return PN_OK;
    pn_tensor *rows, *targets, *loss, *nll;
    float *values = NULL;
    PN_TRY(gather(b, t, hidden, &rows, &targets));
    PN_TRY(pn_linear_cross_entropy(t, rows, m->head, targets, NULL, &loss, &nll));
    pn_status s = read_f32(nll, &values);
    if (!s) count_choices(b, values, y);
    free(values);
    return s;
}

pn_status pn_task_score(const pn_task *task, const pn_task_batch *b, const pn_model *m, pn_tape *t, pn_tensor *hidden,
                        pn_tally *tally) {
    PN_ASSERT(!pn_tape_recording(t));
    pn_scope scope = pn_scope_open(t);
    pn_status s = PN_OK;
    switch (task->kind) {
    case PN_TASK_PERPLEXITY: s = score_tokens(b, m, t, hidden, tally); break;
    case PN_TASK_KL: s = score_kl(b, m, t, hidden, tally); break;
    case PN_TASK_RECALL: s = score_recall(b, m, t, hidden, tally); break;
    case PN_TASK_CHOICE: s = score_choice(b, m, t, hidden, tally); break;
    }
    PN_TRY(s);
    pn_scope_close(t, scope, NULL, 0);
    return PN_OK;
}

pn_metrics pn_task_metrics(const pn_task *task, const pn_tally *y) {
    pn_metrics m = { 0 };
    double tokens = y->tokens > 0 ? y->tokens : 1, questions = y->questions > 0 ? y->questions : 1;
    switch (task->kind) {
    case PN_TASK_PERPLEXITY:
        pn_metrics_add(&m, "nll", y->nll / tokens);
        pn_metrics_add(&m, "perplexity", exp(y->nll / tokens));
        break;
    case PN_TASK_KL:
        pn_metrics_add(&m, "kl", y->kl / tokens);
        pn_metrics_add(&m, "top1", y->agree / tokens);
        break;
    case PN_TASK_RECALL:
    case PN_TASK_CHOICE:
        pn_metrics_add(&m, "accuracy", y->correct / questions);
        pn_metrics_add(&m, "nll", y->nll / tokens);
        pn_metrics_add(&m, "accuracy_chance", y->chance / questions);
        for (int i = 0; i < 32 && m.n < PN_METRICS_MAX; i++) {
            if (!(y->distance_questions[i] > 0)) continue;
            char name[24];
            snprintf(name, sizeof name, "accuracy@%lld", 1LL << i);
            pn_metrics_add(&m, name, y->distance_correct[i] / y->distance_questions[i]);
        }
        break;
    }
    return m;
}

bool pn_metric_ascending(const char *metric) {
    return !strncmp(metric, "accuracy", 8) || !strcmp(metric, "top1");
}

void pn_task_print(const pn_task_spec *spec, const pn_metrics *metrics, FILE *out) {
    int n_kinds;
    const pn_task_options *o = &spec->options;
    for (int i = 0; i < 2; i++) {
        const char *name = pn_task_kinds(&n_kinds)[o->kind].metrics[i];
        const double *value = metrics ? pn_metrics_get(metrics, name) : NULL;
        char text[96];
        int width = (int)(strlen(o->name) + 1 + strlen(name));
        if (!metrics)
            snprintf(text, sizeof text, "%s %s", o->name, name);
        else if (value)
            snprintf(text, sizeof text, "%.4f", *value);
        else
            snprintf(text, sizeof text, "-");
        fprintf(out, "  %*s", width < 8 ? 8 : width, text);
    }
}
