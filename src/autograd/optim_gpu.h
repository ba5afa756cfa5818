/* Inside AdamW: a step on the GPU, all slots in one launch. optim_cuda.cu, or optim_nocuda.c without nvcc, where nobody
 * has a tensor for it. */
#ifndef PN_AUTOGRAD_OPTIM_GPU_H
#define PN_AUTOGRAD_OPTIM_GPU_H

#include <stdbool.h>

#include "tensor.h"

typedef struct pn_adamw_gpu pn_adamw_gpu;

/* Addresses of the GPU, 16-byte aligned, n elements each. */
typedef struct pn_adamw_row {
    float *master, *grad, *moment[2];
    void *narrow; /* BF16: the rounding of the master; NULL: none */
    int64_t n;
    bool decay;
} pn_adamw_row;

typedef struct pn_adamw_rates {
    double clip; /* 0: none */
    float beta1, beta2, rate, root, epsilon;
    float shrink; /* of rows with decay */
} pn_adamw_rates;

/* pool: of the GPU, for the tables. Rows are copied. */
pn_status pn_adamw_gpu_create(pn_pool *pool, const pn_adamw_row *rows, int n, pn_adamw_gpu **out);
void pn_adamw_gpu_destroy(pn_adamw_gpu **g);
/* Norm, update, zero gradients; waits for the norm. Where it is not finite nothing was updated, and *row is the first
 * whose gradient is not, or -1 when each is but their sum is not. */
pn_status pn_adamw_gpu_step(pn_adamw_gpu *g, const pn_adamw_rates *rates, double *norm, int *row);
/* Narrow values from masters, or masters from narrow values. */
pn_status pn_adamw_gpu_copy(pn_adamw_gpu *g, bool to_masters);

#endif
