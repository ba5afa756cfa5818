/* The sliding window of a causal convolution over packed documents, for the CPU convolutions.
 *
 * Position s of a document is row s of its tokens; positions -W .. -1 are its history, the state it came with (zeros
 * without one). State tensors are [documents, C, W], oldest first; here history is kept as W rows of C channels, so
 * that every position is a contiguous row. */
#ifndef PN_KERNELS_CPU_WINDOW_H
#define PN_KERNELS_CPU_WINDOW_H

#include <stdint.h>

#include "docs.h"

typedef struct pn_window {
    const float *tokens; /* all documents */
    float *history;      /* W x C per document, or one W x C for all of them when there is no state */
    int64_t channels, width;
    int64_t history_stride; /* 0 without a state */
} pn_window;

/* Documents of histories to allocate: each W x C floats. */
static inline int64_t pn_window_histories(const pn_docs *docs, const void *state) {
    return state ? docs->n : 1;
}
/* Fills the history, in memory of pn_window_histories() * W * C floats, from the state or with zeros. */
pn_window pn_window_make(const pn_docs *docs, const float *tokens, const float *state, int64_t channels, int64_t width,
                         float *history);

/* The document of a token, from one at or before it. A scan: documents are few next to tokens times channels. */
static inline int64_t pn_window_doc(const pn_docs *docs, int64_t doc, int64_t token) {
    while (docs->offset[doc + 1] <= token) doc++;
    return doc;
}

static inline float *pn_window_history(const pn_window *w, int64_t doc) {
    return w->history + doc * w->history_stride;
}
/* Row of position s >= -W of a document. */
static inline const float *pn_window_row(const pn_window *w, const pn_docs *docs, int64_t doc, int64_t s) {
    if (s < 0) return pn_window_history(w, doc) + (w->width + s) * w->channels;
    return w->tokens + (docs->offset[doc] + s) * w->channels;
}
/* state [documents, C, W] after these tokens: the last W positions, also of a document shorter than W. */
void pn_window_new_state(const pn_window *w, const pn_docs *docs, float *state);
/* state[c][j] += rows[j][c] for one document. */
void pn_window_add_rows(const float *rows, int64_t channels, int64_t width, float *state);

#endif
