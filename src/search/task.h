/* Tasks: what a path is measured on. A prepared task is packed documents, the rows of hidden states that are scored,
 * and a tally that turns per-token results into metrics.
 *
 *     perplexity       every next token                    nll, perplexity
 *     kl               the teacher's next-token distribution   kl, top1 (share of equal first choices)
 *     recall           the answers of a skill's documents      accuracy, nll, and accuracy@d for answers whose
 *                      statement stands at most d tokens back (and more than d/2), accuracy_chance
 *     multiple_choice  listed choices, scored by their summed loss   accuracy, nll (of the right one), accuracy_chance
 */
#ifndef PN_SEARCH_TASK_H
#define PN_SEARCH_TASK_H

#include "batch.h"
#include "config.h"
#include "model.h"
#include "scores.h"
#include "skills.h"
#include "token_shards.h"

typedef enum pn_task_kind { PN_TASK_PERPLEXITY, PN_TASK_KL, PN_TASK_RECALL, PN_TASK_CHOICE } pn_task_kind;

typedef struct pn_task_kind_info {
    const char *name, *summary, *metrics[2]; /* the two metrics that tables show and objectives may name */
} pn_task_kind_info;
const pn_task_kind_info *pn_task_kinds(int *n); /* in pn_task_kind order */

typedef struct pn_task_options {
    const char *name;
    int64_t kind;
    const char *skill;                 /* perplexity, kl: or shards; recall, multiple_choice: required */
    const char *shards;                /* directory of the search split */
    const char *heldout_shards;        /* directory of the held-out split; NULL: shards, after the search tokens */
    int64_t tokens, sequence_length;   /* of shards: size of a slice, documents longer than this are cut */
    int64_t heldout_tokens;            /* of shards: size of a held-out slice; 0: tokens */
    int64_t offset;                    /* of shards: where the first slice of a split starts */
    bool spread;                       /* of shards: search on windows of sequence_length all through the set */
    int64_t documents, document_bytes; /* of skills */
    int64_t seed;                      /* of skills, search split */
} pn_task_options;
extern const pn_option pn_task_option_table[];

typedef struct pn_task_spec { /* a task as configured; its skill is owned */
    pn_task_options options;
    pn_skill *skill; /* NULL: shards */
} pn_task_spec;

/* Reads "section.i" for every element of the list; *specs is freed with pn_task_specs_free. */
pn_status pn_task_specs_read(pn_config *c, const char *section, pn_task_spec **specs, int *n);
void pn_task_specs_free(pn_task_spec **specs, int n);

typedef struct pn_span { /* rows of one scored stretch of tokens */
    int64_t first, n;    /* into the batch's scored rows */
    int64_t distance;    /* tokens back to where the answer stands; 0: not stated */
    int64_t group;       /* multiple choice: the question; recall: unused */
    int32_t gold;        /* multiple choice: 1 for the right choice */
    double chance;
} pn_span;

typedef struct pn_task_batch {
    pn_batch tokens;
    int64_t *row; /* scored rows of hidden; NULL: all rows, with tokens.targets */
    int32_t *target;
    int64_t n_rows;
    pn_span *span;
    int64_t n_spans;
    pn_tensor *teacher;      /* kl: the teacher's hidden states */
    pn_tensor *teacher_head; /* and its output matrix: a model read back from files has one of its own */
} pn_task_batch;

typedef struct pn_task {
    char name[64];
    char key[1024]; /* everything its numbers depend on besides path and weights */
    pn_task_kind kind;
    pn_task_batch *batch;
    int n_batches;
    int64_t n_tokens, n_questions;
} pn_task;

/* split PN_SPLIT_SEARCH: the search data (`instance` must be 0). PN_SPLIT_HELDOUT: instance i = 0, 1, .. are disjoint
 * held-out samples: seed + i for skills, the i-th slice for shards. PN_USAGE when there would be nothing to score. */
pn_status pn_task_prepare(const pn_task_spec *spec, const pn_tokenizer *tokenizer, pn_split split, int instance,
                          pn_task **out);
void pn_task_destroy(pn_task **t);

/* Running sums over batches for one path. */
typedef struct pn_tally {
    double nll, tokens, kl, agree, correct, questions, chance;
    double distance_correct[32], distance_questions[32]; /* by log2 of the distance, rounded up */
    int64_t group; /* multiple choice: the question being decided, its lowest loss, whether that is the right choice */
    double best;
    bool best_gold;
} pn_tally;
/* Scores one batch's hidden states [tokens, D] (owned by the tape; it must not record). */
pn_status pn_task_score(const pn_task *task, const pn_task_batch *b, const pn_model *m, pn_tape *t, pn_tensor *hidden,
                        pn_tally *tally);
pn_metrics pn_task_metrics(const pn_task *task, const pn_tally *tally);
/* Two columns of a table: the task's main metrics, "-" where they were not measured; metrics NULL: their headers. */
void pn_task_print(const pn_task_spec *spec, const pn_metrics *metrics, FILE *out);
/* Whether a larger value of the metric is better. */
bool pn_metric_ascending(const char *metric);

#endif
