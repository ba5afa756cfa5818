/* What the chunkwise recurrent cores share in walking a call: tasks are documents and heads, and each walks its chunks
 * in order, forward in time or backward. */
#ifndef PN_KERNELS_CPU_HEADS_H
#define PN_KERNELS_CPU_HEADS_H

#include "docs.h"
#include "tile_mm.h"

/* How many of the dv value columns one task takes when there are `heads` tasks of whole heads for `threads` threads:
 * all of them, or parts of at least 64, so that scores stay cheap beside them. The columns of a state do not interact.
 */
static inline int64_t pn_task_columns(int64_t heads, int64_t dv, int64_t threads) {
    if (heads >= threads || heads == 0) return dv;
    int64_t parts = (threads + heads - 1) / heads, width = ((dv + parts - 1) / parts + 31) / 32 * 32;
    return width < 64 ? 64 : width;
}

/* Adds to the list the whole chunk before the one whose rows start at x; NULL: absent. */
static inline void pn_ahead_add_chunk_before(pn_ahead *list, int64_t cols, const float *x, int64_t ld) {
    if (x) pn_ahead_add(list, PN_CHUNK, cols, x - PN_CHUNK * ld, ld);
}

#endif
