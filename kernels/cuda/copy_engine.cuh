/* Copies of pieces of a matrix into shared memory by Hopper's copy engine, and the barriers in shared memory that hear
 * of them. */
#ifndef PN_KERNELS_CUDA_COPY_ENGINE_CUH
#define PN_KERNELS_CUDA_COPY_ENGINE_CUH

#include <cstdint>

#include <cuda.h>

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

static __device__ __forceinline__ void pn_arrivals_make(uint32_t barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
/* After all of them were made, by who made them, before the barrier of the block that lets others use them. */
static __device__ __forceinline__ void pn_arrivals_made() {
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
}
static __device__ __forceinline__ void pn_arrivals_wait(uint32_t barrier, uint32_t parity) {
    uint32_t done;
    do {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    } while (!done);
}
/* Arrives, and lets the phase end only after so many bytes have come. */
static __device__ __forceinline__ void pn_arrivals_expect(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/* Starts a copy of the piece at (column, row) of a tensor map (tensor_map_cuda.h), of which `barrier` hears. */
static __device__ __forceinline__ void pn_arrivals_copy(uint32_t to, const CUtensorMap *map, int column, int row,
                                                        uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
                 "[%4];" ::"r"(to),
                 "l"(map), "r"(column), "r"(row), "r"(barrier)
                 : "memory");
}

#endif

#endif
