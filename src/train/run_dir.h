/* A run is a directory: config.yaml (resolved), log.jsonl, tensorboard/, state/ (to resume from), and what the run
 * makes.
 *
 * One process at a time works in it: the file `lock` is locked while one does. The lock goes with the process, however
 * that ends; the file stays. */
#ifndef PN_TRAIN_RUN_DIR_H
#define PN_TRAIN_RUN_DIR_H

#include <stdio.h>

#include "config.h"
#include "files.h"

/* Of a finetune run, with the stage's number from 1: its state, and the model after it where others follow. */
#define PN_RUN_STATE  "state/stage-"
#define PN_RUN_STAGES "stages/"

typedef struct pn_run_dir {
    char path[PN_PATH_MAX];
    bool resumed;     /* it was there, with the same configuration */
    double last_sign; /* when an earlier process last wrote its log, pn_utc_seconds; 0: never */
    FILE *lock;       /* NULL: not open */
} pn_run_dir;

/* What a run depends on beside its configuration, which only says where it is: a run that goes on must find the same.
 */
typedef struct pn_run_input {
    const char *key, *what, *where; /* "base", "base model", "models/mine" */
    uint64_t hash;
} pn_run_input;

/* Makes the directory with config.yaml in it, or opens the one of an earlier run with the same values, but for those
 * that are incidental (options.h), and inputs (kept in state/inputs.json), and opens the log and the monitor. The
 * config.yaml of an earlier run stays as it is. PN_USAGE when the values or inputs differ, when it holds something
 * else, or when another process works in it. The config has been read and finished. */
pn_status pn_run_dir_open(const char *path, const pn_config *config, const pn_run_input *inputs, int n_inputs,
                          pn_run_dir *out);
/* Lets another process work in it. Accepts one that was zeroed or that open has refused. */
void pn_run_dir_close(pn_run_dir *run);
/* The run's config.yaml without the origins and without `output`: what a result must say of how it was made. The caller
 * frees *text. */
pn_status pn_run_dir_config(const pn_run_dir *run, char **text);
/* Parts of opening: run_inputs.c. */
pn_status pn_run_inputs_check(const pn_run_dir *run, const pn_run_input *inputs, int n);
pn_status pn_run_inputs_keep(const pn_run_dir *run, const pn_run_input *inputs, int n);
/* path/name into buffer of PN_PATH_MAX bytes. */
pn_status pn_run_dir_file(const pn_run_dir *run, const char *name, char *out);

#endif
