/* The final table: who (teacher, rivals, winner) against held-out samples of every task. */
#ifndef PN_SEARCH_TABLE_H
#define PN_SEARCH_TABLE_H

#include <stdio.h>

#include "evaluator.h"

enum { PN_TABLE_ROWS = 16 };

typedef struct pn_table_row {
    char name[48]; /* "teacher", "uniform", "PostNAS", "uniform, distilled" */
    char path[PN_PATH_TEXT_MAX];
    bool distilled;
    pn_metrics *metrics; /* tasks x samples, task-major; owned */
    bool *measured;      /* tasks */
} pn_table_row;

typedef struct pn_table {
    int n_tasks, n_samples, n_rows;
    char (*task)[64];   /* names */
    pn_task_kind *kind; /* of each task */
    pn_table_row row[PN_TABLE_ROWS];
} pn_table;

pn_status pn_table_create(const pn_task_spec *specs, int n_tasks, int n_samples, pn_table **out);
void pn_table_destroy(pn_table **t);
pn_status pn_table_add_row(pn_table *t, const char *name, const char *path, bool distilled, pn_table_row **row);

/* Mean, smallest and largest over the samples; false when the task has no such metric. */
bool pn_table_value(const pn_table *t, const pn_table_row *row, int task, const char *metric, double *mean,
                    double *least, double *most);
/* Text: a line per row, two columns per task (its two main metrics, mean and spread), the chance level last. */
void pn_table_print(const pn_table *t, FILE *out);

/* Held-out samples of all tasks, measured on a model's path: fills a row. Prepared once, used for every row. */
typedef struct pn_heldout {
    pn_task **task; /* tasks x samples, task-major */
    int n_tasks, n_samples;
} pn_heldout;
pn_status pn_heldout_prepare(const pn_task_spec *specs, int n_tasks, int n_samples, const pn_tokenizer *tokenizer,
                             pn_heldout *out);
void pn_heldout_free(pn_heldout *h);
/* Makes the model the teacher of all kl tasks. */
pn_status pn_heldout_teach(const pn_heldout *h, const pn_model *m);
/* teacher: false leaves kl tasks out (a model on its own has no teacher, unless their hidden states are known). scores:
 * of the model's weights, so that a run that goes on does not measure again; NULL: none. */
pn_status pn_heldout_measure(const pn_heldout *h, const pn_model *m, const pn_path *path, bool teacher,
                             pn_scores *scores, const char *what, pn_table_row *row);

#endif
