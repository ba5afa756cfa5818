#ifndef PN_KERNELS_CUDA_FRESH_CUH
#define PN_KERNELS_CUDA_FRESH_CUH

#include "op_cuda.cuh"

/* Zeros in all gradients that hold nothing yet: for a backward that has nothing to add to them. */
static inline pn_status pn_cuda_zero_fresh(const pn_op_call *c) {
    for (int i = 0; i < c->n_in; i++)
        if (c->din[i] && !pn_op_adds(c, i)) PN_TRY(pn_tensor_fill_zero(c->din[i]));
    return PN_OK;
}

#endif
