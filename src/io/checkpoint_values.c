#include <string.h>

#include "checkpoint_internal.h"

void *pn_state_direct(const pn_checkpoint_array *a) {
    const pn_tensor *t = a->tensor;
    if (a->source) return NULL;
    if (!t) return a->data;
    return t->dtype == a->dtype && pn_pool_kind_of(t->storage->pool) == PN_POOL_HOST ? pn_data(t) : NULL;
}

pn_status pn_state_fetch(const pn_checkpoint_array *a, void *buffer) {
    const void *direct = pn_state_direct(a);
    if (direct) {
        memcpy(buffer, direct, pn_state_bytes(a));
        return PN_OK;
    }
    return a->source ? a->source->read(a->of, a->index, buffer) : pn_tensor_read(a->tensor, buffer, a->dtype);
}

pn_status pn_state_give(const pn_checkpoint_array *a, const void *buffer) {
    return a->source ? a->source->write(a->of, a->index, buffer) : pn_tensor_write(a->tensor, buffer, a->dtype);
}
