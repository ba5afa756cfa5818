/* How far two models' next-token distributions agree: for logits of another program, computed in another precision,
 * where an element-wise error says little. */
#ifndef PN_CLI_AGREEMENT_H
#define PN_CLI_AGREEMENT_H

#include <stdbool.h>

#include "safetensors.h"

typedef struct pn_agreement { /* sums over tokens */
    int64_t tokens, equal;    /* equal: the same first choice */
    double kl, worst;         /* KL(expected || ours), nats */
    bool bad;                 /* a value was not finite */
} pn_agreement;

/* Adds `rows` tokens: logits [rows, vocab] against rows first_row .. of the file's tensor "logits" (PN_FORMAT when it
 * is shorter). */
pn_status pn_agreement_add(const pn_safetensors *expected, int64_t first_row, const float *logits, int64_t rows,
                           int64_t vocab, pn_agreement *a);
/* Share of tokens whose first choice differs, and the mean KL; infinite when a value was not finite. */
double pn_agreement_differ(const pn_agreement *a);
double pn_agreement_kl(const pn_agreement *a);

#endif
