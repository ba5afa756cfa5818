/* A stage after placement, at work and done: its variants, what they scored and cost, which one was chosen. */
#ifndef PN_SEARCH_RUN_VARIANTS_H
#define PN_SEARCH_RUN_VARIANTS_H

#include "latency.h"
#include "variants.h"

typedef struct pn_variant {
    pn_block_spec spec;
    int64_t init;   /* pn_start */
    char text[256]; /* pn_shape_text */
    int choice;     /* its number in every layer of the super-network */
    int row;        /* of the history: the path that has it in all layers left to the linear block */
    double cost[PN_VARIANT_COSTS];
    double decode[PN_LIST_MAX], prefill[PN_LIST_MAX]; /* tokens per second of this block alone, by latency.context */
    bool front; /* none is at least as good and as fast to decode, and better in one of both */
} pn_variant;

typedef struct pn_variants {
    const pn_variants_config *config; /* borrowed; NULL: the stage is not part of the run */
    pn_variant *item;                 /* n; owned */
    int n;
    int replaced; /* choice number whose layers the stage gave to its variants */
    int chosen;   /* index into item; with mix the best of the unmixed */
    int winner;   /* row of the history: the path that the stage chose */
    pn_path path; /* that path */
    pn_supernet_result trained;
} pn_variants;

void pn_variants_free(pn_variants *v);
/* What `worth` adds to the loss of a path: the sum over costs of worth x log2 of the cost of its variants. */
double pn_variants_penalty(const pn_variants *v, const pn_path *path);

#endif
