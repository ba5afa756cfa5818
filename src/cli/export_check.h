/* `postnas export --check`: the written directory, read back by our own loader, computes what its model computes.
 *
 *   1. Every weight is the model's, rounded to the type it was written in, and every setting is the model's.
 *   2. The model with its weights so rounded and the one read back give the same logits, bit for bit.
 *   3. Rounding moved the logits by no more than rounding does; not at all where the type is F32.
 *
 * The tokens are three built-in texts in the model's own tokenizer.
 *
 * The limit of 3. Rounding a weight f 2^e, 1/2 <= |f| < 1, to a type of unit roundoff u (2^-8 for BF16, 2^-11 for F16)
 * adds an error within +- u 2^(e-1), and over many weights such errors are as good as independent and uniform there.
 * How far that moves the logits depends on the model, so it is measured: noise of exactly this distribution is added to
 * the weights, and D is the rms change that it makes. Rounding itself must make at most 3 D, as a mean square over so
 * many logits can only leave its expectation by that much when errors are no such noise: weights below F16's normal
 * numbers, say, which it rounds more coarsely. What it means for probabilities is told as KL(before || after). */
#ifndef PN_CLI_EXPORT_CHECK_H
#define PN_CLI_EXPORT_CHECK_H

#include "model.h"
#include "tokenizer.h"

typedef struct pn_export_check {
    int64_t tokens;
    double rms, limit; /* change of the logits by rounding, over their own rms about their row's mean; the most of it */
    double worst, kl;  /* the largest change of one logit; mean KL, nats */
} pn_export_check;

/* dir: a model directory written from m in `dtype`, called `shown` in messages. Rounds m's weights, which are F32 on
 * the host. PN_MISMATCH: one of the three does not hold. */
pn_status pn_export_check_run(pn_model *m, const pn_tokenizer *t, const char *dir, const char *shown, pn_dtype dtype,
                              pn_export_check *out);

#endif
