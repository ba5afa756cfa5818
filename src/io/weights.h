/* The weights of a model directory as one source of tensors by name, whatever files hold them. */
#ifndef PN_IO_WEIGHTS_H
#define PN_IO_WEIGHTS_H

#include "buffer.h"
#include "tensor_info.h"

typedef struct pn_weights pn_weights;

/* path: a directory with model.safetensors, or with model.safetensors.index.json and the shards it names; or one such
 * file itself. Every shard is opened and checked, and every name of the index looked up, before this returns. PN_IO: a
 * file is missing. PN_FORMAT: a file breaks its format; the index names a file outside its directory or a tensor its
 * file does not have. */
pn_status pn_weights_open(const char *path, pn_weights **out);
/* Accepts NULL, leaves NULL. */
void pn_weights_close(pn_weights **w);

/* Every tensor is known by what `name` appends for its name from now on: for files of another layout. PN_FORMAT when
 * that makes two tensors one. */
pn_status pn_weights_rename(pn_weights *w, void (*name)(const char *stored, pn_buf *out));

/* In the order of names. */
int64_t pn_weights_count(const pn_weights *w);
const pn_tensor_info *pn_weights_info(const pn_weights *w, int64_t i);
/* NULL: no such tensor. */
const pn_tensor_info *pn_weights_find(const pn_weights *w, const char *name);
/* As given to open: for messages. */
const char *pn_weights_path(const pn_weights *w);

/* Fills dst, converting to its dtype. PN_FORMAT: missing, or another shape. PN_UNSUPPORTED: a type postnas does not
 * read. */
pn_status pn_weights_read(const pn_weights *w, const char *name, pn_tensor *dst);

#endif
