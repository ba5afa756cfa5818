/* Blocks that share their inputs (compute capability 9.0): barriers in shared memory that a block, its neighbours in a
 * cluster and the copy engine arrive at, and copies of the engine into several blocks at once. */
#ifndef PN_KERNELS_CUDA_CLUSTER_CUH
#define PN_KERNELS_CUDA_CLUSTER_CUH

#include <cstdint>
#include <cuda.h>

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

static __device__ __forceinline__ void pn_barrier_make(uint32_t barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
static __device__ __forceinline__ void pn_barrier_wait(uint32_t barrier, uint32_t parity) {
    uint32_t done;
    do {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    } while (!done);
}
/* Arrives, and lets the phase end only after so many bytes have come. */
static __device__ __forceinline__ void pn_barrier_expect(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/* At the same barrier of block `rank` of the cluster. It orders nothing that this thread wrote: what the tensor cores
 * read is only overwritten. */
static __device__ __forceinline__ void pn_barrier_arrive(uint32_t barrier, uint32_t rank) {
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier),
                 "r"(rank)
                 : "memory");
}
static __device__ __forceinline__ uint32_t pn_cluster_rank() {
    uint32_t x;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(x));
    return x;
}
/* What any thread of the cluster did before is there for all of it after. */
static __device__ __forceinline__ void pn_cluster_meet() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/* A place in a ring of stages, each with a barrier that hears of its copies and one that hears when it is free: whoever
 * fills it waits for the other parity. */
template <int STAGES> struct pn_ring {
    int stage = 0;
    uint32_t parity = 0;
    __device__ __forceinline__ void next() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

/* Starts a copy of the piece at (column, row) of a tensor map into all blocks of the cluster that the mask names, to
 * the same place in each; the barrier of each hears of its own. One block: this one. */
static __device__ __forceinline__ void pn_copy_piece(uint32_t to, const CUtensorMap *map, int column, int row,
                                                     uint32_t barrier, uint32_t mask) {
    if ((mask & (mask - 1)) == 0)
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}],"
                     " [%4];" ::"r"(to),
                     "l"(map), "r"(column), "r"(row), "r"(barrier)
                     : "memory");
    else
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                     "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
                     "l"(map), "r"(column), "r"(row), "r"(barrier), "h"((uint16_t)mask)
                     : "memory");
}

/* The same of the box at a place of a view (tensor_map_cuda.h), the first dimension first. */
static __device__ __forceinline__ void pn_copy_box(uint32_t to, const CUtensorMap *map, int a, int b, int c, int d,
                                                   uint32_t barrier, uint32_t mask) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0],"
                 " [%1, {%2, %3, %4, %5}], [%6], %7;" ::"r"(to),
                 "l"(map), "r"(a), "r"(b), "r"(c), "r"(d), "r"(barrier), "h"((uint16_t)mask)
                 : "memory");
}

#endif

#endif
