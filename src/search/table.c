#include "table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

pn_status pn_table_create(const pn_task_spec *specs, int n_tasks, int n_samples, pn_table **out) {
    pn_table *t = calloc(1, sizeof *t);
    PN_CHECK(t, PN_MEMORY, "out of memory");
    t->n_tasks = n_tasks;
    t->n_samples = n_samples;
    t->task = calloc((size_t)n_tasks, sizeof *t->task);
    t->kind = calloc((size_t)n_tasks, sizeof *t->kind);
    if (!t->task || !t->kind) {
        pn_table_destroy(&t);
        PN_FAIL(PN_MEMORY, "out of memory");
    }
    for (int k = 0; k < n_tasks; k++) {
        snprintf(t->task[k], sizeof t->task[k], "%s", specs[k].options.name);
        t->kind[k] = (pn_task_kind)specs[k].options.kind;
    }
    *out = t;
    return PN_OK;
}

void pn_table_destroy(pn_table **t) {
    if (!t || !*t) return;
    for (int i = 0; i < (*t)->n_rows; i++) {
        free((*t)->row[i].metrics);
        free((*t)->row[i].measured);
    }
    free((*t)->task);
    free((*t)->kind);
    free(*t);
    *t = NULL;
}

pn_status pn_table_add_row(pn_table *t, const char *name, const char *path, bool distilled, pn_table_row **out) {
    PN_ASSERT(t->n_rows < PN_TABLE_ROWS);
    pn_table_row *r = &t->row[t->n_rows];
    snprintf(r->name, sizeof r->name, "%s", name);
    snprintf(r->path, sizeof r->path, "%s", path);
    r->distilled = distilled;
    r->metrics = calloc((size_t)(t->n_tasks * t->n_samples), sizeof *r->metrics);
    r->measured = calloc((size_t)t->n_tasks, sizeof *r->measured);
    t->n_rows++; /* destroy frees what there is */
    PN_CHECK(r->metrics && r->measured, PN_MEMORY, "out of memory");
    *out = r;
    return PN_OK;
}

bool pn_table_value(const pn_table *t, const pn_table_row *row, int task, const char *metric, double *mean,
                    double *least, double *most) {
    double sum = 0;
    *least = INFINITY;
    *most = -INFINITY;
    for (int i = 0; i < t->n_samples; i++) {
        const double *v = pn_metrics_get(&row->metrics[task * t->n_samples + i], metric);
        if (!v) return false;
        sum += *v;
        if (*v < *least) *least = *v;
        if (*v > *most) *most = *v;
    }
    *mean = sum / t->n_samples;
    return true;
}

/* "0.984 (0.970..1.000)" of one of the task's two shown metrics; "-" where the row has none. */
static void cell(const pn_table *t, const pn_table_row *row, int task, int which, char *out, size_t n, char *header,
                 size_t header_n) {
    double mean, least, most;
    snprintf(out, n, "-");
    int n_kinds;
    const char *metric = pn_task_kinds(&n_kinds)[t->kind[task]].metrics[which];
    if (header) snprintf(header, header_n, "%s %s", t->task[task], metric);
    if (pn_table_value(t, row, task, metric, &mean, &least, &most))
        snprintf(out, n, "%.4f (%.4f..%.4f)", mean, least, most);
}

void pn_table_print(const pn_table *t, FILE *out) {
    if (!t->n_rows) return;
    char text[96], header[96];
    fprintf(out, "%-28s", t->n_samples > 1 ? "held-out mean (min..max)" : "held-out");
    for (int k = 0; k < t->n_tasks; k++) {
        for (int which = 0; which < 2; which++) {
            header[0] = '\0';
            cell(t, &t->row[0], k, which, text, sizeof text, header, sizeof header);
            fprintf(out, "  %-26s", header);
        }
    }
    fputc('\n', out);
    for (int i = 0; i < t->n_rows; i++) {
        fprintf(out, "%-28s", t->row[i].name);
        for (int k = 0; k < t->n_tasks; k++) {
            for (int which = 0; which < 2; which++) {
                cell(t, &t->row[i], k, which, text, sizeof text, NULL, 0);
                fprintf(out, "  %-26s", text);
            }
        }
        fputc('\n', out);
    }
    fprintf(out, "%-28s", "chance");
    for (int k = 0; k < t->n_tasks; k++) {
        double mean, least, most;
        if (pn_table_value(t, &t->row[0], k, "accuracy_chance", &mean, &least, &most))
            snprintf(text, sizeof text, "%.4f", mean);
        else
            snprintf(text, sizeof text, "-");
        fprintf(out, "  %-26s  %-26s", text, "");
    }
    fputc('\n', out);
}

pn_status pn_heldout_prepare(const pn_task_spec *specs, int n_tasks, int n_samples, const pn_tokenizer *tokenizer,
                             pn_heldout *h) {
    *h = (pn_heldout){ .n_tasks = n_tasks, .n_samples = n_samples };
    h->task = calloc((size_t)(n_tasks * n_samples), sizeof *h->task);
    PN_CHECK(h->task, PN_MEMORY, "out of memory");
    for (int k = 0; k < n_tasks; k++)
        for (int i = 0; i < n_samples; i++)
            PN_TRY(pn_task_prepare(&specs[k], tokenizer, PN_SPLIT_HELDOUT, i, &h->task[k * n_samples + i]));
    return PN_OK;
}

void pn_heldout_free(pn_heldout *h) {
    for (int i = 0; h->task && i < h->n_tasks * h->n_samples; i++) pn_task_destroy(&h->task[i]);
    free(h->task);
    *h = (pn_heldout){ 0 };
}

pn_status pn_heldout_teach(const pn_heldout *h, const pn_model *m) {
    pn_evaluator *e;
    PN_TRY(pn_evaluator_create(m, h->task, h->n_tasks * h->n_samples, NULL, &e));
    pn_status s = pn_evaluator_teach(e);
    pn_evaluator_destroy(&e);
    return s;
}

pn_status pn_heldout_measure(const pn_heldout *h, const pn_model *m, const pn_path *path, bool teacher,
                             pn_scores *scores, const char *what, pn_table_row *row) {
    for (int k = 0; k < h->n_tasks; k++) {
        pn_task *const *tasks = &h->task[k * h->n_samples];
        if (tasks[0]->kind == PN_TASK_KL && !teacher) continue;
        pn_evaluator *e;
        PN_TRY(pn_evaluator_create(m, tasks, h->n_samples, scores, &e));
        pn_status s = pn_evaluator_run(e, path, 1, what, &row->metrics[k * h->n_samples]);
        pn_evaluator_destroy(&e);
        PN_TRY(s);
        row->measured[k] = true;
    }
    return PN_OK;
}
