/* One-instruction wrappers: asynchronous copies into shared memory, matrix loads from it, tensor-core products.
 *
 * Fragments, for lane l of a warp with g = l / 4 and t = l % 4 (PTX ISA, mma.m16n8k16 and m16n8k8):
 *   accumulator 16 x 8   c[0], c[1] = (g, 2t), (g, 2t + 1)       c[2], c[3] = (g + 8, 2t), (g + 8, 2t + 1)
 *   A 16 x 16 bf16       a[0] = (g, 2t ..)  a[1] = (g + 8, 2t ..)  a[2] = (g, 2t + 8 ..)  a[3] = (g + 8, 2t + 8 ..)
 *   B 16 x 8 bf16        b0 = (2t .., g)  b1 = (2t + 8 .., g)
 *   A 16 x 8 tf32        a[0] = (g, t)  a[1] = (g + 8, t)  a[2] = (g, t + 4)  a[3] = (g + 8, t + 4)
 *   B 8 x 8 tf32         b0 = (t, g)  b1 = (t + 4, g)
 * so two neighbouring accumulators, packed, are an A fragment: a product's result is the next product's left operand
 * without leaving its registers. */
#ifndef PN_KERNELS_CUDA_TENSOR_CORE_CUH
#define PN_KERNELS_CUDA_TENSOR_CORE_CUH

#include <cstdint>

static __device__ __forceinline__ uint32_t pn_shared(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}
static __device__ __forceinline__ float pn_shared_float(uint32_t at) {
    float x;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(at) : "memory");
    return x;
}
static __device__ __forceinline__ float2 pn_shared_pair(uint32_t at) {
    float2 x;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(at) : "memory");
    return x;
}
static __device__ __forceinline__ uint4 pn_shared_piece(uint32_t at) {
    uint4 x;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "r"(at)
                 : "memory");
    return x;
}

/* 16 bytes from global to shared memory in the background, past the first-level cache; zeros unless `there`. */
static __device__ __forceinline__ void pn_copy16(uint32_t to, const void *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
static __device__ __forceinline__ void pn_copies_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Until at most `Pending` of the newest groups of this thread are under way. */
template <int Pending> static __device__ __forceinline__ void pn_copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

/* Four 8 x 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8. */
static __device__ __forceinline__ void pn_load4(uint32_t x[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at)
                 : "memory");
}
static __device__ __forceinline__ void pn_load4_transposed(uint32_t x[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at)
                 : "memory");
}
/* The transpose of one 8 x 8 matrix of 16-bit elements held by the warp. */
static __device__ __forceinline__ uint32_t pn_transpose(uint32_t x) {
    uint32_t y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}
/* The transposes of four such matrices to shared memory; lane l gives the address of row l % 8 of transpose l / 8. */
static __device__ __forceinline__ void pn_store4_transposed(uint32_t at, const uint32_t x[4]) {
#if __CUDA_ARCH__ >= 900
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(x[0]),
                 "r"(x[1]), "r"(x[2]), "r"(x[3])
                 : "memory");
#else
    uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t row = __shfl_sync(~0u, at, (int)(8 * i + lane / 4));
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(row + 4 * (lane % 4)), "r"(pn_transpose(x[i])) : "memory");
    }
#endif
}

static __device__ __forceinline__ void pn_mma_bf16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
static __device__ __forceinline__ void pn_mma_tf32(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Rounded to nearest. */
static __device__ __forceinline__ uint32_t pn_tf32(float x) {
    uint32_t y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}
/* Two floats as bf16, rounded to nearest even; `first` in the lower half, which is the lower address. */
static __device__ __forceinline__ uint32_t pn_bf16_pair(float first, float second) {
    uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(second), "f"(first));
    return y;
}
static __device__ __forceinline__ float pn_bf16_first(uint32_t pair) {
    return __uint_as_float(pair << 16);
}
static __device__ __forceinline__ float pn_bf16_second(uint32_t pair) {
    return __uint_as_float(pair & 0xffff0000u);
}
/* The A fragment that two neighbouring accumulators are. */
static __device__ __forceinline__ void pn_left_operand(uint32_t a[4], const float left[4], const float right[4]) {
    a[0] = pn_bf16_pair(left[0], left[1]);
    a[1] = pn_bf16_pair(left[2], left[3]);
    a[2] = pn_bf16_pair(right[0], right[1]);
    a[3] = pn_bf16_pair(right[2], right[3]);
}

/* A tile [64, Columns] of bf16 in shared memory, from a multiple of 512 bytes on: strips of 32 columns, rows of 64
 * bytes in them, whose four pieces of 16 bytes are turned about by the row (the 64-byte swizzle of wgmma and the copy
 * engine). Four neighbouring threads write a row of a strip, or a warp eight rows of one piece, and meet every bank
 * once. */
template <int Columns> struct pn_tile {
    static_assert(Columns % 32 == 0, "whole strips");
    static constexpr int pieces = Columns / 8, row_bytes = 64, strip_bytes = 64 * row_bytes;
    static constexpr int bytes = Columns / 32 * strip_bytes;
    static __device__ __forceinline__ int turn(int row) { return row / 2 % 4; }
    static __device__ __forceinline__ int at(int row, int piece) {
        return piece / 4 * strip_bytes + row * row_bytes + (piece % 4 ^ turn(row)) * 16;
    }
};

/* Starts copying a tile by `Threads` threads, this one number `id`: n >= 1 rows of `from`, `ld` elements apart, of
 * which the first `columns` exist; zeros elsewhere. */
template <int Columns, int Threads>
static __device__ __forceinline__ void pn_copy_tile(uint32_t tile, const uint16_t *from, int64_t ld, int n, int columns,
                                                    int id) {
    typedef pn_tile<Columns> to;
    constexpr int rows = Threads / 4;
    const int row = id / 4, piece = id % 4;
    tile += (uint32_t)to::at(row, piece);
#pragma unroll
    for (int r = 0; r < 64; r += rows) {
        const bool there = row + r < n;
        const uint16_t *line = from + (there ? row + r : 0) * ld;
#pragma unroll
        for (int p = 0; p < to::pieces; p += 4) {
            const bool in = 8 * (piece + p) < columns;
            pn_copy16(tile + (uint32_t)(r * to::row_bytes + p / 4 * to::strip_bytes), line + (in ? 8 * (piece + p) : 0),
                      there && in);
        }
    }
}

#endif
