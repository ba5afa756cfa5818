/* Small tables of integers on the GPU that follow from what the host knows: where documents begin, which keys they
 * see. Every layer of a step asks for the same ones, so the last few are kept, found by their content. */
#ifndef PN_KERNELS_CUDA_STAGED_CUDA_H
#define PN_KERNELS_CUDA_STAGED_CUDA_H

#include <stdint.h>

#include "docs.h"
#include "status.h"

/* Writes all values of the table that a key stands for. */
typedef void (*pn_staged_fill)(const int64_t *key, int64_t n_key, int32_t *values);

/* The table of n_values that fill() makes of the key; *out is an address of the GPU, for what is launched before the
 * next PN_STAGED_TABLES tables are asked for. A key says what kind of table it is of: equal keys, equal tables. */
enum { PN_STAGED_TABLES = 32 };
pn_status pn_cuda_staged(const int64_t *key, int64_t n_key, pn_staged_fill fill, int64_t n_values, const int32_t **out);

/* n integers as they are: PN_UNSUPPORTED past 2^31 - 1. */
pn_status pn_cuda_staged_integers(const int64_t *values, int64_t n, const int32_t **out);

/* Packed documents (docs.h). Documents may be empty. */
typedef struct pn_cuda_docs {
    int64_t tokens, n, chunks;
    /* On the GPU: */
    const int32_t *offset;      /* [n + 1] */
    const int32_t *past;        /* [n] */
    const int32_t *first_chunk; /* [n + 1]: chunks of PN_CHUNK in the documents before */
    const int32_t *chunk_doc;   /* [chunks]: its document ... */
    const int32_t *chunk_begin; /* [chunks]: ... and first token */
    const int32_t *doc;         /* [tokens]: the document of each */
} pn_cuda_docs;

pn_status pn_cuda_docs_stage(const pn_docs *docs, pn_cuda_docs *out);

#endif
