/* Inside AdamW: a step on the GPU, all slots in one launch. optim_cuda.cu, or optim_nocuda.c without nvcc, where nobody
 * has a tensor for it. */
#ifndef PN_AUTOGRAD_OPTIM_GPU_H
#define PN_AUTOGRAD_OPTIM_GPU_H

#include <stdbool.h>

#include "tensor.h"

typedef struct pn_adamw_gpu pn_adamw_gpu;

/* Addresses of the GPU, 16-byte aligned, n elements each. */
typedef struct pn_adamw_row {
    void *value;   /* F32, or the upper halves of the masters (master.h), BF16 */
    uint16_t *low; /* their lower halves; NULL: the value is F32 */
    float *moment[2];
    const float *grad; /* NULL: zeros */
    int64_t n;
    bool decay;
} pn_adamw_row;

typedef struct pn_adamw_rates {
    double clip; /* 0: none */
    float beta1, beta2, rate, root, epsilon;
    float shrink; /* of rows with decay */
} pn_adamw_rates;

/* What ranks add up before a step: sums of squares, and how many found something that forbids it. */
enum { PN_ADAMW_SQUARES, PN_ADAMW_FAULTS, PN_ADAMW_SHARED };
/* What a step finds. */
enum { PN_ADAMW_NORM, PN_ADAMW_MADE, PN_ADAMW_FOUND };

/* pool: of the GPU, for the tables. Rows are copied. */
pn_status pn_adamw_gpu_create(pn_pool *pool, const pn_adamw_row *rows, int n, pn_adamw_gpu **out);
void pn_adamw_gpu_destroy(pn_adamw_gpu **g);
/* Where the gradient of a row is, from the next step on. */
void pn_adamw_gpu_gradient(pn_adamw_gpu *g, int row, const float *grad);
/* A step is asked for in two parts. First what shared() is to hold, F64 [PN_ADAMW_SHARED]: the squares of the
 * gradients, and a fault where the loss (an address of the GPU, NULL: none) is not finite or an input was outside its
 * contract. */
pn_status pn_adamw_gpu_norm(pn_adamw_gpu *g, const float *loss);
pn_tensor *pn_adamw_gpu_shared(pn_adamw_gpu *g); /* borrowed */
/* Then the update from what it holds by then: none where that is no finite norm without a fault. */
pn_status pn_adamw_gpu_step(pn_adamw_gpu *g, const pn_adamw_rates *rates);
/* F64 [PN_ADAMW_FOUND] of the last step: the norm before clipping, and 0 where nothing was updated. Borrowed. */
const pn_tensor *pn_adamw_gpu_found(const pn_adamw_gpu *g);
/* The first row whose gradient was not finite in the last step, -1: none. Waits for the GPU. */
pn_status pn_adamw_gpu_row(const pn_adamw_gpu *g, int *row);

#endif
