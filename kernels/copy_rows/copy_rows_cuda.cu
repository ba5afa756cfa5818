#include "cuda/op_cuda.cuh"

extern "C" {
#include "copy_rows.h"
#include "cuda/staged_cuda.h"
}

namespace {

enum { THREADS = 128 };

/* A block copies pieces of one row. */
template <class PIECE>
__global__ void __launch_bounds__(THREADS)
    copy(PIECE *to, const int32_t *to_row, const PIECE *from, const int32_t *from_row, int64_t pieces) {
    PIECE *y = to + to_row[blockIdx.x] * pieces;
    const PIECE *x = from + (from_row ? from_row[blockIdx.x] : (int64_t)blockIdx.x) * pieces;
    for (int64_t i = threadIdx.x; i < pieces; i += THREADS) y[i] = x[i];
}

} // namespace

pn_status pn_cuda_copy_rows(void *to, const int64_t *to_row, const void *from, const int64_t *from_row, int64_t n,
                            size_t n_bytes) {
    const int32_t *y_row, *x_row = NULL;
    PN_TRY(pn_cuda_staged_integers(to_row, n, &y_row));
    if (from_row) PN_TRY(pn_cuda_staged_integers(from_row, n, &x_row));
    cudaStream_t stream = pn_cuda_stream();
    unsigned blocks = (unsigned)n; /* staged numbers fit 31 bits, so does a count of different rows */
    if (((uintptr_t)to | (uintptr_t)from | n_bytes) % sizeof(uint4) == 0)
        copy<<<blocks, THREADS, 0, stream>>>((uint4 *)to, y_row, (const uint4 *)from, x_row,
                                             (int64_t)(n_bytes / sizeof(uint4)));
    else
        copy<<<blocks, THREADS, 0, stream>>>((uint16_t *)to, y_row, (const uint16_t *)from, x_row,
                                             (int64_t)(n_bytes / sizeof(uint16_t)));
    return pn_cuda_launched("copy_rows/cuda");
}
