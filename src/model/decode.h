/* Decoding by one token of every sequence, again and again: on the GPU as a CUDA graph (replay.h), whose launches find
 * positions and cache rows in tables that are made before each of them.
 *
 * The memory that a step works on stays: weights, decode states, and what the tape has. Where a key/value cache has to
 * grow, or somebody moves one of them, the step is recorded again. */
#ifndef PN_MODEL_DECODE_H
#define PN_MODEL_DECODE_H

#include "model.h"
#include "replay.h"

typedef struct pn_decoder pn_decoder;

/* What a step reads and writes besides the tape; borrowed. */
typedef struct pn_decode_parts {
    const pn_params *params;
    pn_state *const *state; /* of every block that runs in a step, each of n sequences; NULL: it has none */
    int n_states;
    int64_t n;
    const int64_t *offset; /* of the step's documents, n + 1: 0 .. n */
} pn_decode_parts;

/* The tape, borrowed, does not record and is for these steps alone while they are made. */
pn_status pn_decoder_create(pn_tape *t, const pn_decode_parts *parts, pn_decoder **out);
void pn_decoder_destroy(pn_decoder **d);

/* One step: `work` resets the tape, runs the blocks (pn_block_extend, one token of every sequence) and leaves results
 * in tensors of the tape, which stay where they are for as long as `work` is not called again. Every state ends one
 * token further. */
pn_status pn_decoder_step(pn_decoder *d, pn_replay_work work, void *ctx);
const pn_replay *pn_decoder_replay(const pn_decoder *d);

/* ---- a whole model ---- */

/* Tokens in, logits out, for the sequences of a cache. */
typedef struct pn_model_decoder pn_model_decoder;

/* Borrows all three; the tape as above. */
pn_status pn_model_decoder_create(const pn_model *m, pn_cache *cache, pn_tape *t, pn_model_decoder **out);
void pn_model_decoder_destroy(pn_model_decoder **d);
/* ids: one token of every sequence, on the host. *logits [n, vocab]: the tape's, until its next use. */
pn_status pn_model_decoder_step(pn_model_decoder *d, const int32_t *ids, pn_tensor **logits);
const pn_replay *pn_model_decoder_replay(const pn_model_decoder *d);

#endif
