/* Gradients of the generator: dh = dK w2, dw2 = dK^T h and db2, sums of dK over tokens, where dK[t][ch][w] = p_t[ch]
 * c_{t-3+w}[ch] is never anywhere but in the registers that the tensor cores read it from: p and c are a quarter of it.
 * Documents begin with zeros here (no state).
 *
 * A block has one tile of the result in the registers of its warpgroups and goes through all that is summed over, so
 * that sums follow from the shape alone. One warpgroup copies, as in dynamic_conv_cuda_taps.cuh; a cluster of two
 * blocks shares the right operand, of which each fetches half for both. While one warpgroup makes fragments, others
 * have the tensor cores. */
#ifndef PN_KERNELS_DYNAMIC_CONV_CUDA_PRODUCTS_CUH
#define PN_KERNELS_DYNAMIC_CONV_CUDA_PRODUCTS_CUH

#include "dynamic_conv_cuda_taps.cuh"

enum {
    PN_DCONV_PIECE = 64,          /* columns of a row of 128 bytes */
    PN_DCONV_HIDDEN_TOKENS = 128, /* of a block of dh: 64 of each warpgroup, */
    PN_DCONV_HIDDEN_COLUMNS = 384,
    PN_DCONV_HIDDEN_CHANNELS = 16, /* of a stage of w2, with all taps */
    PN_DCONV_HIDDEN_SLAB = 32,     /* channels of p and c that come at once, in rows of 64 bytes */
    PN_DCONV_WEIGHT_CHANNELS = 48, /* of a block of dw2: 16 of each warpgroup, with all taps, */
    PN_DCONV_WEIGHT_COLUMNS = 192,
    PN_DCONV_WEIGHT_GROUPS = 3,
    PN_DCONV_WEIGHT_THREADS = 128 * (1 + PN_DCONV_WEIGHT_GROUPS),
    PN_DCONV_WEIGHT_BOUNDS = PN_HAVE_WARPGROUP ? PN_DCONV_WEIGHT_THREADS : 32
};

/* Tiles of p and c, the latter from three tokens before; of the right operand a block's share of a stage, if `whole`
 * (pieces are), else a piece of it. */
typedef struct pn_dconv_product_maps {
    CUtensorMap p, c, right;
    bool whole;
} pn_dconv_product_maps;

/* Shared memory of a block of dh, in bytes from a multiple of 1024 on: stages of w2, [tap][64 columns][channel], and
 * slabs of p and c of the block's tokens. */
struct pn_dconv_hidden_shared {
    static constexpr int piece = PN_DCONV_HIDDEN_CHANNELS * 128, pieces = PN_DCONV_HIDDEN_COLUMNS / PN_DCONV_PIECE;
    static constexpr int stages = 4, stage = PN_DCONV_WIDTH * pieces * piece;
    static constexpr int tokens = PN_DCONV_HIDDEN_TOKENS, c_rows = tokens + PN_DCONV_BACK;
    static constexpr int row = 2 * PN_DCONV_HIDDEN_SLAB, p = tokens * row, c = (c_rows + 7) / 8 * 8 * row;
    static constexpr int slabs = 2, slab = p + c, copied = p + c_rows * row;
    static constexpr int slabs_at = stages * stage, barriers_at = slabs_at + slabs * slab;
    static constexpr int bytes = barriers_at + 2 * (stages + slabs) * 8;
};

/* The same of dw2: stages of 64 tokens of h, [half of them][64 columns][token], p and c. */
struct pn_dconv_weight_shared {
    static constexpr int pieces = PN_DCONV_WEIGHT_COLUMNS / PN_DCONV_PIECE, half = PN_DCONV_TILE / PN_DCONV_CLUSTER;
    static constexpr int piece = half * 128;
    static constexpr int c_rows = PN_DCONV_TILE + PN_DCONV_BACK;
    static constexpr int p_at = PN_DCONV_CLUSTER * pieces * piece, c_at = p_at + PN_DCONV_TILE * 128;
    static constexpr int stages = 5, stage = c_at + (c_rows + 7) / 8 * 8 * 128, copied = c_at + c_rows * 128;
    static constexpr int barriers_at = stages * stage, bytes = barriers_at + 2 * stages * 8;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

static __device__ __forceinline__ uint32_t pn_dconv_times(uint32_t a, uint32_t b) {
    uint32_t y;
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
    return y;
}
/* Piece `piece` of 16 bytes of row `row` of 64. */
static __device__ __forceinline__ uint32_t pn_dconv_short_piece(int row, int piece) {
    return (uint32_t)(row * 64 + (piece ^ row / 2 % 4) * 16);
}
/* Full and empty barriers one after the other, of `n` stages, which `warps` warps free. */
static __device__ __forceinline__ void pn_dconv_make_stages(uint32_t at, int n, uint32_t warps) {
    for (int i = 0; i < n; i++) {
        pn_barrier_make(at + 8 * i, 1);
        pn_barrier_make(at + 8 * (n + i), warps);
    }
}
/* Turns of `n` warpgroups with the tensor cores, this one number `group`: otherwise they would multiply together, and
 * then make fragments together. */
static __device__ __forceinline__ void pn_dconv_wait_turn(int group) {
    pn_dconv_meet(1 + group);
}
static __device__ __forceinline__ void pn_dconv_pass_turn(int group, int n) {
    pn_dconv_let(1 + (group + 1 < n ? group + 1 : 0));
}

/* A fragment's pair, or zeros where the first or the second of its two is before the document. */
static __device__ __forceinline__ uint32_t pn_dconv_inside(uint32_t pair, bool first, bool second) {
    return pair & ((first ? 0xffffu : 0) | (second ? 0xffff0000u : 0));
}

static __device__ __forceinline__ void pn_dconv_copy_w2(const pn_dconv_product_maps &maps, int64_t channels,
                                                        int64_t rank, int column0, uint32_t memory) {
    typedef pn_dconv_hidden_shared size;
    const uint32_t full = memory + size::barriers_at, empty = full + 8 * size::stages;
    const int block = (int)pn_cluster_rank(), taps = PN_DCONV_WIDTH / PN_DCONV_CLUSTER;
    pn_ring<size::stages> at;
    for (int channel = 0; channel < channels; channel += PN_DCONV_HIDDEN_CHANNELS, at.next()) {
        pn_barrier_wait(empty + 8 * at.stage, at.parity ^ 1);
        pn_barrier_expect(full + 8 * at.stage, size::stage);
        if (maps.whole) {
            pn_copy_box(memory + (uint32_t)(at.stage * size::stage + block * taps * size::pieces * size::piece),
                        &maps.right, 0, channel, column0 / PN_DCONV_PIECE, block * taps, full + 8 * at.stage,
                        (1u << PN_DCONV_CLUSTER) - 1);
            continue;
        }
        for (int i = block * taps * size::pieces; i < (block + 1) * taps * size::pieces; i++) {
            const int column = i / size::pieces * (int)rank + column0 + i % size::pieces * PN_DCONV_PIECE;
            pn_copy_piece(memory + (uint32_t)(at.stage * size::stage + i * size::piece), &maps.right, column, channel,
                          full + 8 * at.stage, (1u << PN_DCONV_CLUSTER) - 1);
        }
    }
}
static __device__ __forceinline__ void pn_dconv_copy_slabs(const pn_dconv_product_maps &maps, int64_t channels,
                                                           int token0, uint32_t memory) {
    typedef pn_dconv_hidden_shared size;
    const uint32_t full = memory + size::barriers_at + 16 * size::stages, empty = full + 8 * size::slabs;
    pn_ring<size::slabs> at;
    for (int channel = 0; channel < channels; channel += PN_DCONV_HIDDEN_SLAB, at.next()) {
        const uint32_t to = memory + (uint32_t)(size::slabs_at + at.stage * size::slab);
        pn_barrier_wait(empty + 8 * at.stage, at.parity ^ 1);
        pn_barrier_expect(full + 8 * at.stage, size::copied);
        pn_copy_piece(to, &maps.p, channel, token0, full + 8 * at.stage, 1);
        pn_copy_piece(to + size::p, &maps.c, channel, token0 - PN_DCONV_BACK, full + 8 * at.stage, 1);
    }
}

/* y = dK w2 for a warpgroup's tokens, of which this thread's are `row` and `row` + 8 of the block's. */
static __device__ __forceinline__ void pn_dconv_multiply_hidden(const pn_cuda_docs &docs, int64_t channels, int token0,
                                                                uint32_t memory, int group, int row,
                                                                float (*y)[24][4]) {
    typedef pn_dconv_hidden_shared size;
    const uint32_t full = memory + size::barriers_at, empty = full + 8 * size::stages;
    const uint32_t slab_full = full + 16 * size::stages, slab_empty = slab_full + 8 * size::slabs;
    const uint32_t lane = threadIdx.x % 32;
    const int s[2] = { pn_dconv_position(docs, token0 + row), pn_dconv_position(docs, token0 + row + 8) };
    const bool near = __any_sync(~0u, s[0] < PN_DCONV_BACK || s[1] < PN_DCONV_BACK);
    const int line = row - (int)lane / 4 + (int)lane % 16; /* whose address this lane gives */
    pn_ring<size::stages> at;
    pn_ring<size::slabs> of;
    if (group + 1 == PN_DCONV_GROUPS) pn_dconv_pass_turn(group, PN_DCONV_GROUPS);
    for (int slab = 0; slab < channels; slab += PN_DCONV_HIDDEN_SLAB, of.next()) {
        const uint32_t p = memory + (uint32_t)(size::slabs_at + of.stage * size::slab), c = p + size::p;
        const int steps = (int)min((channels - slab + PN_DCONV_HIDDEN_CHANNELS - 1) / PN_DCONV_HIDDEN_CHANNELS,
                                   (int64_t)(PN_DCONV_HIDDEN_SLAB / PN_DCONV_HIDDEN_CHANNELS));
        pn_barrier_wait(slab_full + 8 * of.stage, of.parity);
        for (int q = 0; q < steps; q++, at.next()) {
            const int piece = 2 * q + (int)lane / 16;
            uint32_t a[PN_DCONV_WIDTH][4], of_p[4];
            pn_load4(of_p, p + pn_dconv_short_piece(line, piece));
#pragma unroll
            for (int w = 0; w < PN_DCONV_WIDTH; w++) {
                pn_load4(a[w], c + pn_dconv_short_piece(line + w, piece));
#pragma unroll
                for (int i = 0; i < 4; i++) a[w][i] = pn_dconv_times(of_p[i], a[w][i]);
            }
            if (near) {
#pragma unroll
                for (int w = 0; w < PN_DCONV_BACK; w++)
#pragma unroll
                    for (int i = 0; i < 4; i++) a[w][i] = s[i % 2] + w >= PN_DCONV_BACK ? a[w][i] : 0;
            }
            pn_barrier_wait(full + 8 * at.stage, at.parity);
            const uint64_t b = pn_operand(memory + (uint32_t)(at.stage * size::stage), size::piece, 1024, 1);
            pn_dconv_wait_turn(group);
            pn_warpgroup_begin();
#pragma unroll
            for (int w = 0; w < PN_DCONV_WIDTH; w++)
#pragma unroll
                for (int half = 0; half < 2; half++)
                    pn_warpgroup<192>::add<true>(y[half], a[w],
                                                 b + (uint64_t)((w * size::pieces + half * 3) * size::piece / 16));
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            pn_dconv_pass_turn(group, PN_DCONV_GROUPS);
            asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
            pn_warpgroup_keep(y[0], 24);
            pn_warpgroup_keep(y[1], 24);
            if (lane < PN_DCONV_CLUSTER) pn_barrier_arrive(empty + 8 * at.stage, lane);
        }
        if (lane == 0) pn_barrier_arrive(slab_empty + 8 * of.stage, pn_cluster_rank());
    }
    if (group == 0) pn_dconv_wait_turn(group);
}

#endif

/* Blocks: along x the tokens, along y the columns of h. */
static __global__ void __launch_bounds__(PN_DCONV_BOUNDS, 1)
    pn_dconv_add_hidden(const __grid_constant__ pn_dconv_product_maps maps, const __grid_constant__ pn_cuda_docs docs,
                        int64_t channels, int64_t rank, pn_bf16 *dh, bool adds) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    typedef pn_dconv_hidden_shared size;
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t at = pn_shared(memory);
    const int token0 = (int)blockIdx.x * PN_DCONV_HIDDEN_TOKENS, column0 = (int)blockIdx.y * PN_DCONV_HIDDEN_COLUMNS;
    if (threadIdx.x == 0) {
        pn_dconv_make_stages(at + size::barriers_at, size::stages, 4 * PN_DCONV_GROUPS * PN_DCONV_CLUSTER);
        pn_dconv_make_stages(at + size::barriers_at + 16 * size::stages, size::slabs, 4 * PN_DCONV_GROUPS);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    pn_cluster_meet();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 0) pn_dconv_copy_w2(maps, channels, rank, column0, at);
        if (threadIdx.x == 32) pn_dconv_copy_slabs(maps, channels, token0, at);
        __syncwarp();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        const int group = (int)threadIdx.x / 128 - 1;
        const pn_dconv_place place((int)threadIdx.x % 128);
        const int row = PN_DCONV_TILE * group + 16 * place.warp + place.l;
        float y[2][24][4] = {};
        pn_dconv_multiply_hidden(docs, channels, token0, at, group, row, y);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int64_t token = token0 + row + 8 * r;
            if (token >= docs.tokens) continue;
#pragma unroll
            for (int i = 0; i < 48; i++) {
                const int column = column0 + 8 * i + 2 * place.t;
                if (column >= rank) continue;
                uint32_t *to = (uint32_t *)(dh + token * rank + column);
                const float *sum = y[i / 24][i % 24] + 2 * r;
                const uint32_t had = adds ? *to : 0;
                *to = pn_bf16_pair(pn_bf16_first(had) + sum[0], pn_bf16_second(had) + sum[1]);
            }
        }
    }
    pn_cluster_meet(); /* the other block may still arrive here */
#endif
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

static __device__ __forceinline__ void pn_dconv_copy_tokens(const pn_dconv_product_maps &maps, int tiles, int channel0,
                                                            int column0, uint32_t memory) {
    typedef pn_dconv_weight_shared size;
    const uint32_t full = memory + size::barriers_at, empty = full + 8 * size::stages;
    const uint32_t all = (1u << PN_DCONV_CLUSTER) - 1;
    const int block = (int)pn_cluster_rank();
    pn_ring<size::stages> at;
    for (int i = 0; i < tiles; i++, at.next()) {
        const uint32_t to = memory + (uint32_t)(at.stage * size::stage), hears = full + 8 * at.stage;
        const int token = i * PN_DCONV_TILE;
        pn_barrier_wait(empty + 8 * at.stage, at.parity ^ 1);
        pn_barrier_expect(hears, size::copied);
        const uint32_t h = to + (uint32_t)(block * size::pieces * size::piece);
        if (maps.whole)
            pn_copy_box(h, &maps.right, 0, token + block * size::half, column0 / PN_DCONV_PIECE, 0, hears, all);
        for (int j = 0; j < size::pieces && !maps.whole; j++)
            pn_copy_piece(h + (uint32_t)(j * size::piece), &maps.right, column0 + j * PN_DCONV_PIECE,
                          token + block * size::half, hears, all);
        pn_copy_piece(to + size::p_at, &maps.p, channel0, token, hears, 1);
        pn_copy_piece(to + size::c_at, &maps.c, channel0, token - PN_DCONV_BACK, hears, 1);
    }
}

/* The documents of the third token before tile i and of its last: they differ where one begins in between. */
static __device__ __forceinline__ int2 pn_dconv_ask_documents(const pn_cuda_docs &docs, int i) {
    const int64_t first = (int64_t)i * PN_DCONV_TILE, last = min(first + PN_DCONV_TILE, docs.tokens) - 1;
    if (first >= docs.tokens) return { 0, 0 };
    return { i ? docs.doc[first - PN_DCONV_BACK] : -1, docs.doc[last] };
}

/* y = dK^T h for the warp's channels, eight from piece `octet` of the block's on, and taps, two from `tap` on; sum: of
 * dK of this thread's tokens, of its channel and each tap. */
template <bool Sums>
static __device__ __forceinline__ void pn_dconv_multiply_weights(const pn_cuda_docs &docs, int tiles, uint32_t memory,
                                                                 int group, int octet, int tap, float (*y)[4],
                                                                 float sum[2]) {
    typedef pn_dconv_weight_shared size;
    const uint32_t full = memory + size::barriers_at, empty = full + 8 * size::stages;
    const int lane = (int)threadIdx.x % 32;
    /* Rows of c whose address this lane gives: two taps of eight tokens, then of the next eight. */
    const int line = 8 * (lane / 16) + lane % 8 + lane / 8 % 2 + tap;
    int2 documents = pn_dconv_ask_documents(docs, 0);
    pn_ring<size::stages> at;
    if (group + 1 == PN_DCONV_WEIGHT_GROUPS) pn_dconv_pass_turn(group, PN_DCONV_WEIGHT_GROUPS);
    for (int i = 0; i < tiles; i++, at.next()) {
        const uint32_t h = memory + (uint32_t)(at.stage * size::stage), p = h + size::p_at, c = h + size::c_at;
        const bool near = pn_dconv_differ(documents);
        uint32_t a[4][4], of_p[4];
        documents = pn_dconv_ask_documents(docs, i + 1); /* read ahead */
        pn_barrier_wait(full + 8 * at.stage, at.parity);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (k % 2 == 0) pn_load4_transposed(of_p, p + pn_dconv_piece(16 * k + lane, octet));
            pn_load4_transposed(a[k], c + pn_dconv_piece(16 * k + line, octet));
#pragma unroll
            for (int j = 0; j < 4; j++) a[k][j] = pn_dconv_times(of_p[k % 2 * 2 + j / 2], a[k][j]);
        }
        if (near) {
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const int token = i * PN_DCONV_TILE + 16 * k + j / 2 * 8 + lane % 4 * 2, w = tap + j % 2;
                    a[k][j] = pn_dconv_inside(a[k][j], pn_dconv_position(docs, token) + w >= PN_DCONV_BACK,
                                              pn_dconv_position(docs, token + 1) + w >= PN_DCONV_BACK);
                }
        }
        if (Sums) {
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int j = 0; j < 4; j++) sum[j % 2] += pn_bf16_first(a[k][j]) + pn_bf16_second(a[k][j]);
        }
        const uint64_t b = pn_operand(h, size::piece, 1024, 1);
        pn_dconv_wait_turn(group);
        pn_warpgroup_begin();
#pragma unroll
        for (int k = 0; k < 4; k++)
            pn_warpgroup<PN_DCONV_WEIGHT_COLUMNS>::add<true>(
                y, a[k], b + (uint64_t)((16 * k / size::half * size::pieces * size::half + 16 * k % size::half) * 8));
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        pn_dconv_pass_turn(group, PN_DCONV_WEIGHT_GROUPS);
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        pn_warpgroup_keep(y, PN_DCONV_WEIGHT_COLUMNS / 8);
        if (lane < PN_DCONV_CLUSTER) pn_barrier_arrive(empty + 8 * at.stage, (uint32_t)lane);
    }
    if (group == 0) pn_dconv_wait_turn(group);
}

#endif

/* What it makes; NULL where it is not wanted. */
struct pn_dconv_weights {
    float *dw2, *db2;
    bool adds_dw2, adds_db2; /* else it holds nothing yet */
};

/* Blocks: along x the channels, along y the columns of h. */
static __global__ void __launch_bounds__(PN_DCONV_WEIGHT_BOUNDS, 1)
    pn_dconv_add_weights(const __grid_constant__ pn_dconv_product_maps maps, const __grid_constant__ pn_cuda_docs docs,
                         int64_t channels, int64_t rank, pn_dconv_weights to) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    typedef pn_dconv_weight_shared size;
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t at = pn_shared(memory);
    const int channel0 = (int)blockIdx.x * PN_DCONV_WEIGHT_CHANNELS;
    const int column0 = (int)blockIdx.y * PN_DCONV_WEIGHT_COLUMNS;
    const int tiles = (int)((docs.tokens + PN_DCONV_TILE - 1) / PN_DCONV_TILE);
    if (threadIdx.x == 0) {
        pn_dconv_make_stages(at + size::barriers_at, size::stages, 4 * PN_DCONV_WEIGHT_GROUPS * PN_DCONV_CLUSTER);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    pn_cluster_meet();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
        if (threadIdx.x == 0) pn_dconv_copy_tokens(maps, tiles, channel0, column0, at);
        __syncwarp();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
        const pn_dconv_place place((int)threadIdx.x % 128);
        const int group = (int)threadIdx.x / 128 - 1;
        const int octet = 2 * group + place.warp / 2, tap = 2 * (place.warp % 2);
        const int channel = channel0 + 8 * octet + place.l;
        const int64_t row = (int64_t)channel * PN_DCONV_WIDTH + tap;
        float y[PN_DCONV_WEIGHT_COLUMNS / 8][4] = {}, sum[2] = {};
        if (column0 == 0 && to.db2)
            pn_dconv_multiply_weights<true>(docs, tiles, at, group, octet, tap, y, sum);
        else
            pn_dconv_multiply_weights<false>(docs, tiles, at, group, octet, tap, y, sum);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
            sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
            if (channel >= channels) continue;
            if (column0 == 0 && to.db2 && place.t == 0)
                to.db2[row + r] = to.adds_db2 ? to.db2[row + r] + sum[r] : sum[r];
            if (!to.dw2) continue;
#pragma unroll
            for (int i = 0; i < PN_DCONV_WEIGHT_COLUMNS / 8; i++) {
                const int column = column0 + 8 * i + 2 * place.t;
                if (column >= rank) continue;
                float2 *pair = (float2 *)(to.dw2 + (row + r) * rank + column);
                const float2 had = to.adds_dw2 ? *pair : make_float2(0, 0);
                *pair = make_float2(had.x + y[i][2 * r], had.y + y[i][2 * r + 1]);
            }
        }
    }
    pn_cluster_meet(); /* the other block may still arrive here */
#endif
}

#endif
