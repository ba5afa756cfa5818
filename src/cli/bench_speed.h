/* `postnas bench decode` and `postnas bench prefill`: how fast a model reads and writes tokens on this machine, part by
 * part and whole (latency.h), against what the machine can do. */
#ifndef PN_CLI_BENCH_SPEED_H
#define PN_CLI_BENCH_SPEED_H

#include <stdio.h>

#include "latency.h"

typedef struct pn_bench_speed_options {
    pn_latency_pass pass;
    const pn_model *model;
    const char *name; /* of the model */
    pn_latency_options latency;
    int64_t prompts; /* prefill: at once */
    const char *json;
} pn_bench_speed_options;

/* For each context a row per part and one of the whole model, on `out`, as they are measured. */
pn_status pn_bench_speed(const pn_bench_speed_options *o, FILE *out);

#endif
