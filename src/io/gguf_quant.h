/* The element types of GGUF files: one row each, with the size of a block and how its values are read.
 *
 * A quantised row is a sequence of blocks; a block stores a scale (and an offset) and a few bits per value. Layouts are
 * those of ggml: little-endian, scales f16. Dequantisation is exact to the last bit of float32 as ggml computes it, for
 * any bits: a scale that is infinite or no number gives what IEEE arithmetic gives (tests/io/gguf_vectors.py). */
#ifndef PN_IO_GGUF_QUANT_H
#define PN_IO_GGUF_QUANT_H

#include "tensor.h"

enum { PN_GGUF_MAX_BLOCK = 256 }; /* values */

typedef struct pn_gguf_type {
    const char *name;
    int block_elems, block_bytes;
    pn_dtype dtype; /* plain values of this dtype; PN_DTYPES: quantised, or not one of ours */
    /* n_blocks blocks at any alignment -> n_blocks * block_elems values. NULL: plain, or not read by postnas. */
    void (*to_f32)(const uint8_t *blocks, int64_t n_blocks, float *out);
} pn_gguf_type;

/* NULL: no such type is known, not even its size. */
const pn_gguf_type *pn_gguf_type_of(uint32_t id);

#endif
