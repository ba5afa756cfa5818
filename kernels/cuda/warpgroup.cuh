/* Products of a whole warpgroup (wgmma, compute capability 9.0a): y[64, N] += a[64, 16] b[16, N].
 *
 * Warp w of the four has rows 16 w .. of a and y, in the fragments of tensor_core.cuh. b is read from shared memory by
 * the tensor cores themselves, once for all four warps: from 8 x 8 matrices of 128 contiguous bytes, or from a pn_tile.
 * The N columns of b are rows there, or if Turned, its 16 rows are.
 *
 *     pn_warpgroup_begin();             the registers that follow are read and written in the background:
 *     pn_warpgroup<N>::add<Turned>(..)  any number of them, into any accumulators
 *     pn_warpgroup_end(y, blocks);      y [blocks][4] is there; for every other accumulator, pn_warpgroup_keep()
 *
 * Shared memory that ordinary stores or cp.async wrote needs pn_warpgroup_see() in each of their threads before the
 * barrier after which it is read here. */
#ifndef PN_KERNELS_CUDA_WARPGROUP_CUH
#define PN_KERNELS_CUDA_WARPGROUP_CUH

#include <cstdint>

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
enum { PN_HAVE_WARPGROUP = 1 };

static __device__ __forceinline__ void pn_warpgroup_see() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
static __device__ __forceinline__ void pn_warpgroup_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
/* Nothing is done with y before this. */
static __device__ __forceinline__ void pn_warpgroup_keep(float (*y)[4], int blocks) {
#pragma unroll
    for (int i = 0; i < blocks; i++)
        asm volatile("" : "+f"(y[i][0]), "+f"(y[i][1]), "+f"(y[i][2]), "+f"(y[i][3])::"memory");
}
static __device__ __forceinline__ void pn_warpgroup_end(float (*y)[4], int blocks) {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    pn_warpgroup_keep(y, blocks);
}

/* Where b is. Adding a number of bytes / 16 moves it. */
static __device__ __forceinline__ uint64_t pn_operand(uint32_t at, uint32_t leading, uint32_t stride,
                                                      uint64_t swizzle) {
    return (uint64_t)((at & 0x3ffff) >> 4) | (uint64_t)(leading >> 4) << 16 | (uint64_t)(stride >> 4) << 32 |
           swizzle << 62;
}
/* 8 x 8 matrices: bytes from one to the next along the 16 rows of b, and along its N columns. */
static __device__ __forceinline__ uint64_t pn_operand_of_matrices(uint32_t at, uint32_t along_rows,
                                                                  uint32_t along_columns) {
    return pn_operand(at, along_rows, along_columns, 0);
}
/* A pn_tile, in either orientation. */
static __device__ __forceinline__ uint64_t pn_operand_of_tile(uint32_t at) {
    return pn_operand(at, 64 * 64, 8 * 64, 2);
}

/* clang-format off */
#define PN_Y(i) "+f"(y[i][0]), "+f"(y[i][1]), "+f"(y[i][2]), "+f"(y[i][3])
#define PN_Y2(i) PN_Y(i), PN_Y(i + 1)
#define PN_Y4(i) PN_Y2(i), PN_Y2(i + 2)
#define PN_Y8(i) PN_Y4(i), PN_Y4(i + 4)
#define PN_Y16(i) PN_Y8(i), PN_Y8(i + 8)
#define PN_R0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define PN_R1 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PN_R2 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define PN_R3 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define PN_R4 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define PN_R5 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define PN_R6 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define PN_R7 "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

template <int N> struct pn_warpgroup;
#define PN_WARPGROUP(N, RESULT, LEFT, RIGHT, TURNED, ...)                                                          \
    template <> struct pn_warpgroup<N> {                                                                           \
        template <bool Turned>                                                                                     \
        static __device__ __forceinline__ void add(float (*y)[4], const uint32_t a[4], uint64_t b) {               \
            asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" RESULT "}, {" LEFT "}, "     \
                         RIGHT ", 1, 1, 1, " TURNED ";"                                                            \
                         : __VA_ARGS__                                                                             \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(Turned));                       \
        }                                                                                                          \
    };
PN_WARPGROUP(16, "%0, %1, %2, %3, %4, %5, %6, %7", "%8, %9, %10, %11", "%12", "%13", PN_Y2(0))
PN_WARPGROUP(32, PN_R0, "%16, %17, %18, %19", "%20", "%21", PN_Y4(0))
PN_WARPGROUP(48, PN_R0 ", " "%16, %17, %18, %19, %20, %21, %22, %23", "%24, %25, %26, %27", "%28", "%29", PN_Y4(0), PN_Y2(4))
PN_WARPGROUP(64, PN_R0 ", " PN_R1, "%32, %33, %34, %35", "%36", "%37", PN_Y8(0))
PN_WARPGROUP(96, PN_R0 ", " PN_R1 ", " PN_R2, "%48, %49, %50, %51", "%52", "%53", PN_Y8(0), PN_Y4(8))
PN_WARPGROUP(128, PN_R0 ", " PN_R1 ", " PN_R2 ", " PN_R3, "%64, %65, %66, %67", "%68", "%69", PN_Y16(0))
PN_WARPGROUP(192, PN_R0 ", " PN_R1 ", " PN_R2 ", " PN_R3 ", " PN_R4 ", " PN_R5, "%96, %97, %98, %99", "%100", "%101", PN_Y16(0), PN_Y8(16))
PN_WARPGROUP(256, PN_R0 ", " PN_R1 ", " PN_R2 ", " PN_R3 ", " PN_R4 ", " PN_R5 ", " PN_R6 ", " PN_R7, "%128, %129, %130, %131", "%132", "%133", PN_Y16(0), PN_Y16(16))
#undef PN_WARPGROUP
#undef PN_Y
#undef PN_Y2
#undef PN_Y4
#undef PN_Y8
#undef PN_Y16
#undef PN_R0
#undef PN_R1
#undef PN_R2
#undef PN_R3
#undef PN_R4
#undef PN_R5
#undef PN_R6
#undef PN_R7
/* clang-format on */
#else
enum { PN_HAVE_WARPGROUP = 0 };
#endif

#endif
