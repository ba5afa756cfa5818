/* Small tables of integers on the GPU that follow from what the host knows: where documents begin, which keys they
 * see. Every layer of a step asks for the same ones, so the last few are kept, found by their content; those of work
 * that is recorded are found by what they are made of (recorded.h). */
#ifndef PN_KERNELS_CUDA_STAGED_CUDA_H
#define PN_KERNELS_CUDA_STAGED_CUDA_H

#include <stdbool.h>
#include <stdint.h>

#include "docs.h"
#include "status.h"

/* An address that is handed out serves what is launched before the next PN_STAGED_TABLES tables are asked for. */
enum { PN_STAGED_TABLES = 32 };

/* n integers as they are: PN_UNSUPPORTED past 2^31 - 1. */
pn_status pn_cuda_staged_integers(const int64_t *values, int64_t n, const int32_t **out);

/* Of packed documents and empty ones past them, `rows` in all: rows + 1 offsets times `each`, or rows lengths. */
pn_status pn_cuda_staged_offsets(const pn_docs *docs, int64_t rows, int64_t each, const int32_t **out);
pn_status pn_cuda_staged_lengths(const pn_docs *docs, int64_t rows, const int32_t **out);

/* Packed documents (docs.h). Documents may be empty. Where any layout will do, chunks are the most that there can be:
 * those past the last are empty, of the last document, and begin at its end. */
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

/* ---- what tables are made of ---- */

typedef enum pn_table_kind { PN_TABLE_INTEGERS, PN_TABLE_DOCS, PN_TABLE_OFFSETS, PN_TABLE_LENGTHS } pn_table_kind;

/* Arrays of the host, borrowed: the integers; or offsets, and pasts (NULL: zeros). */
typedef struct pn_table_recipe {
    pn_table_kind kind;
    int64_t n; /* integers, or documents */
    const int64_t *part[2];
    int64_t longest;    /* pn_docs.longest */
    int64_t rows, each; /* of offsets and lengths; else 0 */
} pn_table_recipe;

int64_t pn_table_part_length(const pn_table_recipe *r, int part); /* 0 for a part that is not there */
int64_t pn_table_length(const pn_table_recipe *r);
/* But for the values of their parts. */
bool pn_table_same_kind(const pn_table_recipe *a, const pn_table_recipe *b);
/* PN_UNSUPPORTED past 2^31 - 1. */
pn_status pn_table_fill(const pn_table_recipe *r, int32_t *values);

#endif
