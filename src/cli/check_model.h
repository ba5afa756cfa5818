/* `postnas check model`: a model's logits and hidden states against expected ones, in one pass and decoding. */
#ifndef PN_CLI_CHECK_MODEL_H
#define PN_CLI_CHECK_MODEL_H

#include <stdio.h>

#include "status.h"

/* path: a model directory or a GGUF file. expected: safetensors with input_ids [B, T] or [T], logits [B, T, V], and, as
 * far as they are there, hidden.0 (embeddings), hidden.i (the residual stream after layer i) up to hidden.n (after the
 * final norm). Prints a row per quantity with its error and limit: those of one pass, then the logits of decoding one
 * token at a time and in pieces; last "N passed, M failed". PN_MISMATCH: a row failed. PN_FORMAT: the file does not fit
 * the model. */
pn_status pn_check_model(const char *path, const char *expected, FILE *out);

typedef struct pn_check_agreement {
    double kl, top1; /* most mean KL(expected || model) in nats, least share of equal first choices */
} pn_check_agreement;
/* The same file against another program's logits, which differ beyond rounding: the two distributions of every token
 * are compared instead, in one pass. */
pn_status pn_check_model_agrees(const char *path, const char *expected, const pn_check_agreement *limit, FILE *out);

#endif
