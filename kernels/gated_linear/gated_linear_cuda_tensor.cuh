/* The chunkwise form on tensor cores, in BF16 with float accumulators and decays.
 *
 *     gates or prepare    per chunk and head     decays; for vector gates also scores and decayed queries and keys
 *     sweep               chunk after chunk      the state at the start of every chunk; in reverse its gradient at the
 *                                                end of every chunk
 *     output              per chunk and head     O = e^L Q S + A V; with roles exchanged dV = e^{L_C - L} K G + A^T dO
 *     keys                per chunk and head     dQ, dK, dg
 *
 * Only the sweep is sequential, and it does one product per chunk for a piece of a state. Tokens that a short chunk
 * does not have are zeros with gates of zero.
 *
 * Vector gates (blocks.md 1.9): a chunk is four sub-blocks of 16 tokens. Queries come decayed from the start of their
 * sub-block (Qpre), keys to the end of theirs (Ksuf), rounded once; what lies between sub-blocks is multiplied in
 * float, on accumulators where the sum runs over tokens. Pairs within one sub-block are sums in float. */
#ifndef PN_KERNELS_GATED_LINEAR_CUDA_TENSOR_CUH
#define PN_KERNELS_GATED_LINEAR_CUDA_TENSOR_CUH

#include "gated_linear_cuda.cuh"

#include "cuda/tensor_core.cuh"
#include "cuda/warpgroup.cuh"

enum {
    PN_GLIN_BLOCK = 16,
    PN_GLIN_BLOCKS = PN_GLIN_CHUNK / PN_GLIN_BLOCK,
    PN_GLIN_MOST_DK = 256,
    PN_GLIN_MOST_SHARED = 163 << 10 /* bytes of any block: compute capability 8.0 has these, GPUs for desktops less */
};

/* Scalar gates of a chunk and head. */
struct pn_glin_gates {
    float in[PN_GLIN_CHUNK], out[PN_GLIN_CHUNK]; /* e^{L_i}, e^{L_C - L_i} */
    float2 L[PN_GLIN_CHUNK]; /* L_i = x + y in units of ln 2: with two floats differences keep their digits after strong
                              * decays */
};

/* A gradient's way out: the input's own, or where heads share an input, one for each head, to be added up later. */
struct pn_glin_share {
    pn_bf16 *to; /* NULL: not wanted */
    bool add;    /* or written */
    int64_t ld;  /* from token to token; head j at j * width */
};

/* A kernel's parameter. Device pointers; scratch is per chunk and head: block = chunk * heads + head. */
struct pn_glin_tensor {
    pn_glin_sizes s;
    const pn_bf16 *q, *k, *v;
    const float *g, *S0; /* NULL: no decay; zero */
    int group;        /* neighbouring heads that a block takes together: their dq and dk go out as those of one head */
    int key_channels; /* that a block of `keys` takes */
    pn_bf16 *o;
    float *S_T;
    pn_bf16 *S; /* [chunks, heads, dk, dv] */
    /* backward */
    const pn_bf16 *dO; /* NULL: zero */
    const float *dS_T; /* NULL: zero */
    float *dS0;        /* NULL: not wanted */
    bool dS0_add;      /* or written */
    pn_bf16 *G;        /* as S, at the chunk's end */
    pn_glin_share dq, dk, dv;
    float *dg;    /* NULL: not wanted. Scalar gates: [tokens, heads, dg_tiles]; vector gates: [tokens, heads, dk] */
    bool dg_add;  /* vector gates: or written */
    int dg_tiles; /* parts of a scalar gate's gradient */
    /* scratch */
    pn_glin_gates *gates; /* scalar */
    pn_bf16 *Qpre, *Ksuf; /* vector: [64, dk] */
    pn_bf16 *A;           /* vector: [64, 64], zeros above the diagonal */
    float *block;         /* vector: [4, dk], the decay of each sub-block */
};

pn_status pn_glin_tensor_gates(const pn_glin_tensor &c);
pn_status pn_glin_tensor_prepare(const pn_glin_tensor &c);
pn_status pn_glin_tensor_sweep(const pn_glin_tensor &c, bool reverse);
pn_status pn_glin_tensor_output(const pn_glin_tensor &c, bool values);
pn_status pn_glin_tensor_keys_scalar(const pn_glin_tensor &c);
pn_status pn_glin_tensor_keys_vector(const pn_glin_tensor &c);
/* Sets group and key_channels from the sizes. */
void pn_glin_tensor_split(pn_glin_tensor *c);

/* Lets a kernel's blocks have so much shared memory. */
template <int Bytes, class Kernel> static pn_status pn_glin_allow(Kernel kernel, const char *name) {
    static_assert(Bytes <= PN_GLIN_MOST_SHARED, "as takes() asks for");
    return pn_cuda_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Bytes), name);
}

/* ---- products of tiles (pn_tile) by a warpgroup: warp w of the four has rows 16 w .. of the result ---- */

__device__ static __forceinline__ int pn_lane() {
    return (int)threadIdx.x % 32;
}

/* The left operand: rows 16 r .. and columns 16 k .. of a tile, or (turned) of its transpose. */
__device__ static __forceinline__ void pn_glin_left(uint32_t a[4], uint32_t tile, int r, int k) {
    pn_load4(a, tile + (uint32_t)pn_tile<32>::at(16 * r + pn_lane() % 16, 2 * k + pn_lane() / 16));
}
__device__ static __forceinline__ void pn_glin_left_turned(uint32_t a[4], uint32_t tile, int r, int k) {
    pn_load4_transposed(
        a, tile + (uint32_t)pn_tile<32>::at(16 * k + pn_lane() % 8 + pn_lane() / 16 * 8, 2 * r + pn_lane() / 8 % 2));
}

/* Accumulators of products of tokens i of one side (rows) and j of the other times factor * e^{L_late - L_early}, zero
 * where the later is not the query's. Keys: rows are keys'. */
__device__ static __forceinline__ void pn_glin_decay_pairs(float (*y)[4], int blocks, int first_column, bool keys,
                                                           const pn_glin_gates *gates, float factor) {
    const int row = (int)threadIdx.x / 32 % 4 * 16 + pn_lane() / 4, column = first_column + 2 * (pn_lane() % 4);
    const float2 own[2] = { gates->L[row], gates->L[row + 8] };
#pragma unroll
    for (int b = 0; b < blocks; b++) {
        const float4 pair = *(const float4 *)&gates->L[column + 8 * b];
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float2 mine = own[e / 2], other = e % 2 ? make_float2(pair.z, pair.w) : make_float2(pair.x, pair.y);
            const int distance = row + e / 2 * 8 - (column + 8 * b + e % 2);
            const float L = (mine.x - other.x) + (mine.y - other.y);
            y[b][e] = (keys ? distance <= 0 : distance >= 0) ? y[b][e] * factor * exp2f(keys ? -L : L) : 0.0f;
        }
    }
}

/* Products between begin and end run in the background where the hardware does that. */
__device__ static __forceinline__ void pn_glin_begin() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    pn_warpgroup_begin();
#endif
}
__device__ static __forceinline__ void pn_glin_end(float (*y)[4], int blocks) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    pn_warpgroup_end(y, blocks);
#else
    (void)y, (void)blocks;
#endif
}
__device__ static __forceinline__ void pn_glin_keep(float (*y)[4], int blocks) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    pn_warpgroup_keep(y, blocks);
#else
    (void)y, (void)blocks;
#endif
}

/* y[64, N] += a b[16, N]. b^T are columns 16 k .. of the first N rows of a tile; Turned: b are its rows 16 k .. */
template <int N, bool Turned>
__device__ static __forceinline__ void pn_glin_add(float (*y)[4], const uint32_t a[4], uint32_t tile, int k) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    const int at = Turned ? 16 * k * 64 : k / 2 * pn_tile<32>::strip_bytes + k % 2 * 32;
    pn_warpgroup<N>::template add<Turned>(y, a, pn_operand_of_tile(tile + (uint32_t)at));
#else
    const int id = pn_lane();
#pragma unroll
    for (int j = 0; j < N / 16; j++) {
        uint32_t b[4];
        if (Turned)
            pn_load4_transposed(b, tile + (uint32_t)pn_tile<32>::at(16 * k + id % 16, 2 * j + id / 16));
        else
            pn_load4(b, tile + (uint32_t)pn_tile<32>::at(16 * j + id % 8 + id / 16 * 8, 2 * k + id / 8 % 2));
        pn_mma_bf16(y[2 * j], a, b[0], b[1]);
        pn_mma_bf16(y[2 * j + 1], a, b[2], b[3]);
    }
#endif
}

/* Until this thread's copies but for the newest `Pending` groups are there, for all threads of the block. */
template <int Pending> __device__ static __forceinline__ void pn_glin_wait() {
    pn_copies_wait<Pending>();
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    pn_warpgroup_see();
#endif
    __syncthreads();
}

/* A row-major matrix of bf16 as a tile; rows: those that exist. */
template <int Columns, int Threads>
__device__ static __forceinline__ void pn_glin_copy(uint32_t tile, const pn_bf16 *from, int64_t ld, int rows,
                                                    int columns) {
    pn_copy_tile<Columns, Threads>(tile, (const uint16_t *)from, ld, rows, columns, (int)threadIdx.x);
}

/* Elements times two factors. */
__device__ static __forceinline__ uint32_t pn_glin_scaled(uint32_t pair, float2 by) {
    return pn_bf16_pair(pn_bf16_first(pair) * by.x, pn_bf16_second(pair) * by.y);
}
/* The left operand's column j times by[j] and `all`; by: 16 floats. */
__device__ static __forceinline__ void pn_glin_scale_columns(uint32_t a[4], const float *by, float all) {
    float2 near = *(const float2 *)(by + 2 * (pn_lane() % 4)), far = *(const float2 *)(by + 8 + 2 * (pn_lane() % 4));
    near.x *= all, near.y *= all, far.x *= all, far.y *= all;
    a[0] = pn_glin_scaled(a[0], near), a[1] = pn_glin_scaled(a[1], near);
    a[2] = pn_glin_scaled(a[2], far), a[3] = pn_glin_scaled(a[3], far);
}
/* Rows g and g + 8 of accumulators times two factors. */
__device__ static __forceinline__ void pn_glin_scale_rows(float (*y)[4], int blocks, float first, float second) {
#pragma unroll
    for (int i = 0; i < blocks; i++) y[i][0] *= first, y[i][1] *= first, y[i][2] *= second, y[i][3] *= second;
}

/* A warp's accumulators [16, N], rounded, to global memory by rows of 16-byte pieces, through pn_glin_buffer<N> bytes
 * of the warp's own shared memory: into it, and out of it when all lanes are there. */
template <int N> constexpr int pn_glin_buffer = 16 * (2 * N + 16);
template <int N> __device__ static __forceinline__ void pn_glin_stage(unsigned char *buffer, const float (*y)[4]) {
    constexpr int row_bytes = 2 * N + 16;
    buffer += pn_lane() / 4 * row_bytes + pn_lane() % 4 * 4;
#pragma unroll
    for (int i = 0; i < N / 8; i++) {
        *(uint32_t *)(buffer + 16 * i) = pn_bf16_pair(y[i][0], y[i][1]);
        *(uint32_t *)(buffer + 8 * row_bytes + 16 * i) = pn_bf16_pair(y[i][2], y[i][3]);
    }
}
__device__ static __forceinline__ uint32_t pn_glin_sum(uint32_t a, uint32_t b) {
    return pn_bf16_pair(__fadd_rn(pn_bf16_first(a), pn_bf16_first(b)), __fadd_rn(pn_bf16_second(a), pn_bf16_second(b)));
}
/* A piece to global memory; add: to what is there. */
__device__ static __forceinline__ void pn_glin_put_piece(pn_bf16 *to, uint4 x, bool add) {
    if (add) {
        const uint4 old = *(const uint4 *)to;
        x = make_uint4(pn_glin_sum(old.x, x.x), pn_glin_sum(old.y, x.y), pn_glin_sum(old.z, x.z),
                       pn_glin_sum(old.w, x.w));
    }
    *(uint4 *)to = x;
}
/* The first `rows` rows and `columns` columns. */
template <int N>
__device__ static __forceinline__ void pn_glin_put_staged(const unsigned char *buffer, pn_bf16 *to, int64_t ld,
                                                          int rows, int columns, bool add) {
    constexpr int row_bytes = 2 * N + 16, pieces = N / 8;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 16 * pieces / 32; i++) {
        const int row = (32 * i + pn_lane()) / pieces, piece = (32 * i + pn_lane()) % pieces;
        if (row < rows && 8 * piece < columns)
            pn_glin_put_piece(to + row * ld + 8 * piece, *(const uint4 *)(buffer + row * row_bytes + 16 * piece), add);
    }
    __syncwarp();
}
template <int N>
__device__ static __forceinline__ void pn_glin_put(unsigned char *buffer, const float (*y)[4], pn_bf16 *to, int64_t ld,
                                                   int rows, int columns, bool add) {
    pn_glin_stage<N>(buffer, y);
    pn_glin_put_staged<N>(buffer, to, ld, rows, columns, add);
}

#endif
