/* `postnas bench train`: some steps of super-network training, against what the machine can do, and where the time
 * goes.
 */
#ifndef PN_CLI_BENCH_TRAIN_H
#define PN_CLI_BENCH_TRAIN_H

#include <stdio.h>

#include "bench_cases.h"
#include "config.h"

typedef struct pn_bench_train_options {
    pn_backend backend;
    pn_dtype type;               /* what is computed in; both instead of the configuration's */
    pn_config *config;           /* of a search: its model, mixture, super-network; NULL: `shape` */
    const pn_bench_shape *shape; /* random weights and made-up text: speed does not depend on what they say */
    int64_t steps;
    int64_t layers;   /* of the shape; 0: all */
    int64_t tokens;   /* of a step, of the shape */
    int64_t repeat;   /* times that all steps are timed */
    const char *json; /* file for the result; NULL: none */
} pn_bench_train_options;

pn_status pn_bench_train(const pn_bench_train_options *o, FILE *out);

#endif
