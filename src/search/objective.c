#include "objective.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Spaces, then the word up to a space, + or *; empty at the end. */
static size_t next_word(const char **p, char *word, size_t n) {
    while (isspace((unsigned char)**p)) (*p)++;
    size_t len = strcspn(*p, " \t\n+*");
    snprintf(word, n, "%.*s", (int)(len < n ? len : n - 1), *p);
    *p += len;
    while (isspace((unsigned char)**p)) (*p)++;
    return len;
}

static pn_status find_metric(const char *word, const char *where, const pn_task_spec *tasks, int n_tasks,
                             pn_objective_term *t) {
    const char *dot = strrchr(word, '.');
    PN_CHECK(dot && dot > word && dot[1], PN_USAGE,
             "%s: \"%s\" is no task.metric; write the objective like recall.nll, or recall.nll + 0.5 facts.nll", where,
             word);
    t->task = -1;
    for (int i = 0; i < n_tasks; i++) {
        const char *name = tasks[i].options.name;
        if (strlen(name) == (size_t)(dot - word) && !strncmp(name, word, (size_t)(dot - word))) t->task = i;
    }
    PN_CHECK(t->task >= 0, PN_USAGE, "%s: no task is named %.*s", where, (int)(dot - word), word);
    int n_kinds;
    const char *const *metrics = pn_task_kinds(&n_kinds)[tasks[t->task].options.kind].metrics;
    PN_CHECK(!strcmp(dot + 1, metrics[0]) || !strcmp(dot + 1, metrics[1]), PN_USAGE,
             "%s: task %.*s measures %s and %s, not %s", where, (int)(dot - word), word, metrics[0], metrics[1],
             dot + 1);
    snprintf(t->metric, sizeof t->metric, "%s", dot + 1);
    return PN_OK;
}

/* "0.5 facts.nll", "0.5*facts.nll" or "facts.nll" */
static pn_status read_term(const char **p, const char *where, const pn_task_spec *tasks, int n_tasks,
                           pn_objective_term *t) {
    char word[256], *end;
    *t = (pn_objective_term){ .factor = 1 };
    size_t len = next_word(p, word, sizeof word);
    double weight = strtod(word, &end);
    if (len && !*end) {
        PN_CHECK(isfinite(weight) && weight > 0, PN_USAGE,
                 "%s: weight %s must be a positive number; whether more is better is known from the metric", where,
                 word);
        t->factor = weight;
        if (**p == '*') (*p)++;
        len = next_word(p, word, sizeof word);
    }
    PN_CHECK(len, PN_USAGE, "%s: task.metric is missing; write the objective like recall.nll + 0.5 facts.nll", where);
    return find_metric(word, where, tasks, n_tasks, t);
}

pn_status pn_objective_parse(const char *text, const char *where, const pn_task_spec *tasks, int n_tasks,
                             bool normalised, pn_objective *o) {
    *o = (pn_objective){ .ascending = true, .normalised = normalised };
    PN_CHECK(text, PN_USAGE, "%s: name what decides, for example recall.nll", where);
    PN_CHECK(strlen(text) < sizeof o->text, PN_USAGE, "%s: longer than %zu characters", where, sizeof o->text - 1);
    strcpy(o->text, text);
    for (const char *p = text;;) {
        PN_CHECK(o->n < PN_OBJECTIVE_TERMS, PN_USAGE, "%s: more than %d terms", where, PN_OBJECTIVE_TERMS);
        PN_TRY(read_term(&p, where, tasks, n_tasks, &o->term[o->n++]));
        if (!*p) break;
        PN_CHECK(*p == '+', PN_USAGE, "%s: \"%s\" follows a term; terms are joined by +", where, p);
        p++;
    }
    for (int i = 0; i < o->n; i++) o->ascending &= pn_metric_ascending(o->term[i].metric);
    if (normalised) {
        o->ascending = true;
        return PN_OK;
    }
    for (int i = 0; i < o->n; i++)
        if (pn_metric_ascending(o->term[i].metric) != o->ascending) o->term[i].factor *= -1;
    return PN_OK;
}

pn_status pn_objective_scale(pn_objective *o, const pn_task_spec *tasks, const pn_metrics *linear,
                             const pn_metrics *teacher) {
    double sum = 0;
    for (int i = 0; i < o->n; i++) sum += o->term[i].factor;
    for (int i = 0; i < o->n; i++) {
        pn_objective_term *t = &o->term[i];
        t->zero = *pn_metrics_get(&linear[t->task], t->metric);
        double span = *pn_metrics_get(&teacher[t->task], t->metric) - t->zero;
        t->factor /= sum * span;
        PN_CHECK(isfinite(t->factor), PN_NUMERIC,
                 "search.normalise: %s.%s of the teacher and of the all-linear path are the same, so there is no scale "
                 "from one to the other; leave the term out, or set normalise: false",
                 tasks[t->task].options.name, t->metric);
    }
    return PN_OK;
}

double pn_objective_value(const pn_objective *o, const pn_metrics *metrics) {
    double sum = 0;
    for (int i = 0; i < o->n; i++) {
        const pn_objective_term *t = &o->term[i];
        sum += t->factor * (*pn_metrics_get(&metrics[t->task], t->metric) - t->zero);
    }
    return sum;
}

double pn_objective_loss(const pn_objective *o, double value) {
    return o->ascending ? -value : value;
}

bool pn_objective_uses(const pn_objective *o, int task) {
    bool uses = false;
    for (int i = 0; i < o->n; i++) uses |= o->term[i].task == task;
    return uses;
}
