/* What a block costs, from its shapes alone: nothing runs and no memory is taken (backend `plan`). */
#ifndef PN_BLOCKS_BLOCK_COST_H
#define PN_BLOCKS_BLOCK_COST_H

#include "block.h"

typedef struct pn_block_cost {
    double parameters;   /* values in its weights */
    double token_flops;  /* of one token, the last of a context: useful flops, as the ops count them (op.h) */
    double prompt_flops; /* of all tokens of that context */
    double state_bytes;  /* of one sequence after that context: pn_block_cache_bytes */
} pn_block_cost;

/* context: tokens, at least 1. activation_bytes: width of keys, values and convolution windows in state_bytes
 * (recurrent states are F32). An automatic option is resolved from dims. PN_USAGE when the options do not fit dims. The
 * MLP is a block like any other (pn_block_mlp). */
pn_status pn_block_spec_cost(const pn_block_spec *spec, const pn_dims *dims, int64_t context, size_t activation_bytes,
                             pn_block_cost *out);

/* Flops and least bytes of a pass over those documents, and of its backward pass to weights and input
 * when `backward`: what a tape that runs it counts (pn_tape_cost). */
pn_status pn_block_spec_pass_cost(const pn_block_spec *spec, const pn_dims *dims, const pn_docs *docs, bool backward,
                                  pn_op_cost *out);

#endif
