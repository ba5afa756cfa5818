/* How the copy engine of Hopper finds pieces of a matrix (CUtensorMap). */
#ifndef PN_KERNELS_CUDA_TENSOR_MAP_CUDA_H
#define PN_KERNELS_CUDA_TENSOR_MAP_CUDA_H

#include <cuda.h>
#include <stdbool.h>
#include <stdint.h>

#include "status.h"

/* Pieces of box_rows x 64 of a row-major BF16 matrix [rows, cols] with tight rows, 16-byte aligned and cols a multiple
 * of 8; zeros outside it. In shared memory rows of 128 bytes, from a multiple of 1024 bytes on, with the 128-byte
 * swizzle. name: the implementation's, for messages. PN_DEVICE: the driver refuses. */
pn_status pn_tensor_map(const char *name, const void *matrix, int64_t rows, int64_t cols, int box_rows,
                        CUtensorMap *out);

typedef struct pn_tensor_pieces {
    int64_t rows, cols, row; /* row: elements from one row to the next, a multiple of 8; 0: they are tight */
    int box_rows, box_cols;  /* box_cols: 64, or 32 with the swizzle of rows of 64 bytes, else a multiple of 8 */
    bool plain;              /* in shared memory rows follow each other as they are, from a multiple of 128 bytes on */
} pn_tensor_pieces;

/* The same of any matrix and pieces. */
pn_status pn_tensor_map_of(const char *name, const void *matrix, const pn_tensor_pieces *p, CUtensorMap *out);

/* Of a view with four dimensions, elements of the first of which are neighbours: how many there are of each, how many
 * elements (a multiple of 8) lie from one to the next, and how many of each are copied at once, 64 of the first. */
typedef struct pn_tensor_view {
    int64_t size[4], step[4];
    int box[4];
} pn_tensor_view;

/* A box has the first dimension innermost in shared memory, with the 128-byte swizzle as above. */
pn_status pn_tensor_map_of_view(const char *name, const void *first, const pn_tensor_view *v, CUtensorMap *out);

#endif
