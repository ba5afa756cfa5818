/* `postnas search`: super-network, search, extraction, distillation, export, the table, the report.
 *
 * The run directory receives config.yaml, log.jsonl, state/ (what a resumed run need not do again), model/ (the hybrid
 * as a Hugging Face directory), result.json (everything measured; no timings), timing.json and report.html. */
#ifndef PN_SEARCH_SEARCH_RUN_H
#define PN_SEARCH_SEARCH_RUN_H

#include <stdio.h>

#include "search_config.h"

/* Reads the config, runs, prints the final table to `out`. */
pn_status pn_search_run(pn_config *file, FILE *out);

#endif
