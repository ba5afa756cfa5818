/* GGUF files (versions 2 and 3, little-endian): metadata of typed keys, and tensors, often quantised.
 *
 *     "GGUF" u32 version, u64 tensors, u64 keys
 *     keys x    { string name, u32 type, value }          string: u64 length, bytes; array: u32 type, u64 length,
 * values tensors x { string name, u32 n_dims, u64 dims[], u32 type, u64 offset } padding to general.alignment (32),
 * then the data, at the offsets given
 *
 * The reader maps the file and checks every count, length, name and offset on opening. Dimensions come out row-major:
 * the file's first (fastest) dimension is shape[rank - 1]. A quantisation that postnas does not read is no error until
 * that tensor is read. */
#ifndef PN_IO_GGUF_H
#define PN_IO_GGUF_H

#include "tensor_info.h"

typedef struct pn_gguf pn_gguf;

/* PN_IO: cannot be opened. PN_FORMAT: any rule of the format is broken; the message names file and place. */
pn_status pn_gguf_open(const char *path, pn_gguf **out);
/* The same from memory, borrowed until the reader is closed; `name` stands for the file in messages. */
pn_status pn_gguf_parse(const char *name, const void *data, size_t n_bytes, pn_gguf **out);
void pn_gguf_close(pn_gguf **f);
const char *pn_gguf_path(const pn_gguf *f);

/* ---- tensors, in the order of the file's list ---- */

int64_t pn_gguf_count(const pn_gguf *f);
const pn_tensor_info *pn_gguf_info(const pn_gguf *f, int64_t i);
/* NULL: no such tensor. */
const pn_tensor_info *pn_gguf_find(const pn_gguf *f, const char *name);
/* Dequantises and converts to dst's dtype. PN_FORMAT: missing, or another shape. PN_UNSUPPORTED: its type or rank. */
pn_status pn_gguf_read(const pn_gguf *f, const char *name, pn_tensor *dst);
/* The same for an info of this file. */
pn_status pn_gguf_read_info(const pn_gguf *f, const pn_tensor_info *info, pn_tensor *dst);

/* ---- metadata. PN_FORMAT, naming file and key: missing, another type, out of range ---- */

bool pn_gguf_has(const pn_gguf *f, const char *key);
/* Any integer type, within [lo, hi]. */
pn_status pn_gguf_int(const pn_gguf *f, const char *key, int64_t lo, int64_t hi, int64_t *out);
/* Any float or integer type; finite. A float32 gives the shortest decimal that names it: the 1e-5 that was meant, not
 * the 9.99999975e-06 that was stored. */
pn_status pn_gguf_number(const pn_gguf *f, const char *key, double *out);
pn_status pn_gguf_bool(const pn_gguf *f, const char *key, bool *out);
/* NUL-terminated, without NUL inside; borrowed. */
pn_status pn_gguf_string(const pn_gguf *f, const char *key, const char **out);
/* An array of strings: pointers into the file, not NUL-terminated, and their lengths. The caller frees both lists. */
pn_status pn_gguf_strings(const pn_gguf *f, const char *key, const char ***text, uint32_t **n_bytes, int64_t *n);
/* An array of any integer type whose values fit. The caller frees *out. */
pn_status pn_gguf_ints(const pn_gguf *f, const char *key, int32_t **out, int64_t *n);

#endif
