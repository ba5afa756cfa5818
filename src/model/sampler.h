/* Picks the next token from logits: greedy, or by temperature, the k most likely, and the smallest set of probability
 * p. */
#ifndef PN_MODEL_SAMPLER_H
#define PN_MODEL_SAMPLER_H

#include "model.h"
#include "rng.h"

typedef struct pn_sampler {
    double temperature; /* 0: greedy */
    int64_t top_k;      /* 0: all */
    double top_p;       /* 1: all */
    pn_rng rng;
} pn_sampler;

/* logits: n values. The first of equal maxima wins. PN_NUMERIC when a logit is not a number. */
pn_status pn_sampler_pick(pn_sampler *s, const float *logits, int64_t n, int32_t *token);

/* Runs the prompt, then hands each new token to `emit` until it returns false, `max_tokens` are out or `stop` comes
 * (-1: none; the stop token is not emitted). path NULL: candidate 0. */
pn_status pn_generate(const pn_model *m, const pn_path *path, const int32_t *prompt, int64_t n_prompt,
                      int64_t max_tokens, int32_t stop, pn_sampler *sampler, bool (*emit)(void *ctx, int32_t token),
                      void *ctx);

#endif
