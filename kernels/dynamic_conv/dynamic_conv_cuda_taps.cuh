/* The taps of 64 tokens and C channels, K = h w2^T, by the tensor cores of compute capability 9.0a, from shared memory
 * into the registers of a warpgroup.
 *
 * A block keeps the rows of w2 of its channels for as long as it lives. h flows through a ring of slots of 64 columns,
 * and c comes by tiles, as the copying warpgroup asks the copy engine for them; two blocks of neighbouring channels
 * are a cluster, of which each fetches half of h for both. Two warpgroups take turns with the tensor cores: while one
 * multiplies, the other uses its taps. (Left to themselves they would multiply together and then use their taps
 * together.)
 *
 * Which row of w2 is which column of the product is ours to say. Here a thread gets all four taps of a channel, and
 * four neighbouring channels of every 16; and which token is which row: its two tokens are neighbours. So even and odd
 * tokens are copied apart, of h to every other eight rows, of c to one half each. */
#ifndef PN_KERNELS_DYNAMIC_CONV_CUDA_TAPS_CUH
#define PN_KERNELS_DYNAMIC_CONV_CUDA_TAPS_CUH

#include "cuda/channels.cuh"
#include "cuda/cluster.cuh"
#include "cuda/element.cuh"
#include "cuda/tensor_core.cuh"
#include "cuda/warpgroup.cuh"

extern "C" {
#include "cuda/staged_cuda.h"
}

enum {
    PN_DCONV_WIDTH = 4,
    PN_DCONV_BACK = PN_DCONV_WIDTH - 1,
    PN_DCONV_TILE = 64, /* tokens */
    PN_DCONV_STEP = 64, /* columns of h in a slot: rows of 128 bytes */
    PN_DCONV_SLOTS = 8,
    PN_DCONV_CLUSTER = 2, /* blocks */
    PN_DCONV_GROUPS = 2,  /* warpgroups of a block that multiply, after the one that copies */
    PN_DCONV_MULTIPLY = 128 * PN_DCONV_GROUPS,
    PN_DCONV_THREADS = 128 + PN_DCONV_MULTIPLY,
    /* A kernel without the instructions it needs says so by its launch bounds, which the host asks. */
    PN_DCONV_BOUNDS = PN_HAVE_WARPGROUP ? PN_DCONV_THREADS : 32
};

typedef struct pn_dconv_cuda {
    pn_cuda_docs docs;
    const pn_bf16 *w2, *state; /* state may be NULL */
    const float *b2;
    int64_t channels, rank; /* multiples of 8 */
} pn_dconv_cuda;

/* Of the even tokens and of the odd ones: pieces of h, 8 tokens and 64 columns; of c, a tile's and the two before, C
 * channels. share: 64 columns of h for a block's share of a tile, where all of that exists. */
typedef struct pn_dconv_maps {
    CUtensorMap h[2], c[2], share;
} pn_dconv_maps;

/* Slots for all columns of h. */
static __host__ __device__ inline int pn_dconv_steps(int64_t rank) {
    return (int)((rank + PN_DCONV_STEP - 1) / PN_DCONV_STEP);
}

/* Shared memory of a block, in bytes from a multiple of 1024 on. */
template <int C> struct pn_dconv_shared {
    static constexpr int columns = C * PN_DCONV_WIDTH;
    static constexpr int strip = columns * 128; /* rows of w2, 64 columns of them */
    static constexpr int slot = PN_DCONV_TILE * 128;
    static constexpr int value_row = 2 * C; /* of c; 8 neighbouring rows of 96 bytes meet every bank as often */
    static constexpr int value_rows = PN_DCONV_TILE / 2 + 2;
    static constexpr int half = (value_rows * value_row + 127) / 128 * 128; /* even tokens, then odd ones */
    static constexpr int halo = PN_DCONV_BACK * C * 4;                      /* three tokens of floats: backward */
    static_assert(C % 16 == 0, "whole fragments");

    int steps; /* strips of w2 */
    __host__ __device__ int slots_at() const { return steps * strip; }
    __host__ __device__ int values_at() const { return slots_at() + PN_DCONV_SLOTS * slot; }
    __host__ __device__ int barriers_at() const { return values_at() + PN_DCONV_GROUPS * 2 * half; }
    __host__ __device__ int halo_at() const { return barriers_at() + 2 * (PN_DCONV_SLOTS + PN_DCONV_GROUPS) * 8; }
    __host__ __device__ int bytes(bool backward) const {
        return halo_at() + (backward ? PN_DCONV_GROUPS * 5 * halo : 0);
    }
};

/* The tiles of a block, first, first + step, ..., which its warpgroups have in turn; the blocks of a cluster have the
 * same ones. */
struct pn_dconv_tiles {
    int first, step, count;
    __device__ __forceinline__ int tile(int i) const { return first + i * step; }
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* All threads of the warpgroup. */
static __device__ __forceinline__ void pn_dconv_sync(int group) {
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
}

/* Two warpgroups: this one waits for the other, or only lets it go on. */
static __device__ __forceinline__ void pn_dconv_meet(int barrier) {
    asm volatile("bar.sync %0, 256;" ::"r"(barrier) : "memory");
}
static __device__ __forceinline__ void pn_dconv_let(int barrier) {
    asm volatile("bar.arrive %0, 256;" ::"r"(barrier) : "memory");
}

/* clang-format off */
#define PN_Y(i) "+f"(y[i][0]), "+f"(y[i][1]), "+f"(y[i][2]), "+f"(y[i][3])
#define PN_Y4(i) PN_Y(i), PN_Y(i + 1), PN_Y(i + 2), PN_Y(i + 3)
#define PN_R0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define PN_R1 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PN_R2 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define PN_R3 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define PN_R4 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define PN_R5 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"

/* y[64, N] = a[64, 16] b[N, 16]^T, or += it; both in shared memory in rows of 128 bytes with the 128-byte swizzle. */
template <int N> struct pn_dconv_product;
#define PN_DCONV_PRODUCT(N, RESULT, A, B, KEEP, ...)                                                               \
    template <> struct pn_dconv_product<N> {                                                                       \
        static __device__ __forceinline__ void add(float (*y)[4], uint64_t a, uint64_t b, int keep) {              \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " KEEP ", 0;\n"                                         \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" RESULT "}, " A ", " B        \
                         ", p, 1, 1, 0, 0;\n}"                                                                     \
                         : __VA_ARGS__                                                                             \
                         : "l"(a), "l"(b), "r"(keep));                                                             \
        }                                                                                                          \
    };
PN_DCONV_PRODUCT(128, PN_R0 ", " PN_R1 ", " PN_R2 ", " PN_R3, "%64", "%65", "%66", PN_Y4(0), PN_Y4(4), PN_Y4(8), PN_Y4(12))
PN_DCONV_PRODUCT(192, PN_R0 ", " PN_R1 ", " PN_R2 ", " PN_R3 ", " PN_R4 ", " PN_R5, "%96", "%97", "%98", PN_Y4(0), PN_Y4(4), PN_Y4(8), PN_Y4(12), PN_Y4(16), PN_Y4(20))
#undef PN_DCONV_PRODUCT
#undef PN_Y
#undef PN_Y4
#undef PN_R0
#undef PN_R1
#undef PN_R2
#undef PN_R3
#undef PN_R4
#undef PN_R5
/* clang-format on */

/* Piece `piece` of 16 bytes of row `row` of 128. */
static __device__ __forceinline__ uint32_t pn_dconv_piece(int row, int piece) {
    return (uint32_t)(row * 128 + (piece ^ row % 8) * 16);
}
static __device__ __forceinline__ uint64_t pn_dconv_operand(uint32_t at) {
    return pn_operand(at, 16, 1024, 1);
}

/* The channel and tap of a column, among those of the block. */
static __device__ __forceinline__ int pn_dconv_channel_of(int column) {
    const int pair = column / 16;
    return 16 * (pair / 4) + 4 * (column % 8 / 2) + pair % 4;
}
static __device__ __forceinline__ int pn_dconv_tap_of(int column) {
    return 2 * (column / 8 % 2) + column % 2;
}

/* Where a block's barriers are: of slots of h, and of the values of each warpgroup. */
struct pn_dconv_barriers {
    uint32_t full, empty, values_full, values_empty;
    __device__ explicit pn_dconv_barriers(uint32_t at)
        : full(at), empty(full + 8 * PN_DCONV_SLOTS), values_full(empty + 8 * PN_DCONV_SLOTS),
          values_empty(values_full + 8 * PN_DCONV_GROUPS) {}
    /* By one thread. */
    __device__ __forceinline__ void make() const {
        for (int i = 0; i < PN_DCONV_SLOTS; i++) {
            pn_barrier_make(full + 8 * i, 1);
            pn_barrier_make(empty + 8 * i, 4 * PN_DCONV_CLUSTER); /* the warps that multiply */
        }
        for (int i = 0; i < PN_DCONV_GROUPS; i++) {
            pn_barrier_make(values_full + 8 * i, 1);
            pn_barrier_make(values_empty + 8 * i, 4);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
};

/* One thread: all slots of h, in the order of turns. */
static __device__ __forceinline__ void pn_dconv_copy_hidden(const pn_dconv_maps &maps, const pn_dconv_tiles &tiles,
                                                            int64_t tokens, int steps, uint32_t slots,
                                                            const pn_dconv_barriers &bar) {
    constexpr int slot = PN_DCONV_TILE * 128, share = PN_DCONV_TILE / PN_DCONV_CLUSTER;
    constexpr uint32_t all = (1u << PN_DCONV_CLUSTER) - 1;
    const int rank = (int)pn_cluster_rank();
    pn_ring<PN_DCONV_SLOTS> at;
    for (int i = 0; i < tiles.count; i++) {
        const int first = tiles.tile(i) * PN_DCONV_TILE + share * rank;
        for (int s = 0; s < steps; s++, at.next()) {
            pn_barrier_wait(bar.empty + 8 * at.stage, at.parity ^ 1);
            pn_barrier_expect(bar.full + 8 * at.stage, slot);
            const uint32_t to = slots + (uint32_t)(at.stage * slot + rank * share * 128);
            if (first + share <= tokens) {
                pn_copy_box(to, &maps.share, s * PN_DCONV_STEP, 0, 0, first / 16, bar.full + 8 * at.stage, all);
                continue;
            }
            for (int k = 0; k < share / 8; k++)
                pn_copy_piece(to + (uint32_t)(k * 1024), &maps.h[k % 2], s * PN_DCONV_STEP, first / 2 + k / 2 * 8,
                              bar.full + 8 * at.stage, all);
        }
    }
}
/* Another: the values of all tiles. */
template <int C>
static __device__ __forceinline__ void pn_dconv_copy_values(const pn_dconv_maps &maps, const pn_dconv_tiles &tiles,
                                                            int channel0, uint32_t values,
                                                            const pn_dconv_barriers &bar) {
    typedef pn_dconv_shared<C> shared;
    for (int i = 0; i < tiles.count; i++) {
        const int group = i % PN_DCONV_GROUPS, pair = tiles.tile(i) * PN_DCONV_TILE / 2 - 2;
        pn_barrier_wait(bar.values_empty + 8 * group, i / PN_DCONV_GROUPS % 2 ^ 1);
        pn_barrier_expect(bar.values_full + 8 * group, 2 * shared::value_rows * shared::value_row);
        for (int odd = 0; odd < 2; odd++)
            pn_copy_piece(values + (uint32_t)((2 * group + odd) * shared::half), &maps.c[odd], channel0, pair,
                          bar.values_full + 8 * group, 1);
    }
}

/* Position of a token in its document; those that do not exist are far from its start. */
static __device__ __forceinline__ int pn_dconv_position(const pn_cuda_docs &docs, int64_t token) {
    return token < docs.tokens ? (int)token - docs.offset[docs.doc[token]] : PN_DCONV_TILE;
}

/* Two documents that were asked for before: not waited for until here. */
static __device__ __forceinline__ bool pn_dconv_differ(int2 documents) {
    asm volatile("" : "+r"(documents.x), "+r"(documents.y));
    return documents.x != documents.y;
}

/* What a thread that multiplies has. */
template <int C> struct pn_dconv_walk {
    typedef pn_dconv_shared<C> shared;

    const pn_dconv_cuda &v;
    const pn_dconv_tiles &tiles;
    const int group, id, steps; /* id: of the thread in its warpgroup */
    const int channel0;         /* of the block */
    const uint32_t w2, slots;   /* addresses */
    const pn_dconv_barriers bar;
    const unsigned char *value_rows;

    __device__ pn_dconv_walk(const pn_dconv_cuda &of, const pn_dconv_tiles &of_tiles, unsigned char *memory,
                             int first_channel)
        : v(of), tiles(of_tiles), group((int)threadIdx.x / 128 - 1), id((int)threadIdx.x % 128),
          steps(pn_dconv_steps(of.rank)), channel0(first_channel), w2(pn_shared(memory)),
          slots(w2 + (uint32_t)shared{ steps }.slots_at()), bar(w2 + (uint32_t)shared{ steps }.barriers_at()),
          value_rows(memory + shared{ steps }.values_at() + group * 2 * shared::half) {}

    /* Before anything else: the block's rows of w2, and b2 of the thread's channels, 16 u + 4 t + i. */
    __device__ __forceinline__ void open(float4 (*bias)[4]) {
        const int64_t rows = v.channels * PN_DCONV_WIDTH;
        const int first = (int)threadIdx.x - 128, piece = first % 8;
        for (int column = first / 8; column < shared::columns; column += PN_DCONV_MULTIPLY / 8) {
            const int64_t row =
                (int64_t)(channel0 + pn_dconv_channel_of(column)) * PN_DCONV_WIDTH + pn_dconv_tap_of(column);
            const pn_bf16 *from = v.w2 + row * v.rank;
            const uint32_t to = w2 + pn_dconv_piece(column, piece);
            for (int s = 0; s < steps; s++) {
                const int at = s * PN_DCONV_STEP + 8 * piece;
                const bool there = row < rows && at < v.rank;
                pn_copy16(to + (uint32_t)(s * shared::strip), there ? from + at : v.w2, there);
            }
        }
        pn_copies_commit();
#pragma unroll
        for (int i = 0; i < C / 4; i++) {
            const int channel = channel0 + i / 4 * 16 + id % 4 * 4 + i % 4;
            bias[i / 4][i % 4] = channel < v.channels ? ((const float4 *)v.b2)[channel] : make_float4(0, 0, 0, 0);
        }
        pn_copies_wait<0>();
        pn_warpgroup_see();
        asm volatile("bar.sync %0, %1;" ::"r"(1 + PN_DCONV_GROUPS), "r"(PN_DCONV_MULTIPLY) : "memory");
    }
    __device__ __forceinline__ int group_after() const {
        return group + 1 < PN_DCONV_GROUPS ? group + 1 : 0;
    }
    __device__ __forceinline__ int group_before() const {
        return group ? group - 1 : PN_DCONV_GROUPS - 1;
    }
    /* y = the taps of the block's tile number i, less b2. The warpgroups take turns with the tensor cores. */
    __device__ __forceinline__ void taps(int i, float (*y)[4]) const {
        const int before = i * steps;
        pn_ring<PN_DCONV_SLOTS> at = { before % PN_DCONV_SLOTS, (uint32_t)(before / PN_DCONV_SLOTS % 2) };
        int last = 0; /* the slot of products under way */
        if (i > 0) pn_dconv_meet(2 + PN_DCONV_GROUPS + group);
        for (int s = 0; s < steps; s++, at.next()) {
            pn_barrier_wait(bar.full + 8 * at.stage, at.parity);
            const uint64_t a = pn_dconv_operand(slots + (uint32_t)(at.stage * shared::slot));
            const uint64_t b = pn_dconv_operand(w2 + (uint32_t)(s * shared::strip));
            pn_warpgroup_begin();
#pragma unroll
            for (int q = 0; q < PN_DCONV_STEP / 16; q++) /* of 32 bytes */
                pn_dconv_product<shared::columns>::add(y, a + 2 * q, b + 2 * q, s + q);
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            if (s + 1 == steps && i + 1 < tiles.count) pn_dconv_let(2 + PN_DCONV_GROUPS + group_after());
            asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
            if (s) release(last);
            last = at.stage;
        }
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        release(last);
        pn_warpgroup_keep(y, shared::columns / 8);
    }
    /* What the warpgroup of tile i - 1 wrote before this is there, and what this one wrote. */
    __device__ __forceinline__ void hand_over(int i) const {
        if (i > 0)
            pn_dconv_meet(2 + 2 * PN_DCONV_GROUPS + group);
        else
            pn_dconv_sync(group);
        if (i + 1 < tiles.count) pn_dconv_let(2 + 2 * PN_DCONV_GROUPS + group_after());
    }
    /* In both blocks: either fills the other's slots. */
    __device__ __forceinline__ void release(int slot) const {
        if (id % 32 < PN_DCONV_CLUSTER) pn_barrier_arrive(bar.empty + 8 * slot, (uint32_t)(id % 32));
    }
    __device__ __forceinline__ void wait_values(int i) const {
        pn_barrier_wait(bar.values_full + 8 * group, (uint32_t)(i / PN_DCONV_GROUPS % 2));
    }
    __device__ __forceinline__ void release_values() const {
        __syncwarp();
        if (id % 32 == 0) pn_barrier_arrive(bar.values_empty + 8 * group, pn_cluster_rank());
    }
    /* The windows of `token`, which is row `row` of the tile, and of the next, four channels from `channel` (of the
     * block) on. Near: their positions s in their documents may be below 3, and what is before comes from the state. */
    template <bool Near>
    __device__ __forceinline__ void windows(int token, int row, int channel, const int s[2],
                                            float x[2][PN_DCONV_WIDTH][4]) const {
#pragma unroll
        for (int m = 0; m <= PN_DCONV_WIDTH; m++) { /* from the third token before on, an odd one */
            const unsigned char *from = value_rows + (1 - m % 2) * shared::half;
            const uint2 pairs = *(const uint2 *)(from + (row / 2 + (m + 1) / 2) * shared::value_row + channel * 2);
            const float of_token[4] = { pn_bf16_first(pairs.x), pn_bf16_second(pairs.x), pn_bf16_first(pairs.y),
                                        pn_bf16_second(pairs.y) };
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (m < PN_DCONV_WIDTH) x[0][m][i] = of_token[i];
                if (m > 0) x[1][m - 1][i] = of_token[i];
            }
        }
#pragma unroll
        for (int r = 0; r < 2; r++)
            if (Near && s[r] < PN_DCONV_BACK) begin_window(token + r, channel, s[r], x[r]);
    }
    __device__ __forceinline__ void begin_window(int token, int channel, int s, float x[PN_DCONV_WIDTH][4]) const {
        const int64_t doc = v.docs.doc[token];
#pragma unroll
        for (int w = 0; w < PN_DCONV_BACK; w++) {
            if (s + w >= PN_DCONV_BACK) continue;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int64_t at = (doc * v.channels + channel0 + channel + i) * PN_DCONV_WIDTH + s + w + 1;
                x[w][i] = v.state && channel0 + channel + i < v.channels ? pn_load(v.state + at) : 0;
            }
        }
    }
    /* The documents of the third before a token and of the next: asked for ahead, and looked at after the products. */
    __device__ __forceinline__ int2 ask_documents(int token) const {
        if (token >= v.docs.tokens) return { 0, 0 };
        if (token < PN_DCONV_BACK) return { -1, 0 };
        return { v.docs.doc[token - PN_DCONV_BACK], v.docs.doc[min(token + 1, (int)v.docs.tokens - 1)] };
    }
};

/* The copying warpgroup. */
template <int C>
static __device__ __forceinline__ void pn_dconv_copy(const pn_dconv_cuda &v, const pn_dconv_maps &maps,
                                                     const pn_dconv_tiles &tiles, unsigned char *memory, int channel0) {
    const pn_dconv_shared<C> shared = { pn_dconv_steps(v.rank) };
    const uint32_t at = pn_shared(memory);
    const pn_dconv_barriers bar(at + (uint32_t)shared.barriers_at());
    if (threadIdx.x == 0)
        pn_dconv_copy_hidden(maps, tiles, v.docs.tokens, shared.steps, at + (uint32_t)shared.slots_at(), bar);
    if (threadIdx.x == 32) pn_dconv_copy_values<C>(maps, tiles, channel0, at + (uint32_t)shared.values_at(), bar);
    __syncwarp();
}
/* By all threads, before and after everything else. */
template <int C> static __device__ __forceinline__ void pn_dconv_begin(const pn_dconv_cuda &v, unsigned char *memory) {
    const pn_dconv_shared<C> shared = { pn_dconv_steps(v.rank) };
    if (threadIdx.x == 0) pn_dconv_barriers(pn_shared(memory) + (uint32_t)shared.barriers_at()).make();
    pn_cluster_meet();
}
static __device__ __forceinline__ void pn_dconv_end() {
    pn_cluster_meet(); /* the other block may still arrive here */
}

/* Where a thread's two tokens, from `row` on, and channels are in a tile. */
struct pn_dconv_place {
    int warp, lane, l, t, row;
    __device__ pn_dconv_place(int id)
        : warp(id / 32), lane(id % 32), l(lane / 4), t(lane % 4), row(16 * warp + 2 * l) {}
};

/* K[channel i of 4][tap] of token r of the two, for channels 16 u + 4 t + i. */
static __device__ __forceinline__ void pn_dconv_taps_of(const float (*y)[4], int u, int r, const float4 b[4],
                                                        float K[4][PN_DCONV_WIDTH]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float *first = y[8 * u + 2 * i] + 2 * r, *second = y[8 * u + 2 * i + 1] + 2 * r;
        K[i][0] = first[0] + b[i].x, K[i][1] = first[1] + b[i].y;
        K[i][2] = second[0] + b[i].z, K[i][3] = second[1] + b[i].w;
    }
}
/* For what is not read again here: loads need not wait for it. */
static __device__ __forceinline__ void pn_dconv_put(pn_bf16 *to, const pn_channels<pn_bf16, 4> &x) {
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(x.pair[0]), "r"(x.pair[1]));
}
static __device__ __forceinline__ float pn_dconv_sum_of(const float K[PN_DCONV_WIDTH], const float x[PN_DCONV_WIDTH][4],
                                                        int i) {
    return K[0] * x[0][i] + K[1] * x[1][i] + K[2] * x[2][i] + K[3] * x[3][i];
}

#endif

#endif
