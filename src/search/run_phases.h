/* The phases of a search run, each in a file of its own, over one shared state; search_run.c calls them in order. */
#ifndef PN_SEARCH_RUN_PHASES_H
#define PN_SEARCH_RUN_PHASES_H

#include <stdio.h>

#include "result.h"
#include "run_clock.h"
#include "run_variants.h"
#include "scores.h"
#include "search_config.h"

enum { PN_RUN_ASK = 256 };

typedef struct pn_run {
    pn_search_config config;
    pn_run_dir dir;
    pn_tokenizer *tokenizer;
    pn_mixture *mixture;
    pn_model *net;                 /* the super-network; its own path is the teacher */
    uint64_t base_hash;            /* of the base's weights */
    pn_compute on;                 /* where it and all of the run's models are */
    pn_space space;                /* of the placement */
    pn_space final;                /* the same with the linear block that was chosen since */
    pn_stage stage[PN_MAX_STAGES]; /* those of the placement, then the others as they begin */
    pn_path placed[PN_MAX_STAGES]; /* by stage, once it is searched: its best path */
    int n_placements, n_stages;
    pn_variants variants[PN_VARIANT_STAGES];
    const pn_variants *stage_variants[PN_MAX_STAGES]; /* by stage; NULL: of the placement */
    pn_latency *latency;                              /* the table in the run's state */
    json_t *speed;                                    /* what speed.json holds; NULL: no stage has measured; owned */
    pn_supernet_result trained;
    pn_gates gates;      /* of `trained`; present, but still unknown, before training in gated mode */
    bool trained_before; /* PN_USAGE instead of training the super-network, unless the run's state holds it */
    pn_curve distill_curve;
    pn_task **search_task; /* n_tasks */
    pn_heldout heldout;
    pn_scores *scores;
    pn_evaluator *evaluator;
    pn_history *history;
    int n_history, cap_history;
    pn_path winner;
    int winner_row; /* of the history */
    pn_table *table;
    pn_comparison comparison;
    pn_run_clock clock;
    bool aside; /* a copy that searches beside the run (run_compare.c): what it does is not shown to monitors */
    FILE *out;
} pn_run;

/* Reads the configuration, the tokenizer, the training data and the base model, and checks them against each other. */
pn_status pn_run_open(pn_run *r, pn_config *file);
/* The space and its stages, which the strategies must take. */
pn_status pn_run_space(pn_run *r);
/* PN_FORMAT or PN_IO when latency.table cannot be started from. */
pn_status pn_run_check_latency(const pn_run *r);
/* Adds the candidates to the base, then trains them, or reads them from the run's state. */
pn_status pn_run_build_net(pn_run *r);
pn_status pn_run_train_net(pn_run *r);
/* On the GPU, before anything is trained: whether its memory holds the training of every stage and a distillation. */
pn_status pn_run_check_memory(pn_run *r);
/* Of a later stage, whose candidates are not made yet: PN_USAGE when what they take is more than free_bytes. */
pn_status pn_run_plan_variants(const pn_run *r, pn_variant_stage stage, double free_bytes);
/* The directory of the run, whose base, tokenizer and data must be those it was begun with. */
pn_status pn_run_open_dir(pn_run *r, const char *path, const pn_config *file);
void pn_run_free(pn_run *r); /* what it holds, not *r */
/* What a strategy works from in a stage of the placement, in r->space or r->final; placed: of the stage before, all
 * linear at first. */
pn_search_input pn_run_search_input(const pn_run *r, const pn_space *space, int stage, const pn_path *placed,
                                    const void *options);
/* One search from start to end over the search tasks, into the history; root: the row it starts from, -1: none. */
pn_status pn_run_search(pn_run *r, const pn_search_type *type, const pn_search_input *in, int stage, int root);
/* What a row is ranked by in its stage: lower is better. */
double pn_run_loss(const pn_run *r, int row);
/* Whether a strategy takes every stage of the placement: PN_USAGE, asked before anything is trained. */
pn_status pn_run_try_strategy(const pn_run *r, const pn_search_type *type);
/* The placement: history and winner. */
pn_status pn_run_choose(pn_run *r);
/* The stages of that, on an evaluator that is there. */
pn_status pn_run_place(pn_run *r);
void pn_run_free_history(pn_run *r);
/* How many paths the history holds, some of which were asked for more than once. */
pn_status pn_run_count_paths(const pn_run *r, int *n);
/* PN_USAGE when the blocks of the later stages do not fit the model or are too many. */
pn_status pn_run_check_variants(const pn_run *r);
/* A stage after it: the winner's linear block is another one then. */
pn_status pn_run_stage_variants(pn_run *r, pn_variant_stage which);
/* The table's rows of paths through the super-network. */
pn_status pn_run_table(pn_run *r);
/* Objective of paths on the held-out samples, which are measured for the tasks it uses. values: paths x samples. */
pn_status pn_run_heldout_objective(pn_run *r, const pn_objective *o, const pn_path *paths, int n, const char *what,
                                   double *values);
/* compare.selectors: whether every one takes every number of layers, PN_USAGE before anything is trained; and then what
 * they place. */
pn_status pn_run_check_selectors(pn_run *r);
pn_status pn_run_compare(pn_run *r);
/* Measures the winner and the base whole, beside what the latency table predicts of them: speed.json. After the last of
 * the later stages; nothing without one. */
pn_status pn_run_speed(pn_run *r);
/* Distils and exports: the winner, and the rivals for the table. */
pn_status pn_run_distill(pn_run *r);
pn_status pn_run_add_row(pn_run *r, const char *name, const pn_model *m, const pn_path *path, bool distilled);
/* The tables of the later stages, for people. */
void pn_run_print_variants(const pn_run *r);
/* result.json, report.html and what the user sees of them. */
pn_status pn_run_results(pn_run *r);

#endif
