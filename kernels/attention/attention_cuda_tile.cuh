/* Tiles of rows in shared memory, and the two products that attention is made of, on them.
 *
 * A warp owns 16 rows of a result and holds it in the accumulator fragments of tensor_core.cuh: y[b] is columns 8 b ..
 * of them. BF16 goes through tensor cores. F32 goes through fused multiply-adds in the same fragments, so that what is
 * between the products (masks, softmax, gradients of scores) is one source for both. */
#ifndef PN_KERNELS_ATTENTION_CUDA_TILE_CUH
#define PN_KERNELS_ATTENTION_CUDA_TILE_CUH

#include "attention_cuda.cuh"
#include "cuda/tensor_core.cuh"

/* Sizes for heads of up to D channels. A result has COLUMNS channels: where heads are wider, blocks share them. STREAM:
 * rows that pass by at a time. */
template <class T, int D> struct pn_attention_tile {
    static constexpr int COLUMNS = D < 128 ? D : 128, PARTS = D / COLUMNS;
    static constexpr int WARPS = sizeof(T) == 4 && D > 128 ? 2 : 4, ROWS = 16 * WARPS, THREADS = 32 * WARPS;
    static constexpr int STREAM = (sizeof(T) == 4 ? 32 : 64) / (D > 128 ? 2 : 1);
};

/* A row's length in memory: 16 bytes more than a multiple of all banks, so that eight rows' pieces meet every bank. */
template <class T, int WIDTH> constexpr int PN_ATTENTION_STRIDE = WIDTH + 16 / (int)sizeof(T);

/* pn_attention_tile::WARPS, for the host. */
static inline int pn_attention_warps(pn_dtype type, int d) {
    return type == PN_F32 && d > 128 ? 2 : 4;
}

/* Starts copying ROWS rows of WIDTH channels of `base` by all THREADS of the block; zeros where row(i) is NULL and from
 * channel `width` on. whole: every row is a multiple of 16 bytes, from such an address; then pn_copies_wait() tells
 * when they are there. */
template <int ROWS, int WIDTH, int THREADS, class T, class F>
__device__ static inline void pn_attention_rows(T *to, const T *base, int width, bool whole, F row) {
    constexpr int each = 16 / sizeof(T), pieces = WIDTH / each, stride = PN_ATTENTION_STRIDE<T, WIDTH>;
    for (int i = threadIdx.x; i < ROWS * pieces; i += THREADS) {
        int r = i / pieces, at = i % pieces * each;
        const T *from = row(r);
        T *piece = to + r * stride + at;
        bool there = from && at < width;
        if (whole)
            pn_copy16(pn_shared(piece), there ? from + at : base, there);
        else
            for (int k = 0; k < each; k++) piece[k] = there && at + k < width ? from[at + k] : T(0.0f);
    }
}

template <class T> struct pn_attention_products;

template <> struct pn_attention_products<pn_bf16> {
    /* y[16, 8 BLOCKS] += a[16, DEPTH] b[8 BLOCKS, DEPTH]^T */
    template <int DEPTH, int BLOCKS>
    __device__ static inline void by_rows(float (&y)[BLOCKS][4], const pn_bf16 *a, const pn_bf16 *b) {
        constexpr int stride = PN_ATTENTION_STRIDE<pn_bf16, DEPTH>;
        int lane = threadIdx.x % 32;
        uint32_t at_a = pn_shared(a + lane % 16 * stride + lane / 16 * 8);
        uint32_t at_b = pn_shared(b + (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 8);
#pragma unroll
        for (int k = 0; k < DEPTH; k += 16) {
            uint32_t x[4];
            pn_load4(x, at_a + 2 * k);
#pragma unroll
            for (int n = 0; n < BLOCKS; n += 2) {
                uint32_t z[4];
                pn_load4(z, at_b + 2 * (8 * n * stride + k));
                pn_mma_bf16(y[n], x, z[0], z[1]);
                pn_mma_bf16(y[n + 1], x, z[2], z[3]);
            }
        }
    }
    /* y[16, 8 BLOCKS] += p[16, 8 STEPS] b[8 STEPS, ..], rows of b STRIDE apart. strip: unused here. */
    template <int STRIDE, int BLOCKS, int STEPS>
    __device__ static inline void by_columns(float (&y)[BLOCKS][4], const float (&p)[STEPS][4], const pn_bf16 *b,
                                             float *strip) {
        (void)strip;
        int lane = threadIdx.x % 32;
        uint32_t at = pn_shared(b + lane % 16 * STRIDE + lane / 16 * 8);
#pragma unroll
        for (int s = 0; s < STEPS; s += 2) {
            uint32_t x[4];
            pn_left_operand(x, p[s], p[s + 1]);
#pragma unroll
            for (int n = 0; n < BLOCKS; n += 2) {
                uint32_t z[4];
                pn_load4_transposed(z, at + 2 * (8 * s * STRIDE + 8 * n));
                pn_mma_bf16(y[n], x, z[0], z[1]);
                pn_mma_bf16(y[n + 1], x, z[2], z[3]);
            }
        }
    }
};

template <> struct pn_attention_products<float> {
    __device__ static inline float dot(float sum, float4 a, float4 b) {
        return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
    }
    template <int DEPTH, int BLOCKS>
    __device__ static inline void by_rows(float (&y)[BLOCKS][4], const float *a, const float *b) {
        constexpr int stride = PN_ATTENTION_STRIDE<float, DEPTH>;
        int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        const float *above = a + g * stride, *below = above + 8 * stride, *left = b + 2 * t * stride;
#pragma unroll 4
        for (int k = 0; k < DEPTH; k += 4) {
            float4 x0 = *(const float4 *)(above + k), x1 = *(const float4 *)(below + k);
#pragma unroll
            for (int n = 0; n < BLOCKS; n++) {
                float4 z0 = *(const float4 *)(left + 8 * n * stride + k);
                float4 z1 = *(const float4 *)(left + (8 * n + 1) * stride + k);
                y[n][0] = dot(y[n][0], x0, z0);
                y[n][1] = dot(y[n][1], x0, z1);
                y[n][2] = dot(y[n][2], x1, z0);
                y[n][3] = dot(y[n][3], x1, z1);
            }
        }
    }
    /* strip: 16 x strip_stride floats of this warp, through which lanes see each other's p. */
    template <int STRIDE, int BLOCKS, int STEPS>
    __device__ static inline void by_columns(float (&y)[BLOCKS][4], const float (&p)[STEPS][4], const float *b,
                                             float *strip) {
        constexpr int stride = 8 * STEPS + 4;
        int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            *(float2 *)(strip + g * stride + 8 * s + 2 * t) = make_float2(p[s][0], p[s][1]);
            *(float2 *)(strip + (g + 8) * stride + 8 * s + 2 * t) = make_float2(p[s][2], p[s][3]);
        }
        __syncwarp();
#pragma unroll 4
        for (int k = 0; k < 8 * STEPS; k++) {
            float x0 = strip[g * stride + k], x1 = strip[(g + 8) * stride + k];
#pragma unroll
            for (int n = 0; n < BLOCKS; n++) {
                float2 z = *(const float2 *)(b + k * STRIDE + 8 * n + 2 * t);
                y[n][0] = fmaf(x0, z.x, y[n][0]);
                y[n][1] = fmaf(x0, z.y, y[n][1]);
                y[n][2] = fmaf(x1, z.x, y[n][2]);
                y[n][3] = fmaf(x1, z.y, y[n][3]);
            }
        }
        __syncwarp(); /* the next call writes the strip */
    }
};

/* Floats of the strips of WARPS warps. */
template <class T, int STREAM> constexpr int pn_attention_strip(int warps) {
    return sizeof(T) == 4 ? warps * 16 * (STREAM + 4) : 0;
}

/* Two neighbouring channels of a row, from `at` on, those before `width`; added to what is there with `add`. */
template <class T>
__device__ static inline void pn_attention_put(bool add, T *row, int at, int width, float first, float second) {
    if (at < width) pn_store(row + at, add ? __fadd_rn(pn_load(row + at), first) : first);
    if (at + 1 < width) pn_store(row + at + 1, add ? __fadd_rn(pn_load(row + at + 1), second) : second);
}

/* A kernel may use this much shared memory: asked for where it is more than every GPU gives. */
static inline pn_status pn_attention_allow(const void *kernel, size_t bytes) {
    if (bytes <= 48 << 10) return PN_OK;
    return pn_cuda_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                          "asking for shared memory for attention");
}

/* f(integral constant D) for the narrowest tile of heads of d channels. */
template <int D> struct pn_attention_width { static constexpr int value = D; };
template <class F> pn_status pn_attention_for_width(int d, F f) {
    return d <= 32    ? f(pn_attention_width<32>())
           : d <= 64  ? f(pn_attention_width<64>())
           : d <= 128 ? f(pn_attention_width<128>())
                      : f(pn_attention_width<256>());
}

/* Whether rows of every operand are whole pieces of 16 bytes. */
template <class... P> bool pn_attention_whole(size_t row_bytes, P... operand) {
    uintptr_t bits = row_bytes;
    ((bits |= (uintptr_t)operand), ...);
    return bits % 16 == 0;
}

#endif
