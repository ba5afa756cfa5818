/* How long a run's phases took, over all processes that worked on it.
 *
 *     <run>/state/seconds.json    { "search_seconds": 20.6, ..., "working": { "phase": ..., "since": ... } }
 *
 * Written when a phase begins and when work ends, so that a process that was killed counts too: up to the last record
 * of its log. */
#ifndef PN_TRAIN_RUN_CLOCK_H
#define PN_TRAIN_RUN_CLOCK_H

#include <jansson.h>

#include "run_dir.h"

typedef struct pn_run_clock {
    char file[PN_PATH_MAX]; /* empty: not open */
    json_t *seconds;        /* phase -> seconds before `since`; owned */
    const char *phase;      /* borrowed; NULL: none */
    double since;           /* pn_utc_seconds */
} pn_run_clock;

/* Reads what earlier processes took. PN_FORMAT for a file that is not of this kind. */
pn_status pn_run_clock_open(const pn_run_dir *run, pn_run_clock *out);
/* Frees; accepts one that was zeroed. What has not been ended or begun since counts as for a killed process. */
void pn_run_clock_close(pn_run_clock *c);
/* Ends the phase before. `phase` is a literal, "search_seconds"; one that was begun before goes on. NULL: only ends. */
pn_status pn_run_clock_begin(pn_run_clock *c, const char *phase);
/* Adds time that was measured otherwise. */
void pn_run_clock_add(pn_run_clock *c, const char *phase, double seconds);
/* All phases in the order they came, and total_seconds; the caller owns it. */
json_t *pn_run_clock_json(const pn_run_clock *c, double *total);

#endif
