/* A span of the GPU's addresses, of which the front has memory: it grows and shrinks in place, so what is next to each
 * other stays so, and nothing moves. Implemented by span_cuda.c, and by device_nocuda.c where the build has no CUDA. */
#ifndef PN_TENSOR_SPAN_H
#define PN_TENSOR_SPAN_H

#include <stddef.h>

#include "status.h"

typedef struct pn_span pn_span;

enum { PN_SPAN_CHUNK = 32 << 20 }; /* bytes: its memory is a multiple of that */

/* Addresses for as much as the GPU has, without memory. The device is open. */
pn_status pn_span_create(pn_span **out);
/* NULL ok. Waits for what was asked for on our stream, as shrinking does: nothing else may use the memory. */
void pn_span_destroy(pn_span **s);
void *pn_span_address(const pn_span *s);

/* Memory for at least the first n_bytes, and no chunk beyond. PN_MEMORY: the GPU has no more; what was there stays. */
pn_status pn_span_resize(pn_span *s, size_t n_bytes);
/* A multiple of the chunk that is at least n_bytes. */
static inline size_t pn_span_rounded(size_t n_bytes) {
    return (n_bytes + PN_SPAN_CHUNK - 1) / PN_SPAN_CHUNK * PN_SPAN_CHUNK;
}

#endif
