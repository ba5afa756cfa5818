/* What both kernels for dQ, dK and dg begin with: a chunk's products with everything that is as wide as values.
 *
 * A block has two warpgroups with the same program and roles exchanged. The first has queries' rows, the second keys':
 *
 *     near = dO V^T,  far = dO S^T          near = V dO^T,  far = V G^T
 *
 * and both sum the rows of S * G. Columns of values come by 64, the next while one is multiplied. */
#ifndef PN_KERNELS_GATED_LINEAR_CUDA_KEYS_CUH
#define PN_KERNELS_GATED_LINEAR_CUDA_KEYS_CUH

#include "gated_linear_cuda_tensor.cuh"

enum { PN_GLIN_KEYS_THREADS = 256 };

/* Offsets in a stage, for blocks of Width channels of keys. */
template <int Width> struct pn_glin_keys_stage {
    static constexpr int V = 0, dO = pn_tile<64>::bytes, S = 2 * dO, G = S + Width / 64 * dO;
    static constexpr int bytes = G + Width / 64 * dO;
};

template <int Width> struct pn_glin_keys_sums {
    float near[8][4], far[Width / 64][8][4];
    float states[Width / 64]; /* a part of row threadIdx / 4 of each 64: four neighbours' parts are the sum */
};

__device__ static __forceinline__ float pn_glin_dot8(const unsigned char *a, const unsigned char *b) {
    const uint4 x = *(const uint4 *)a, y = *(const uint4 *)b;
    const uint32_t u[4] = { x.x, x.y, x.z, x.w }, w[4] = { y.x, y.y, y.z, y.w };
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 4; i++)
        sum += pn_bf16_first(u[i]) * pn_bf16_first(w[i]) + pn_bf16_second(u[i]) * pn_bf16_second(w[i]);
    return sum;
}

/* Starts copying columns 64 tile .. of what the head's products read. */
template <int Width>
__device__ static __forceinline__ void pn_glin_keys_copy(const pn_glin_tensor &c, const pn_glin_place &p, int head,
                                                         int first_channel, int tile, unsigned char *stage) {
    typedef pn_glin_keys_stage<Width> in;
    constexpr int THREADS = PN_GLIN_KEYS_THREADS, TILE = pn_tile<64>::bytes;
    const pn_glin_sizes &s = c.s;
    const uint32_t to = pn_shared(stage);
    const int column = 64 * tile, columns = s.dv - column, channels = s.dk - first_channel;
    const int64_t state = s.state_at(p.chunk, head) + (int64_t)first_channel * s.dv + column;
    pn_glin_copy<64, THREADS>(to + in::V, c.v + s.v_at(p.first, head) + column, s.ldv, p.n, columns);
    if (c.dO)
        pn_glin_copy<64, THREADS>(to + in::dO, c.dO + s.o_at(p.first, head) + column, s.ldo, p.n, columns);
    else
        pn_glin_copy<64, THREADS>(to + in::dO, c.v, 0, 0, 0);
#pragma unroll
    for (int d = 0; d < Width / 64; d++) {
        const int64_t at = state + (64 * d < channels ? (int64_t)64 * d * s.dv : 0);
        pn_glin_copy<64, THREADS>(to + in::S + (uint32_t)(d * TILE), c.S + at, s.dv, channels - 64 * d, columns);
        pn_glin_copy<64, THREADS>(to + in::G + (uint32_t)(d * TILE), c.G + at, s.dv, channels - 64 * d, columns);
    }
}

/* Columns `tile` .. of a stage that has come. */
template <int Width>
__device__ static __forceinline__ void pn_glin_keys_add(const unsigned char *stage, pn_glin_keys_sums<Width> *y) {
    typedef pn_glin_keys_stage<Width> in;
    constexpr int TILE = pn_tile<64>::bytes;
    const int id = (int)threadIdx.x, warp = id / 32 % 4;
    const bool keys = id >= PN_GLIN_KEYS_THREADS / 2;
    const uint32_t at = pn_shared(stage), own = at + (keys ? in::V : in::dO), other = at + (keys ? in::dO : in::V);
    const uint32_t states = at + (keys ? in::G : in::S);
    uint32_t a[4][4];
#pragma unroll
    for (int k = 0; k < 4; k++) pn_glin_left(a[k], own, warp, k);
    pn_glin_begin();
#pragma unroll
    for (int k = 0; k < 4; k++) {
        pn_glin_add<64, false>(y->near, a[k], other, k);
#pragma unroll
        for (int d = 0; d < Width / 64; d++) pn_glin_add<64, false>(y->far[d], a[k], states + (uint32_t)(d * TILE), k);
    }
    pn_glin_end(y->near, 8);
#pragma unroll
    for (int d = 0; d < Width / 64; d++) pn_glin_keep(y->far[d], 8);
#pragma unroll
    for (int d = 0; d < Width / 64; d++)
#pragma unroll
        for (int piece = 0; piece < 2; piece++) {
            const int place = d * TILE + pn_tile<64>::at(id / 4, 2 * (id % 4) + piece);
            y->states[d] += pn_glin_dot8(stage + in::S + place, stage + in::G + place);
        }
}

/* All products of head p.head. memory: two stages; *stage: number of the one for which its first columns were started
 * last. ahead(): starts what is wanted in the stage after its last columns, and is called once. On return all threads
 * are through with the stages before *stage. */
template <int Width, class Ahead>
__device__ static __forceinline__ void pn_glin_keys_products(const pn_glin_tensor &c, const pn_glin_place &p,
                                                             int first_channel, unsigned char *memory, int *stage,
                                                             pn_glin_keys_sums<Width> *y, Ahead ahead) {
    constexpr int bytes = pn_glin_keys_stage<Width>::bytes;
    const int tiles = (c.s.dv + 63) / 64;
#pragma unroll
    for (int b = 0; b < 8; b++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            y->near[b][e] = 0;
#pragma unroll
            for (int d = 0; d < Width / 64; d++) y->far[d][b][e] = 0;
        }
#pragma unroll
    for (int d = 0; d < Width / 64; d++) y->states[d] = 0;
    for (int tile = 0; tile < tiles; tile++, ++*stage) {
        if (tile + 1 < tiles)
            pn_glin_keys_copy<Width>(c, p, p.head, first_channel, tile + 1, memory + (*stage + 1) % 2 * bytes);
        else
            ahead();
        pn_copies_commit();
        pn_glin_wait<1>();
        pn_glin_keys_add<Width>(memory + *stage % 2 * bytes, y);
        __syncthreads();
    }
}

#endif
