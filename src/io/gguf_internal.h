/* Inside of pn_gguf, shared by the parser (gguf.c), the metadata getters (gguf_kv.c) and the reader (gguf_read.c). */
#ifndef PN_IO_GGUF_INTERNAL_H
#define PN_IO_GGUF_INTERNAL_H

#include "gguf.h"
#include "gguf_quant.h"
#include "mapped_file.h"

typedef enum pn_gguf_kind { /* the file's numbers */
                            PN_GGUF_U8,
                            PN_GGUF_I8,
                            PN_GGUF_U16,
                            PN_GGUF_I16,
                            PN_GGUF_U32,
                            PN_GGUF_I32,
                            PN_GGUF_F32,
                            PN_GGUF_BOOL,
                            PN_GGUF_STRING,
                            PN_GGUF_ARRAY,
                            PN_GGUF_U64,
                            PN_GGUF_I64,
                            PN_GGUF_F64,
                            PN_GGUF_KINDS
} pn_gguf_kind;

/* Bytes of a scalar; 0 for strings and arrays. */
size_t pn_gguf_kind_bytes(pn_gguf_kind kind);
const char *pn_gguf_kind_name(pn_gguf_kind kind);

typedef struct pn_gguf_value {
    char *key;                  /* owned */
    pn_gguf_kind kind, element; /* element: of an array */
    const unsigned char *data;  /* scalar, first element; into the file, checked, unaligned */
    uint64_t n;                 /* elements of an array */
    char *text;                 /* of a string: an owned, NUL-terminated copy; NULL when it holds a NUL */
} pn_gguf_value;

typedef struct pn_gguf_tensor {
    pn_tensor_info info;      /* first: a pn_tensor_info of this file is a pn_gguf_tensor */
    char *name;               /* owned */
    const pn_gguf_type *type; /* NULL: not known */
    uint32_t type_id;
} pn_gguf_tensor;

struct pn_gguf {
    char *path;
    pn_mapped_file map; /* {0} where the bytes are the caller's */
    const unsigned char *data;
    size_t n_bytes;
    pn_gguf_value *value; /* [n_values], sorted by key */
    int64_t n_values;
    pn_gguf_tensor *tensor; /* [n_tensors], in the order of the list */
    pn_gguf_tensor **by_name;
    int64_t n_tensors;
};

/* NULL: no such key. */
const pn_gguf_value *pn_gguf_value_find(const pn_gguf *f, const char *key);

/* Little-endian numbers at any alignment. */
static inline uint64_t pn_gguf_le(const unsigned char *p, int n_bytes) {
    uint64_t x = 0;
    for (int i = 0; i < n_bytes; i++) x |= (uint64_t)p[i] << (8 * i);
    return x;
}

#endif
