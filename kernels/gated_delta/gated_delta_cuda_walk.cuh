/* What the walks through a document's chunks share, forward and in reverse (gated_delta_cuda_sweep.cu says how they
 * compute): a block of four warps has 64 columns of a head's state, a warp 16 of them, transposed, in accumulators. */
#ifndef PN_KERNELS_GATED_DELTA_CUDA_WALK_CUH
#define PN_KERNELS_GATED_DELTA_CUDA_WALK_CUH

#include "gated_delta_cuda_chunk.cuh"

#include "cuda/tensor_core.cuh"
#include "cuda/warpgroup.cuh"

namespace {

enum { C = PN_DELTA_CHUNK, WARPS = 4, THREADS = 32 * WARPS, COLUMNS = 16 * WARPS };

typedef pn_tile<COLUMNS> value_tile; /* V, e, o: a warp's two pieces of 8 columns are its own */

/* The thread's number, for the compiler a new one each time. */
__device__ __forceinline__ int thread() {
    int x;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
    return x;
}
__device__ __forceinline__ int lane() {
    return thread() % 32;
}

/* ---- between global and shared memory ---- */

/* `bytes`: a multiple of 16. */
template <int bytes> __device__ __forceinline__ void copy_packed(uint32_t to, const void *from) {
    const int id = thread();
    const unsigned char *piece = (const unsigned char *)from + 16 * id;
    to += 16 * (uint32_t)id;
#pragma unroll
    for (int i = 0; i < bytes; i += 16 * THREADS)
        if (i + 16 * THREADS <= bytes || id < (bytes - i) / 16) pn_copy16(to + (uint32_t)i, piece + i, true);
}
/* Until what was started before the newest group is there, for all threads of the block. */
__device__ __forceinline__ void wait_for_copies() {
    pn_copies_wait<1>();
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    pn_warpgroup_see();
#endif
    __syncthreads();
}

/* This lane's row of a 16 x 16 part of a tile, for parts at any multiples of 16 rows and 2 pieces: of a right operand
 * whose rows are the tile's, or (Turned) whose columns are. */
template <bool Turned> struct lane_rows {
    uint32_t row, piece;
    __device__ __forceinline__ lane_rows(uint32_t tile) {
        const int id = lane(), r = Turned ? id % 16 : id % 8 + id / 16 * 8, c = Turned ? id / 16 : id / 8 % 2;
        row = tile + (uint32_t)(r * 64);
        piece = (uint32_t)(c ^ pn_tile<32>::turn(r)) * 16;
    }
    __device__ __forceinline__ uint32_t at(int r, int c) const {
        return row + (piece ^ (uint32_t)(c % 4 * 16)) + (uint32_t)(c / 4 * pn_tile<32>::strip_bytes + r * 64);
    }
};

/* 8 `blocks` rows (at most 64) from accumulators [16 columns, rows], through the warp's columns of a tile to global
 * memory: the rows below n and the first `columns` columns. */
__device__ __forceinline__ void put_rows(int blocks, const float (*x)[4], uint16_t *to, int64_t ld, int n, int columns,
                                         uint32_t tile, int warp) {
    const lane_rows<false> own(tile);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        if (i >= blocks) break;
        uint32_t pairs[4];
        pn_left_operand(pairs, x[i], x[i + 1]);
        pn_store4_transposed(own.at(8 * i, 2 * warp), pairs);
    }
    __syncwarp();
    const int id = lane(), row = id / 2, piece = id % 2;
    if (8 * piece >= columns) return;
    to += row * ld + 8 * piece;
    tile += (uint32_t)value_tile::at(row, 2 * warp + piece);
#pragma unroll
    for (int r = 0; r < C; r += 16)
        if (r < 8 * blocks && row + r < n) *(uint4 *)(to + r * ld) = pn_shared_piece(tile + (uint32_t)(r * 64));
}

/* A head's state [dk, dv] in global memory and the warp's accumulators of its transpose. */
template <int DK> __device__ __forceinline__ void get_state(float S[DK / 8][4], const float *from, int dv, int column) {
    const int g = lane() / 4, t = lane() % 4;
#pragma unroll
    for (int i = 0; i < DK / 8; i++)
#pragma unroll
        for (int y = 0; y < 4; y++) {
            int at = column + g + y / 2 * 8;
            S[i][y] = from && at < dv ? from[(8 * i + 2 * t + y % 2) * dv + at] : 0.0f;
        }
}
template <int DK> __device__ __forceinline__ void put_state(float *to, const float S[DK / 8][4], int dv, int column) {
    const int g = lane() / 4, t = lane() % 4;
#pragma unroll
    for (int i = 0; i < DK / 8; i++)
#pragma unroll
        for (int y = 0; y < 4; y++) {
            int at = column + g + y / 2 * 8;
            if (at < dv) to[(8 * i + 2 * t + y % 2) * dv + at] = S[i][y];
        }
}

/* ---- products ---- */

/* y[16, tokens 16 First .. 16 End) += S^T M^T, M [64, DK] a tile of keys or queries. */
template <int DK, int First, int End>
__device__ __forceinline__ void times_tile(float y[][4], const uint32_t S[DK / 16][4], uint32_t tile) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    const uint64_t b = pn_operand_of_tile(tile + 16 * First * 64);
    pn_warpgroup_begin();
#pragma unroll
    for (int i = 0; i < DK / 16; i++)
        pn_warpgroup<16 * (End - First)>::template add<false>(
            y, S[i], b + (uint64_t)((i / 2 * pn_tile<DK>::strip_bytes + i % 2 * 32) / 16));
    pn_warpgroup_end(y, 2 * (End - First));
#else
    const lane_rows<false> tokens(tile);
#pragma unroll
    for (int i = 0; i < DK / 16; i++)
#pragma unroll
        for (int j = 0; j < End - First; j++) {
            uint32_t b[4];
            pn_load4(b, tokens.at(16 * (First + j), 2 * i));
            pn_mma_bf16(y[2 * j], S[i], b[0], b[1]);
            pn_mma_bf16(y[2 * j + 1], S[i], b[2], b[3]);
        }
#endif
}

/* y[16, tokens 16 First .. 16 End) += a M^T, M [64, 64] lower triangular and packed. */
template <int First, int End>
__device__ __forceinline__ void times_packed(float y[][4], const uint32_t a[4][4], uint32_t packed) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    const uint64_t b = pn_operand_of_matrices(packed, 128, 256);
    pn_warpgroup_begin();
#pragma unroll
    for (int j = 0; j < End; j++)
#pragma unroll
        for (int i = First > j ? First : j; i < End; i++)
            pn_warpgroup<16>::template add<false>(y + 2 * (i - First), a[j],
                                                  b + (uint64_t)(512 / 16 * pn_delta_block(i, j)));
    pn_warpgroup_end(y, 2 * (End - First));
#else
    packed += 16 * (uint32_t)lane();
#pragma unroll
    for (int j = 0; j < End; j++)
#pragma unroll
        for (int i = First > j ? First : j; i < End; i++) {
            uint32_t b[4];
            pn_load4(b, packed + (uint32_t)(512 * pn_delta_block(i, j)));
            pn_mma_bf16(y[2 * (i - First)], a[j], b[0], b[1]);
            pn_mma_bf16(y[2 * (i - First) + 1], a[j], b[2], b[3]);
        }
#endif
}

/* y[16, 64] += a M, M [64, 64] lower triangular and packed. */
__device__ __forceinline__ void times_lower(float y[8][4], const uint32_t a[4][4], uint32_t packed) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    const uint64_t b = pn_operand_of_matrices(packed, 256, 128);
    pn_warpgroup_begin();
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j <= i; j++)
            pn_warpgroup<16>::template add<true>(y + 2 * j, a[i], b + (uint64_t)(512 / 16 * pn_delta_block(i, j)));
    pn_warpgroup_end(y, 8);
#else
    packed += 16 * (uint32_t)lane();
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j <= i; j++) {
            uint32_t b[4];
            pn_load4_transposed(b, packed + (uint32_t)(512 * pn_delta_block(i, j)));
            pn_mma_bf16(y[2 * j], a[i], b[0], b[2]);
            pn_mma_bf16(y[2 * j + 1], a[i], b[1], b[3]);
        }
#endif
}

/* S^T += left M, M [64, DK] a tile of keys or queries. */
template <int DK>
__device__ __forceinline__ void add_tile(float S[DK / 8][4], const uint32_t left[4][4], uint32_t tile) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    const uint64_t b = pn_operand_of_tile(tile);
    pn_warpgroup_begin();
#pragma unroll
    for (int i = 0; i < 4; i++) pn_warpgroup<DK>::template add<true>(S, left[i], b + (uint64_t)(16 * i * 64 / 16));
    pn_warpgroup_end(S, DK / 8);
#else
    const lane_rows<true> rows(tile);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < DK / 16; j++) {
            uint32_t b[4];
            pn_load4_transposed(b, rows.at(16 * i, 2 * j));
            pn_mma_bf16(S[2 * j], left[i], b[0], b[1]);
            pn_mma_bf16(S[2 * j + 1], left[i], b[2], b[3]);
        }
#endif
}

/* S^T += (left + rest) K. */
template <int DK>
__device__ __forceinline__ void add_keys(float S[DK / 8][4], const uint32_t left[4][4], const uint32_t rest[4][4],
                                         uint32_t K) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    const uint64_t b = pn_operand_of_tile(K);
    pn_warpgroup_begin();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        pn_warpgroup<DK>::template add<true>(S, left[i], b + (uint64_t)(16 * i * 64 / 16));
        pn_warpgroup<DK>::template add<true>(S, rest[i], b + (uint64_t)(16 * i * 64 / 16));
    }
    pn_warpgroup_end(S, DK / 8);
#else
    const lane_rows<true> keys(K);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < DK / 16; j++) {
            uint32_t b[4];
            pn_load4_transposed(b, keys.at(16 * i, 2 * j));
            pn_mma_bf16(S[2 * j], left[i], b[0], b[1]);
            pn_mma_bf16(S[2 * j + 1], left[i], b[2], b[3]);
            pn_mma_bf16(S[2 * j], rest[i], b[0], b[1]);
            pn_mma_bf16(S[2 * j + 1], rest[i], b[2], b[3]);
        }
#endif
}

/* y_i *= factor x_i for 16 tokens i; x: floats in shared memory. */
__device__ __forceinline__ void scale_tokens(float y[2][4], uint32_t x, float factor) {
#pragma unroll
    for (int j = 0; j < 2; j++) {
        float2 f = pn_shared_pair(x + 32 * (uint32_t)j);
        f.x *= factor, f.y *= factor;
        y[j][0] *= f.x, y[j][1] *= f.y, y[j][2] *= f.x, y[j][3] *= f.y;
    }
}

/* What rounding to bf16 left of an operand, as an operand. */
__device__ __forceinline__ void left_rest(uint32_t rest[4], const uint32_t rounded[4], const float left[4],
                                          const float right[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float *x = (i < 2 ? left : right) + 2 * (i % 2);
        rest[i] = pn_bf16_pair(x[0] - pn_bf16_first(rounded[i]), x[1] - pn_bf16_second(rounded[i]));
    }
}

} // namespace

#endif
