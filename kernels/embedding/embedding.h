/* y_n = table[ids_n]. ids: [N] I32, table: [V, D], y: [N, D]. An id outside 0 .. V-1 is PN_USAGE. */
#ifndef PN_KERNELS_EMBEDDING_H
#define PN_KERNELS_EMBEDDING_H

#include "op.h"

static inline pn_status pn_embedding(pn_tape *t, pn_tensor *ids, pn_tensor *table, pn_tensor **y) {
    pn_tensor *in[] = { ids, table };
    PN_TRY(pn_tape_call(t, &pn_op_embedding, NULL, 0, in, 2, y, 1));
    return PN_OK;
}

#endif
