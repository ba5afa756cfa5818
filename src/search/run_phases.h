/* The phases of a search run, each in a file of its own, over one shared state; search_run.c calls them in order. */
#ifndef PN_SEARCH_RUN_PHASES_H
#define PN_SEARCH_RUN_PHASES_H

#include <stdio.h>

#include "result.h"
#include "run_clock.h"
#include "scores.h"
#include "search_config.h"

enum { PN_RUN_ASK = 256 };

typedef struct pn_run {
    pn_search_config config;
    pn_run_dir dir;
    pn_tokenizer *tokenizer;
    pn_mixture *mixture;
    pn_model *net; /* the super-network; its own path is the teacher */
    pn_space space;
    pn_stage stage[PN_MAX_LIMITS];
    pn_path placed[PN_MAX_LIMITS]; /* by stage, once it is searched: its best path */
    int n_stages;
    pn_latency *latency; /* the table in the run's state */
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
    pn_table *table;
    pn_run_clock clock;
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
void pn_run_free(pn_run *r); /* what it holds, not *r */
/* What a strategy works from in a stage; placed: of the stage before, all linear at first. */
pn_search_input pn_run_search_input(const pn_run *r, int stage, const pn_path *placed, const void *options);
/* Runs the strategy over the search tasks: history and winner. */
pn_status pn_run_choose(pn_run *r);
/* The table's rows of paths through the super-network. */
pn_status pn_run_table(pn_run *r);
/* Distils and exports: the winner, and the rivals for the table. */
pn_status pn_run_distill(pn_run *r);
pn_status pn_run_add_row(pn_run *r, const char *name, const pn_model *m, const pn_path *path, bool distilled);
/* result.json, report.html and what the user sees of them. */
pn_status pn_run_results(pn_run *r);

#endif
