/* Rows of one matrix to rows of another, wherever the two are: what a key/value cache does. Not an op: nothing is
 * recorded, and `to` changes in place.
 *
 * to, from: the same type and width, both on the host or both on the GPU; no overlap. Row to_row[i] becomes row
 * from_row[i] (NULL: row i), 0 <= i < n; the rows named in to_row differ. Of planned tensors nothing is copied. */
#ifndef PN_KERNELS_COPY_ROWS_H
#define PN_KERNELS_COPY_ROWS_H

#include "tensor.h"

pn_status pn_tensor_copy_rows(pn_tensor *to, const int64_t *to_row, const pn_tensor *from, const int64_t *from_row,
                              int64_t n);

/* For pn_tensor_copy_rows: rows of n_bytes each, data on the GPU, row numbers on the host. */
pn_status pn_cuda_copy_rows(void *to, const int64_t *to_row, const void *from, const int64_t *from_row, int64_t n,
                            size_t n_bytes);

#endif
