/* What kernels say of inputs that the contract forbids (device_cuda.h: pn_cuda_bad). One thread per bad input calls. */
#ifndef PN_KERNELS_CUDA_INPUTS_CUH
#define PN_KERNELS_CUDA_INPUTS_CUH

#include "op_cuda.cuh"

/* what: a literal of the host, which is passed on and not read here. */
__device__ static inline void pn_report_id(pn_cuda_bad *bad, const char *what, int32_t id, int64_t at, int64_t low,
                                           int64_t end) {
    if (atomicCAS(&bad->taken, 0, 1) != 0) return;
    bad->weight = false;
    bad->value = id;
    bad->at = at;
    bad->low = low;
    bad->end = end;
    bad->what = what;
}

__device__ static inline void pn_report_weight(pn_cuda_bad *bad, const char *op, float weight, int64_t at) {
    if (atomicCAS(&bad->taken, 0, 1) != 0) return;
    bad->weight = true;
    bad->value = weight;
    bad->at = at;
    bad->what = op;
}

#endif
