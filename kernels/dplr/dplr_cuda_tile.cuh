/* What the tensor-core kernels of dplr share: parts of tiles as operands, and decays. */
#ifndef PN_KERNELS_DPLR_DPLR_CUDA_TILE_CUH
#define PN_KERNELS_DPLR_DPLR_CUDA_TILE_CUH

#include "cuda/tensor_core.cuh"

namespace {

/* This lane's rows of a 16 x 16 part of a tile. AS_LEFT: of a left operand; AS_COLUMNS: of a right one whose columns
 * are the tile's rows; AS_ROWS: whose rows they are, to be loaded transposed. */
enum operand { AS_LEFT, AS_COLUMNS, AS_ROWS };
template <operand Operand, class Tile> __device__ __forceinline__ uint32_t part_of(uint32_t tile, int row, int piece) {
    const int lane = (int)threadIdx.x % 32;
    const int r = Operand == AS_COLUMNS ? lane % 8 + lane / 16 * 8 : lane % 16;
    const int p = Operand == AS_COLUMNS ? lane / 8 % 2 : lane / 16;
    return tile + (uint32_t)Tile::at(row + r, piece + p);
}

__device__ __forceinline__ float power_of_2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ uint32_t scaled_pair(uint32_t pair, float first, float second) {
    return pn_bf16_pair(pn_bf16_first(pair) * first, pn_bf16_second(pair) * second);
}
/* Which 16 x 16 block (i, j), j <= i, of a lower triangle is. */
__device__ __forceinline__ int block_of(int i, int j) {
    return i * (i + 1) / 2 + j;
}

} // namespace

#endif
