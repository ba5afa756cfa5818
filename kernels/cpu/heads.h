/* What the chunkwise recurrent cores share in walking a document's chunks, forward in time or backward. */
#ifndef PN_KERNELS_CPU_HEADS_H
#define PN_KERNELS_CPU_HEADS_H

#include "docs.h"
#include "tile_mm.h"

/* Adds to the list the whole chunk before the one whose rows start at x; NULL: absent. */
static inline void pn_ahead_add_chunk_before(pn_ahead *list, int64_t cols, const float *x, int64_t ld) {
    if (x) pn_ahead_add(list, PN_CHUNK, cols, x - PN_CHUNK * ld, ld);
}

#endif
