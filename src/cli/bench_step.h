/* `postnas bench step`: training steps of a whole model with random weights on made-up text. */
#ifndef PN_CLI_BENCH_STEP_H
#define PN_CLI_BENCH_STEP_H

#include <stdio.h>

#include "bench_cases.h"
#include "compute.h"
#include "recompute.h"

typedef struct pn_bench_step_options {
    pn_compute on;
    const pn_bench_shape *shape;
    const pn_block_spec *block; /* (n_blocks) of the layers in turn */
    int n_blocks;
    int64_t layers; /* 0: all */
    int64_t tokens, sequences;
    /* 1: the mixers train, on KL and feature losses against a teacher of softmax attention that shares the rest;
     * 2: everything trains, on cross-entropy. */
    int64_t stage;
    int64_t steps;    /* timed, after one that is not */
    int recompute;    /* pn_recompute_level or PN_RECOMPUTE_AUTO */
    double memory_gb; /* of the GPU, at most; 0: what is free */
    const char *json; /* file for the result; NULL: none */
} pn_bench_step_options;

pn_status pn_bench_step(const pn_bench_step_options *o, FILE *out);

#endif
