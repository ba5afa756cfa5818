/* What may be done with a tensor that a reader's opening let through. */
#ifndef PN_TESTS_FUZZ_TENSORS_H
#define PN_TESTS_FUZZ_TENSORS_H

#include "fuzz.h"
#include "tensor_info.h"

static inline pn_pool *fuzz_pool(void) {
    static pn_pool *pool;
    if (!pool) FUZZ_ASSERT(pn_pool_create(PN_POOL_HOST, &pool) == PN_OK);
    return pool;
}

/* Every byte of it lies in the input; then it is read, as BF16 so that a quantised one is also converted. */
static inline void fuzz_read_tensor(const void *file, const pn_tensor_info *t, const uint8_t *data, size_t n_bytes,
                                    pn_status (*read)(const void *file, const pn_tensor_info *t, pn_tensor *dst)) {
    pn_tensor *x;
    FUZZ_ASSERT(t->n_bytes <= n_bytes && (const uint8_t *)t->data >= data);
    FUZZ_ASSERT((size_t)((const uint8_t *)t->data - data) <= n_bytes - t->n_bytes);
    if (t->rank > PN_MAX_RANK || t->n_elems > 1 << 16) return;
    pn_status s = pn_tensor_create(fuzz_pool(), PN_BF16, t->rank, t->shape, &x); /* may refuse [0, 2^62, 4] */
    if (!s) {
        s = read(file, t, x);
        pn_tensor_release(&x);
    }
    if (s) fuzz_refused(s);
}

#endif
