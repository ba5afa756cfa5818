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
    /* 0: this layout. Else any layout of n documents, empty ones too, with as many tokens and none longer than this:
     * what is launched and how much memory it takes depends on these three numbers alone (recorded.h). */
    int64_t longest;
} pn_docs;

static inline int64_t pn_docs_tokens(const pn_docs *d) {
    return d->offset[d->n];
}
/* For ops that do not ask for it: layouts that differ in it are one. */
static inline pn_docs pn_docs_without_past(const pn_docs *d) {
    return (pn_docs){ .n = d->n, .offset = d->offset, .longest = d->longest };
}
static inline int64_t pn_docs_past(const pn_docs *d, int64_t i) {
    return d->past ? d->past[i] : 0;
}

/* Tokens of the longest document, or the most that any layout has. */
static inline int64_t pn_docs_longest(const pn_docs *d) {
    int64_t most = d->longest;
    for (int64_t i = 0; i < d->n && d->longest <= 0; i++)
        if (d->offset[i + 1] - d->offset[i] > most) most = d->offset[i + 1] - d->offset[i];
    return most;
}

/* Whether every document has exactly one token here, as in decoding. */
static inline bool pn_docs_one_each(const pn_docs *d) {
    if (d->longest > 0) return false;
    for (int64_t i = 0; i < d->n; i++)
        if (d->offset[i + 1] - d->offset[i] != 1) return false;
    return true;
}

/* Recurrent cores work on chunks of this many tokens, which start anew in every document. */
enum { PN_CHUNK = 64 };
/* Chunks in the documents before document `doc`; doc = d->n: in all of them, or the most that any layout has. */
static inline int64_t pn_docs_chunks(const pn_docs *d, int64_t doc) {
    int64_t n = 0;
    if (d->longest > 0 && doc == d->n) return (pn_docs_tokens(d) + d->n * (PN_CHUNK - 1)) / PN_CHUNK;
    for (int64_t i = 0; i < doc; i++) n += (d->offset[i + 1] - d->offset[i] + PN_CHUNK - 1) / PN_CHUNK;
    return n;
}

/* PN_USAGE, naming the op, unless the offsets start at 0, never fall and end at `tokens`, and no past is negative. */
pn_status pn_docs_check(const pn_docs *d, int64_t tokens, const char *op);

#endif
