/* The taps of 64 tokens and C channels, K = h w2^T, by the tensor cores of compute capability 9.0a, from shared memory
 * into the registers of a warpgroup.
 *
 * A block of two warpgroups keeps the rows of w2 of its channels for as long as it lives, and h flows through slots of
 * 64 columns in shared memory, four for each of them. They take turns with the tensor cores: while one multiplies, the
 * other uses its taps. (Left to themselves they would multiply together and then use their taps together.)
 *
 * Which row of w2 is which column of the product is ours to say. Here a thread gets all four taps of a channel, and
 * four neighbouring channels of every 16: those of its token and of the one 8 further on. */
#ifndef PN_KERNELS_DYNAMIC_CONV_CUDA_TAPS_CUH
#define PN_KERNELS_DYNAMIC_CONV_CUDA_TAPS_CUH

#include "cuda/copy_engine.cuh"
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
    PN_DCONV_SLOTS = 4,
    PN_DCONV_GROUPS = 2, /* warpgroups of a block */
    PN_DCONV_THREADS = 128 * PN_DCONV_GROUPS,
    /* A kernel without the instructions it needs says so by its launch bounds, which the host asks. */
    PN_DCONV_BOUNDS = PN_HAVE_WARPGROUP ? PN_DCONV_THREADS : 32
};

typedef struct pn_dconv_cuda {
    pn_cuda_docs docs;
    const pn_bf16 *c, *h, *w2, *state; /* state may be NULL */
    const float *b2;
    int64_t channels, rank; /* multiples of 8 */
} pn_dconv_cuda;

/* Slots for all columns of h. */
static __host__ __device__ inline int pn_dconv_steps(int64_t rank) {
    return (int)((rank + PN_DCONV_STEP - 1) / PN_DCONV_STEP);
}

/* Shared memory of a block, in bytes from a multiple of 1024 on. */
template <int C> struct pn_dconv_shared {
    static constexpr int columns = C * PN_DCONV_WIDTH;
    static constexpr int strip = columns * 128; /* rows of w2, 64 columns of them */
    static constexpr int slot = PN_DCONV_TILE * 128;
    static constexpr int value_row = 96; /* of c: C channels; 8 neighbouring rows meet every bank as often */
    static constexpr int values = (PN_DCONV_TILE + PN_DCONV_BACK) * value_row;
    static constexpr int bias = columns * 4;
    static constexpr int halo = PN_DCONV_BACK * C * 4; /* three tokens of floats: backward */
    static_assert(C % 16 == 0 && 2 * C <= value_row, "whole rows");

    int steps; /* strips of w2 */
    __host__ __device__ int slots() const { return steps * strip; }
    __host__ __device__ int values_at() const { return slots() + PN_DCONV_GROUPS * PN_DCONV_SLOTS * slot; }
    __host__ __device__ int bias_at() const { return values_at() + PN_DCONV_GROUPS * values; }
    __host__ __device__ int arrivals_at() const { return bias_at() + bias; }
    __host__ __device__ int halo_at() const { return arrivals_at() + PN_DCONV_GROUPS * PN_DCONV_SLOTS * 8; }
    __host__ __device__ int bytes(bool backward) const {
        return halo_at() + (backward ? PN_DCONV_GROUPS * 5 * halo : 0);
    }
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* All threads of the warpgroup. */
static __device__ __forceinline__ void pn_dconv_sync(int group) {
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
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

/* A warpgroup's way through tiles first, first + step, .. (count of them) of 64 tokens from token0 on. */
template <int C> struct pn_dconv_walk {
    typedef pn_dconv_shared<C> shared;

    const pn_dconv_cuda &v;
    const CUtensorMap *h;                       /* pieces of 64 tokens and 64 columns */
    const int group, id, steps;                 /* id: of the thread in its warpgroup */
    const int64_t channel0;                     /* of the block */
    const uint32_t w2, slots, values, arrivals; /* addresses */
    const unsigned char *value_rows;            /* what is at `values` */
    int64_t token0;
    int first, step, count;                 /* tiles */
    int asked_tile, asked_step, asked_slot; /* what is copied next */
    int slot;                               /* what is multiplied next */
    uint32_t parity;                        /* of its copy */

    __device__ pn_dconv_walk(const pn_dconv_cuda &of, const CUtensorMap *of_h, unsigned char *memory,
                             int64_t first_channel, int64_t first_token)
        : v(of), h(of_h), group((int)threadIdx.x / 128), id((int)threadIdx.x % 128), steps(pn_dconv_steps(of.rank)),
          channel0(first_channel), w2(pn_shared(memory)),
          slots(w2 + (uint32_t)(shared{ steps }.slots() + group * PN_DCONV_SLOTS * shared::slot)),
          values(w2 + (uint32_t)(shared{ steps }.values_at() + group * shared::values)),
          arrivals(w2 + (uint32_t)(shared{ steps }.arrivals_at() + group * PN_DCONV_SLOTS * 8)),
          value_rows(memory + shared{ steps }.values_at() + group * shared::values), token0(first_token) {}

    __device__ __forceinline__ int64_t token_of(int tile) const { return token0 + (int64_t)tile * PN_DCONV_TILE; }

    /* By all threads of the block, before anything else: its rows of w2. */
    __device__ __forceinline__ void open() const {
        const int64_t rows = v.channels * PN_DCONV_WIDTH;
        const int piece = (int)threadIdx.x % 8;
        for (int column = (int)threadIdx.x / 8; column < shared::columns; column += PN_DCONV_THREADS / 8) {
            const int64_t row = (channel0 + pn_dconv_channel_of(column)) * PN_DCONV_WIDTH + pn_dconv_tap_of(column);
            const pn_bf16 *from = v.w2 + row * v.rank;
            const uint32_t to = w2 + pn_dconv_piece(column, piece);
            for (int s = 0; s < steps; s++) {
                const int at = s * PN_DCONV_STEP + 8 * piece;
                const bool there = row < rows && at < v.rank;
                pn_copy16(to + (uint32_t)(s * shared::strip), there ? from + at : v.w2, there);
            }
        }
        if (id == 0) {
            for (int i = 0; i < PN_DCONV_SLOTS; i++) pn_arrivals_make(arrivals + 8 * i, 1);
            pn_arrivals_made();
        }
        pn_copies_commit();
        pn_copies_wait<0>();
        pn_warpgroup_see();
        __syncthreads();
    }
    /* Starts the copy of the next slot of h, where there is one left. */
    __device__ __forceinline__ void ask() {
        if (asked_tile == count) return;
        if (id == 0) {
            const uint32_t arrival = arrivals + 8 * asked_slot;
            pn_arrivals_expect(arrival, shared::slot);
            pn_arrivals_copy(slots + (uint32_t)(asked_slot * shared::slot), h, asked_step * PN_DCONV_STEP,
                             (int)token_of(first + asked_tile * step), arrival);
        }
        asked_slot = (asked_slot + 1) % PN_DCONV_SLOTS;
        if (++asked_step == steps) asked_step = 0, asked_tile++;
    }
    /* Starts the copy of a part of the values of a tile and of the three tokens before it. */
    static constexpr int value_pieces = (PN_DCONV_TILE + PN_DCONV_BACK) * (C / 8),
                         value_parts = (value_pieces + 127) / 128;
    __device__ __forceinline__ void ask_values(int tile, int part) const {
        const int i = id + 128 * part, row = i / (C / 8), piece = i % (C / 8);
        if (i >= value_pieces) return;
        const int64_t token = token_of(tile) - PN_DCONV_BACK + row;
        const bool there = token >= 0 && token < v.docs.tokens && channel0 + 8 * piece < v.channels;
        pn_copy16(values + (uint32_t)(row * shared::value_row + piece * 16),
                  v.c + (there ? token * v.channels + channel0 + 8 * piece : 0), there);
    }
    __device__ __forceinline__ void start(int first_tile, int tile_step, int tiles) {
        first = first_tile, step = tile_step, count = tiles;
        asked_tile = asked_step = asked_slot = slot = 0;
        parity = 0;
        for (int i = 1; i < PN_DCONV_SLOTS; i++) ask();
        if (group) pass_turn();
    }
    /* Turns with the tensor cores. Each warpgroup takes as many, with or without a tile, and the first one more. */
    __device__ __forceinline__ void wait_turn() const { asm volatile("bar.sync %0, 256;" ::"r"(3 + group) : "memory"); }
    __device__ __forceinline__ void pass_turn() const {
        asm volatile("bar.arrive %0, 256;" ::"r"(4 - group) : "memory");
    }
    __device__ __forceinline__ void finish() const {
        if (!group) wait_turn();
    }
    /* y = the taps of a tile, the walk's next one, less b2; its values are in shared memory then. */
    __device__ __forceinline__ void taps(int tile, float (*y)[4]) {
        wait_turn();
        for (int s = 0; s < steps; s++) {
            pn_arrivals_wait(arrivals + 8 * slot, parity);
            const uint64_t a = pn_dconv_operand(slots + (uint32_t)(slot * shared::slot));
            const uint64_t b = pn_dconv_operand(w2 + (uint32_t)(s * shared::strip));
            pn_warpgroup_begin();
#pragma unroll
            for (int k = 0; k < PN_DCONV_STEP / 16; k++) /* of 32 bytes */
                pn_dconv_product<shared::columns>::add(y, a + 2 * k, b + 2 * k, s + k);
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            if (s + 1 == steps) pass_turn();
            /* The products before these are done: their slot is free once everybody has seen it. */
            asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
            pn_dconv_sync(group);
            ask();
            /* A part at a time, lest the next products wait for it. */
            for (int part = s; part < value_parts; part += steps) ask_values(tile, part);
            if (++slot == PN_DCONV_SLOTS) slot = 0, parity ^= 1;
        }
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        pn_warpgroup_keep(y, shared::columns / 8);
        pn_copies_commit();
        pn_copies_wait<0>();
        pn_dconv_sync(group);
    }
    __device__ __forceinline__ void skip() const {
        wait_turn();
        pass_turn();
    }
    /* c at tokens row - 3 .. row of the tile, four channels from `channel` (of the block) on. Near: s, the token's
     * position in its document, may be below 3, and what is before the document comes from the state. */
    template <bool Near>
    __device__ __forceinline__ void window(int tile, int row, int channel, int s, float x[PN_DCONV_WIDTH][4]) const {
#pragma unroll
        for (int w = 0; w < PN_DCONV_WIDTH; w++) {
            const uint2 pairs = *(const uint2 *)(value_rows + (row + w) * shared::value_row + channel * 2);
            x[w][0] = pn_bf16_first(pairs.x), x[w][1] = pn_bf16_second(pairs.x);
            x[w][2] = pn_bf16_first(pairs.y), x[w][3] = pn_bf16_second(pairs.y);
        }
        if (!Near || s >= PN_DCONV_BACK) return;
        const int64_t doc = v.docs.doc[token_of(tile) + row];
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
    /* The position of a token in its document; those that do not exist are far from its start. */
    __device__ __forceinline__ int position(int64_t token) const {
        return token < v.docs.tokens ? (int)token - v.docs.offset[v.docs.doc[token]] : PN_DCONV_TILE;
    }
    /* The documents of a token and of the third before it: asked for ahead, and looked at after the products. */
    __device__ __forceinline__ int2 ask_documents(int64_t token) const {
        if (token >= v.docs.tokens) return { 0, 0 };
        if (token < PN_DCONV_BACK) return { 0, -1 };
        return { v.docs.doc[token], v.docs.doc[token - PN_DCONV_BACK] };
    }
    static __device__ __forceinline__ bool near(int2 documents) {
        asm volatile("" : "+r"(documents.x), "+r"(documents.y));
        return documents.x != documents.y;
    }
};

/* b2 of the block's channels. */
template <int C>
static __device__ void pn_dconv_copy_biases(const pn_dconv_cuda &v, const pn_dconv_walk<C> &walk, float *bias) {
    for (int i = (int)threadIdx.x; i < C * PN_DCONV_WIDTH; i += PN_DCONV_THREADS) {
        const int64_t at = walk.channel0 * PN_DCONV_WIDTH + i;
        bias[i] = at < v.channels * PN_DCONV_WIDTH ? v.b2[at] : 0;
    }
}

/* Where a thread's tokens (this one and the one 8 further on) and channels are in a tile. */
struct pn_dconv_place {
    int warp, lane, l, t, row;
    __device__ pn_dconv_place(int id) : warp(id / 32), lane(id % 32), l(lane / 4), t(lane % 4), row(16 * warp + l) {}
};

/* K[channel i of 4][tap] of row 8 r + .. of the accumulators, for channels 16 u + 4 t + i. */
static __device__ __forceinline__ void pn_dconv_taps_of(const float (*y)[4], int u, int r, const float4 b[4],
                                                        float K[4][PN_DCONV_WIDTH]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float *first = y[8 * u + 2 * i] + 2 * r, *second = y[8 * u + 2 * i + 1] + 2 * r;
        K[i][0] = first[0] + b[i].x, K[i][1] = first[1] + b[i].y;
        K[i][2] = second[0] + b[i].z, K[i][3] = second[1] + b[i].w;
    }
}
static __device__ __forceinline__ float pn_dconv_sum_of(const float K[PN_DCONV_WIDTH], const float x[PN_DCONV_WIDTH][4],
                                                        int i) {
    return K[0] * x[0][i] + K[1] * x[1][i] + K[2] * x[2][i] + K[3] * x[3][i];
}

#endif

#endif
