#ifndef PN_KERNELS_EMBEDDING_CUDA_CUH
#define PN_KERNELS_EMBEDDING_CUDA_CUH

#include "cuda/op_cuda.cuh"

/* *token: 0 .. N-1 (N >= 1) in the order of their ids, those of one id in their own order, on the GPU and valid as long
 * as scratch is. Ids outside 0 .. V-1 come last, in whatever order. name: the implementation's, for messages. */
enum { PN_SORT_MOST = 1 << 30 };
pn_status pn_cuda_sort_by_id(const char *name, const int32_t *ids, int64_t N, int64_t V, void *scratch,
                             const int32_t **token);
size_t pn_sort_scratch(int64_t N);

#endif
