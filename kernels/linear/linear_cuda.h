/* The three products of y = x W^T on the GPU, for ops that have it inside. x [rows, in], W [out, in] and y [rows, out]
 * are of one type, and so are dx and dy; dW is F32. in and out are at least 1. */
#ifndef PN_KERNELS_LINEAR_CUDA_H
#define PN_KERNELS_LINEAR_CUDA_H

#include "cuda/matmul_cuda.h"

typedef struct pn_linear_cuda {
    const char *name; /* the implementation's, for messages; a literal */
    pn_dtype type;    /* F32 or BF16 */
    int64_t rows, in, out;
    void *workspace; /* PN_MATMUL_WORKSPACE bytes of the GPU */
} pn_linear_cuda;

/* y = x W^T + bias; bias [out] is of y's type, NULL: none. */
pn_status pn_linear_cuda_y(const pn_linear_cuda *l, const void *x, const void *w, const void *bias, void *y);
/* dx = dy W, dW = dy^T x; add: added to what is there. */
pn_status pn_linear_cuda_dx(const pn_linear_cuda *l, const void *dy, const void *w, void *dx, bool add);
pn_status pn_linear_cuda_dw(const pn_linear_cuda *l, const void *dy, const void *x, float *dw, bool add);

#endif
