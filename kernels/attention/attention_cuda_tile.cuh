/* Tiles of rows in shared memory, and the two products that attention is made of, on them.
 *
 * A warp owns 16 rows of a result and holds it in the accumulator fragments of tensor_core.cuh: y[b] is columns 8 b ..
 * of them. BF16 goes through tensor cores, four warps at a time where the GPU can (warpgroup.cuh). F32 goes through
 * fused multiply-adds in the same fragments, so that what is between the products (masks, softmax, gradients of scores)
 * is one source for both. */
#ifndef PN_KERNELS_ATTENTION_CUDA_TILE_CUH
#define PN_KERNELS_ATTENTION_CUDA_TILE_CUH

#include "attention_cuda.cuh"
#include "cuda/tensor_core.cuh"
#include "cuda/warpgroup.cuh"

/* Sizes for heads of up to D channels. A result has COLUMNS channels: where heads are wider, blocks share them. STREAM:
 * rows that pass by at a time. */
template <class T, int D> struct pn_attention_sizes {
    static constexpr int COLUMNS = D < 128 ? D : 128, PARTS = D / COLUMNS;
    static constexpr int WARPS = sizeof(T) == 4 && D > 128 ? 2 : 4, ROWS = 16 * WARPS, THREADS = 32 * WARPS;
    static constexpr int STREAM = sizeof(T) == 2 ? 64 : D > 128 ? 16 : 32;
};

/* pn_attention_sizes::WARPS, for the host. */
static inline int pn_attention_warps(pn_dtype type, int d) {
    return type == PN_F32 && d > 128 ? 2 : 4;
}

/* Where a tile [ROWS, WIDTH] has its elements: `column` is the first of a piece of 16 bytes. `period` rows on, the same
 * order of pieces comes again, period * stride elements further. */
template <class T, int ROWS, int WIDTH> struct pn_attention_tile;
template <int ROWS, int WIDTH> struct pn_attention_tile<float, ROWS, WIDTH> {
    static constexpr int stride = WIDTH + 4; /* eight rows' pieces meet every bank */
    static constexpr int size = ROWS * stride, period = 1;
    __device__ static inline int at(int row, int column) { return row * stride + column; }
};
template <int ROWS, int WIDTH> struct pn_attention_tile<pn_bf16, ROWS, WIDTH> { /* a pn_tile, if of 64 rows */
    static constexpr int strip = ROWS * 32, size = WIDTH / 32 * strip, stride = 32, period = 8;
    __device__ static inline int at(int row, int column) {
        return column / 32 * strip + row * 32 + (column / 8 % 4 ^ pn_tile<WIDTH>::turn(row)) * 8;
    }
};

/* Rows of an operand, n of them: row r is head (head + r) % group of token (head + r) / group, counted from element
 * `at` on. Keys are groups of one. */
struct pn_attention_lines {
    int64_t at, token_step, head_step; /* elements */
    int head, group, n;
};

/* Starts copying ROWS rows of WIDTH channels to a tile by all THREADS of the block; zeros from row n and channel
 * `width` on. whole: every row is a multiple of 16 bytes, from such an address. */
template <int ROWS, int WIDTH, int THREADS, class T>
__device__ static inline void pn_attention_load(T *to, const T *from, int width, bool whole,
                                                const pn_attention_lines &l) {
    typedef pn_attention_tile<T, ROWS, WIDTH> tile;
    constexpr int EACH = 16 / sizeof(T), PIECES = WIDTH / EACH;
    constexpr int ACROSS = PIECES < THREADS ? PIECES : THREADS, DOWN = THREADS / ACROSS;
    const int row = (int)threadIdx.x / ACROSS, column = (int)threadIdx.x % ACROSS * EACH;
    if (DOWN > ROWS && row >= ROWS) return; /* a small tile does not need all threads */
    const int tokens = DOWN / l.group, heads = DOWN % l.group;
    const int64_t step = tokens * l.token_step + heads * l.head_step;
    const int64_t carry = l.token_step - l.group * l.head_step; /* from past the last head to the next token */
    int head = (l.head + row) % l.group;
    const T *line = from + l.at + (l.head + row) / l.group * l.token_step + head * l.head_step + column;
    T *const first = to + tile::at(row, column);
    auto each_piece = [&](auto copy) {
#pragma unroll 4
        for (int r = 0; r < ROWS; r += DOWN) {
            T *piece = DOWN % tile::period == 0 ? first + r * tile::stride : to + tile::at(row + r, column);
            const int n = row + r < l.n ? width - column : 0;
#pragma unroll
            for (int c = 0; c < WIDTH; c += ACROSS * EACH) copy(piece + tile::at(0, c), line + c, n - c);
            line += step;
            head += heads;
            if (head >= l.group) {
                head -= l.group;
                line += carry;
            }
        }
    };
    if (whole)
        each_piece([&](T *piece, const T *there, int n) { pn_copy16(pn_shared(piece), n > 0 ? there : from, n > 0); });
    else
        each_piece([&](T *piece, const T *there, int n) {
            for (int k = 0; k < EACH; k++) piece[k] = k < n ? there[k] : T(0.0f);
        });
}
/* Everything that was loaded is there, for all threads. */
__device__ static inline void pn_attention_arrive() {
    pn_copies_wait<0>();
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    pn_warpgroup_see();
#endif
    __syncthreads();
}

/* The products. A is a tile of ROWS_A rows, of which the warp has 16 from row_a on; B is one that passes by, of which
 * it takes 8 times the blocks of y, or of p, from row_b on. TOGETHER: the block is one group of four warps with the
 * rows of A in order, and takes all of B. */
template <class T, int ROWS_A, bool TOGETHER> struct pn_attention_products;

template <int ROWS_A, bool TOGETHER> struct pn_attention_products<pn_bf16, ROWS_A, TOGETHER> {
    static constexpr int ROWS_B = 64;
    template <int DEPTH> __device__ static inline void left(uint32_t (&x)[4], const pn_bf16 *a, int row_a, int k) {
        typedef pn_attention_tile<pn_bf16, ROWS_A, DEPTH> tile;
        int lane = threadIdx.x % 32;
        pn_load4(x, pn_shared(a + tile::at(row_a + lane % 16, k + lane / 16 * 8)));
    }
    /* y[16, 8 BLOCKS] += a[16, DEPTH] b[8 BLOCKS, DEPTH]^T */
    template <int DEPTH, int BLOCKS>
    __device__ static inline void by_rows(float (&y)[BLOCKS][4], const pn_bf16 *a, int row_a, const pn_bf16 *b,
                                          int row_b) {
        typedef pn_attention_tile<pn_bf16, ROWS_B, DEPTH> tile;
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
        if constexpr (TOGETHER) {
            constexpr int RUN = DEPTH < 128 ? DEPTH : 128; /* what is under way is in registers */
            const uint64_t from = pn_operand_of_tile(pn_shared(b));
#pragma unroll
            for (int k0 = 0; k0 < DEPTH; k0 += RUN) {
                uint32_t x[RUN / 16][4];
#pragma unroll
                for (int i = 0; i < RUN / 16; i++) left<DEPTH>(x[i], a, row_a, k0 + 16 * i);
                pn_warpgroup_begin();
#pragma unroll
                for (int i = 0; i < RUN / 16; i++) {
                    const int k = k0 + 16 * i, at = k / 32 * tile::strip + k % 32;
                    pn_warpgroup<8 * BLOCKS>::template add<false>(y, x[i], from + (uint64_t)(at * 2 / 16));
                }
                pn_warpgroup_end(y, BLOCKS);
            }
            return;
        }
#endif
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int k = 0; k < DEPTH; k += 16) {
            uint32_t x[4];
            left<DEPTH>(x, a, row_a, k);
#pragma unroll
            for (int n = 0; n < BLOCKS; n += 2) {
                uint32_t z[4];
                pn_load4(z, pn_shared(b + tile::at(row_b + 8 * n + lane % 8 + lane / 16 * 8, k + lane / 8 % 2 * 8)));
                pn_mma_bf16(y[n], x, z[0], z[1]);
                pn_mma_bf16(y[n + 1], x, z[2], z[3]);
            }
        }
    }
    /* y[16, 8 BLOCKS] += p[16, 8 STEPS] b[8 STEPS, ..], the columns of b from `column0` on, a multiple of 32. */
    template <int WIDTH, int BLOCKS, int STEPS>
    __device__ static inline void by_columns(float (&y)[BLOCKS][4], const float (&p)[STEPS][4], const pn_bf16 *b,
                                             int row_b, int column0, float *strips) {
        typedef pn_attention_tile<pn_bf16, ROWS_B, WIDTH> tile;
        (void)strips;
        uint32_t x[STEPS / 2][4];
#pragma unroll
        for (int i = 0; i < STEPS / 2; i++) pn_left_operand(x[i], p[2 * i], p[2 * i + 1]);
        b += column0 / 32 * tile::strip;
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
        if constexpr (TOGETHER) {
            const uint64_t from = pn_operand_of_tile(pn_shared(b));
            pn_warpgroup_begin();
#pragma unroll
            for (int i = 0; i < STEPS / 2; i++)
                pn_warpgroup<8 * BLOCKS>::template add<true>(y, x[i], from + (uint64_t)(16 * i * 64 / 16));
            pn_warpgroup_end(y, BLOCKS);
            return;
        }
#endif
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < STEPS / 2; i++)
#pragma unroll
            for (int n = 0; n < BLOCKS; n += 2) {
                uint32_t z[4];
                pn_load4_transposed(z, pn_shared(b + tile::at(row_b + 16 * i + lane % 16, 8 * n + lane / 16 * 8)));
                pn_mma_bf16(y[n], x[i], z[0], z[1]);
                pn_mma_bf16(y[n + 1], x[i], z[2], z[3]);
            }
    }
};

template <int ROWS_A, bool TOGETHER> struct pn_attention_products<float, ROWS_A, TOGETHER> {
    __device__ static inline float dot(float sum, float4 a, float4 b) {
        return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
    }
    template <int DEPTH, int BLOCKS>
    __device__ static inline void by_rows(float (&y)[BLOCKS][4], const float *a, int row_a, const float *b, int row_b) {
        constexpr int stride = pn_attention_tile<float, 1, DEPTH>::stride;
        int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        const float *above = a + (row_a + g) * stride, *below = above + 8 * stride;
        const float *left = b + (row_b + 2 * t) * stride;
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
    /* strips: pn_attention_strips() floats, through which the lanes of a warp see each other's p. */
    template <int WIDTH, int BLOCKS, int STEPS>
    __device__ static inline void by_columns(float (&y)[BLOCKS][4], const float (&p)[STEPS][4], const float *b,
                                             int row_b, int column0, float *strips) {
        constexpr int stride = pn_attention_tile<float, 1, WIDTH>::stride, across = 8 * STEPS + 4;
        int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        float *above = strips + (threadIdx.x / 32 * 16 + g) * across, *below = above + 8 * across;
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            *(float2 *)(above + 8 * s + 2 * t) = make_float2(p[s][0], p[s][1]);
            *(float2 *)(below + 8 * s + 2 * t) = make_float2(p[s][2], p[s][3]);
        }
        __syncwarp();
        b += row_b * stride + column0 + 2 * t;
#pragma unroll 4
        for (int k = 0; k < 8 * STEPS; k++) {
            float x0 = above[k], x1 = below[k];
#pragma unroll
            for (int n = 0; n < BLOCKS; n++) {
                float2 z = *(const float2 *)(b + k * stride + 8 * n);
                y[n][0] = fmaf(x0, z.x, y[n][0]);
                y[n][1] = fmaf(x0, z.y, y[n][1]);
                y[n][2] = fmaf(x1, z.x, y[n][2]);
                y[n][3] = fmaf(x1, z.y, y[n][3]);
            }
        }
        __syncwarp(); /* the next call writes the strips */
    }
};
template <class T> constexpr int pn_attention_strips(int warps, int stream) {
    return sizeof(T) == 4 ? warps * 16 * (stream + 4) : 0;
}

/* Two neighbouring channels of a row, from `at` on, those before `width`; added to what is there with `add`. */
template <class T>
__device__ static inline void pn_attention_put(bool add, T *row, int at, int width, float first, float second) {
    if (at < width) pn_store(row + at, add ? __fadd_rn(pn_load(row + at), first) : first);
    if (at + 1 < width) pn_store(row + at + 1, add ? __fadd_rn(pn_load(row + at + 1), second) : second);
}

/* Shared memory of a block begins at a multiple of this: what the tiles' order of pieces repeats after. */
enum { PN_ATTENTION_ALIGNMENT = 1024 };

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
