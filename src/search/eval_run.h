/* `postnas eval`: the tasks of a search configuration on a model directory, on the same held-out samples as the
 * search's final table. */
#ifndef PN_SEARCH_EVAL_RUN_H
#define PN_SEARCH_EVAL_RUN_H

#include <stdio.h>

#include "search_config.h"

/* Prints the table to `out`; json (NULL: none) names a file that receives all metrics. kl tasks need a teacher and are
 * left out. */
pn_status pn_eval_run(const char *model_dir, pn_config *file, const char *json, FILE *out);

#endif
