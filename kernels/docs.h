/* Packed documents: tokens of several documents one after another in one [tokens, channels] activation.
 *
 * A batch of B sequences is B documents. Nothing mixes across a document border (blocks.md 1.7). */
#ifndef PN_KERNELS_DOCS_H
#define PN_KERNELS_DOCS_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

typedef struct pn_docs {
    int64_t n;             /* documents */
    const int64_t *offset; /* n + 1 token offsets, offset[0] = 0, offset[n] = tokens; borrowed until the tape resets */
    const int64_t *past;   /* n: tokens each document had before these (decoding); NULL: none */
} pn_docs;

static inline int64_t pn_docs_tokens(const pn_docs *d) {
    return d->offset[d->n];
}
static inline int64_t pn_docs_past(const pn_docs *d, int64_t i) {
    return d->past ? d->past[i] : 0;
}

/* Whether every document has exactly one token here, as in decoding. */
static inline bool pn_docs_one_each(const pn_docs *d) {
    for (int64_t i = 0; i < d->n; i++)
        if (d->offset[i + 1] - d->offset[i] != 1) return false;
    return true;
}

/* Recurrent cores work on chunks of this many tokens, which start anew in every document. */
enum { PN_CHUNK = 64 };
/* Chunks in the documents before document `doc`; doc = d->n: in all of them. */
static inline int64_t pn_docs_chunks(const pn_docs *d, int64_t doc) {
    int64_t n = 0;
    for (int64_t i = 0; i < doc; i++) n += (d->offset[i + 1] - d->offset[i] + PN_CHUNK - 1) / PN_CHUNK;
    return n;
}

/* PN_USAGE, naming the op, unless the offsets start at 0, never fall and end at `tokens`, and no past is negative. */
pn_status pn_docs_check(const pn_docs *d, int64_t tokens, const char *op);

#endif
