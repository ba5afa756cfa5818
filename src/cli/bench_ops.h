/* `postnas bench ops`: how fast every implementation of every op is, against what the machine can do. */
#ifndef PN_CLI_BENCH_OPS_H
#define PN_CLI_BENCH_OPS_H

#include <stdio.h>

#include "bench_cases.h"

enum { PN_BENCH_MAX_TOKENS = 8 };

typedef struct pn_bench_ops_options {
    const pn_op **ops; /* (n_ops) to measure; n_ops 0: all */
    int n_ops;
    const pn_bench_shape *shape;
    int64_t tokens[PN_BENCH_MAX_TOKENS]; /* (n_tokens) rows; 0: one token of each of several sequences */
    int n_tokens;
    int64_t sequences;  /* that tokens are, or are decoded; 0: one of all tokens, several for decoding */
    const char *only;   /* the shapes with this in their name; NULL: all */
    bool chosen;        /* of the implementations the one that a run takes; else all that can */
    pn_backend backend; /* PN_CPU, in F32, or PN_CUDA */
    pn_dtype type;
    int64_t repeat;   /* timed runs, fewer where they take long */
    const char *json; /* file for the rows; NULL: none */
} pn_bench_ops_options;

/* A row per implementation, shape and direction on `out`, as they are measured. PN_MISMATCH when an op gave a number
 * that is not finite. */
pn_status pn_bench_ops(const pn_bench_ops_options *o, FILE *out);

#endif
