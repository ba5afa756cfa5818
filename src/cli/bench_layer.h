/* `postnas bench layer`: single blocks, forward and with backward, against what the machine can do. */
#ifndef PN_CLI_BENCH_LAYER_H
#define PN_CLI_BENCH_LAYER_H

#include <stdio.h>

#include "bench_cases.h"

typedef struct pn_bench_layer_options {
    pn_backend backend;
    pn_dtype type; /* what is computed in */
    const pn_bench_shape *shape;
    const pn_block_spec *block; /* (n_blocks) */
    int n_blocks;
    int64_t tokens, sequences; /* documents of equal length, PN_BENCH_MOST_SEQUENCES at most */
    int64_t repeat;            /* timed runs, fewer where they take long */
    const char *json;
} pn_bench_layer_options;

/* Two rows per block on `out`, as they are measured. */
pn_status pn_bench_layer(const pn_bench_layer_options *o, FILE *out);

#endif
