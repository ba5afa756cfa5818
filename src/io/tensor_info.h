/* One tensor of a weight file, as its header describes it: shared by the readers of every format. */
#ifndef PN_IO_TENSOR_INFO_H
#define PN_IO_TENSOR_INFO_H

#include "tensor.h"

enum { PN_FILE_MAX_RANK = 8 };

typedef struct pn_tensor_info {
    const char *name; /* borrowed from the open file, like everything here */
    const char *type; /* as the format writes it: "BF16", "Q4_1" */
    pn_dtype dtype;   /* PN_DTYPES when it is none of ours (quantised, 8-bit float ...) */
    int rank;
    int64_t shape[PN_FILE_MAX_RANK]; /* row-major: the last dimension is contiguous, whatever order the file uses */
    int64_t n_elems;
    const void *data; /* into the mapped file; not necessarily aligned */
    size_t n_bytes;
} pn_tensor_info;

/* "[4096, 576]" in one of a few rotating per-thread buffers: for messages. */
const char *pn_tensor_info_shape_text(const pn_tensor_info *info);
/* PN_FORMAT, naming file, tensor and both shapes, unless dst has the shape of the file's tensor. */
pn_status pn_tensor_info_expect(const char *path, const pn_tensor_info *info, const pn_tensor *dst);
/* pn_convert for a source of any alignment. */
void pn_convert_unaligned(void *dst, pn_dtype dst_type, const void *src, pn_dtype src_type, int64_t n);

#endif
