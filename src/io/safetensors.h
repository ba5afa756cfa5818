/* Safetensors files: u64 header length (little-endian), a JSON header, tensor data.
 *
 *     {"__metadata__": {"format": "pt"}, "model.norm.weight": {"dtype": "BF16", "shape": [64], "data_offsets": [0,
 * 128]}}
 *
 * Offsets count from the end of the header; tensors tile the data without gap or overlap. The reader maps the file and
 * checks all of it on opening, so that a tensor_info can be trusted. A dtype that postnas does not have is no error
 * until that tensor is read. */
#ifndef PN_IO_SAFETENSORS_H
#define PN_IO_SAFETENSORS_H

#include "tensor_info.h"

/* Of the header, in bytes: what the format's reference reader accepts. */
enum { PN_SAFETENSORS_MAX_HEADER = 100 * 1000 * 1000 };

typedef struct pn_safetensors pn_safetensors;

/* PN_IO: cannot be opened. PN_FORMAT: any rule of the format is broken; the message names file and tensor. */
pn_status pn_safetensors_open(const char *path, pn_safetensors **out);
/* The same from memory, borrowed until the reader is closed; `name` stands for the file in messages. */
pn_status pn_safetensors_parse(const char *name, const void *data, size_t n_bytes, pn_safetensors **out);
void pn_safetensors_close(pn_safetensors **f);

/* Tensors in the order of their data. */
int64_t pn_safetensors_count(const pn_safetensors *f);
const pn_tensor_info *pn_safetensors_info(const pn_safetensors *f, int64_t i);
/* NULL: no such tensor. */
const pn_tensor_info *pn_safetensors_find(const pn_safetensors *f, const char *name);
/* A value of __metadata__; NULL: no such key. Borrowed. */
const char *pn_safetensors_metadata(const pn_safetensors *f, const char *key);
const char *pn_safetensors_path(const pn_safetensors *f);

/* Fills dst, converting to its dtype. PN_FORMAT: missing, or another shape. PN_UNSUPPORTED: a dtype or rank that
 * postnas does not have. */
pn_status pn_safetensors_read(const pn_safetensors *f, const char *name, pn_tensor *dst);
/* The same for an info of this file. */
pn_status pn_safetensors_read_info(const pn_safetensors *f, const pn_tensor_info *info, pn_tensor *dst);

/* The format's name of a dtype: "BF16". */
const char *pn_safetensors_dtype_name(pn_dtype t);

#endif
