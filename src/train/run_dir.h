/* A run is a directory: config.yaml (resolved), log.jsonl, tensorboard/, state/ (to resume from), and what the run
 * makes.
 */
#ifndef PN_TRAIN_RUN_DIR_H
#define PN_TRAIN_RUN_DIR_H

#include "config.h"
#include "files.h"

typedef struct pn_run_dir {
    char path[PN_PATH_MAX];
    bool resumed; /* it was there, with the same configuration */
} pn_run_dir;

/* Makes the directory, or opens the one of an earlier run with the same values (PN_USAGE when they differ, or when it
 * holds something else), writes config.yaml and opens the log and the
 * monitor. The config has been read and finished. */
pn_status pn_run_dir_open(const char *path, const pn_config *config, pn_run_dir *out);
/* The run's config.yaml without the origins and without `output`: what a result must say of how it was made. The caller
 * frees *text. */
pn_status pn_run_dir_config(const pn_run_dir *run, char **text);
/* path/name into buffer of PN_PATH_MAX bytes. */
pn_status pn_run_dir_file(const pn_run_dir *run, const char *name, char *out);

#endif
