/* logits.cuh on Hopper: products whose results, the logits, stay in registers (BF16).
 *
 * A block has 128 rows of h at a time and goes through a strip of the vocabulary, 256 words at a time; with two sides
 * 128, so that both sides' logits have room. One thread lets the copy engine fill a ring of stages, 64 of D each; two
 * warpgroups, of 64 rows each, multiply. They run freely: while one turns its logits into what the head wants, the
 * other has the tensor cores. A cluster of two blocks shares the words, and each fetches half of them for both; with
 * two sides, where a stage is multiplied in half the time, clusters are two by two and share rows as well.
 *
 * What a block does follows from the shape alone, and nothing is shared between blocks but inputs. */
#ifndef PN_KERNELS_CUDA_LOGITS_WARPGROUP_CUH
#define PN_KERNELS_CUDA_LOGITS_WARPGROUP_CUH

#include "cluster.cuh"
#include "logits.cuh"
#include "tensor_core.cuh"
#include "warpgroup.cuh"

extern "C" {
#include "tensor_map_cuda.h"
}

enum {
    PN_FUSED_ROWS = 128,
    PN_FUSED_DEPTH = 64,        /* of D in a stage */
    PN_FUSED_THREADS = 3 * 128, /* the copying warpgroup, then two that multiply */
    PN_FUSED_STRIP = 8,         /* pieces of the vocabulary in a strip, at most */
    PN_FUSED_GROUP = 32,        /* blocks of rows that go through the vocabulary together, so that their h stays in */
                                /* cache; of one side */
    PN_FUSED_LEAST_ROWS = 512,
    PN_FUSED_TILE = 1 << 27 /* elements of a tile of dz */
};

template <int SIDES> struct pn_fused {
    static constexpr int words = 256 / SIDES;
    static constexpr int h_bytes = PN_FUSED_ROWS * PN_FUSED_DEPTH * 2, W_bytes = words * PN_FUSED_DEPTH * 2;
    static constexpr int stage_bytes = h_bytes + W_bytes, stages = 4 * (48 << 10) / stage_bytes;
    static constexpr int shared_bytes = stages * stage_bytes + 1024; /* 1024: to begin at a multiple of it */
};

template <int SIDES> struct pn_fused_maps { CUtensorMap h[SIDES], W[SIDES]; };

/* The work: as many items as a cluster's rows and strip fit the rows and the vocabulary. */
struct pn_fused_work {
    int n, v;                      /* rows and words that exist */
    int n0, v0;                    /* which these are: the head counts from 0 */
    int steps[2];                  /* stages of a side's D */
    int by_rows, by_words;         /* blocks of a cluster: rank = row block + by_rows * word block */
    int row_groups;                /* clusters that the rows take */
    int pieces, per_strip, strips; /* of the vocabulary, each as wide as a cluster */
    int64_t items;
};

template <int SIDES>
static inline pn_fused_work pn_fused_work_of(const pn_logits *x, int64_t n0, int64_t n, int64_t v0, int64_t v) {
    pn_fused_work w = {};
    w.n = (int)n, w.v = (int)v, w.n0 = (int)n0, w.v0 = (int)v0;
    for (int s = 0; s < SIDES; s++) w.steps[s] = (int)((x->side[s].D + PN_FUSED_DEPTH - 1) / PN_FUSED_DEPTH);
    w.by_rows = n > PN_FUSED_ROWS ? 2 : 1;
    w.by_words = SIDES == 2 && w.by_rows == 2 ? 2 : 1;
    const int64_t rows = PN_FUSED_ROWS * w.by_rows, words = pn_fused<SIDES>::words * w.by_words;
    w.row_groups = (int)((n + rows - 1) / rows);
    w.pieces = (int)((v + words - 1) / words);
    const int64_t share = (int64_t)w.pieces * w.row_groups / 1024; /* few rows: short strips, for all of the GPU */
    w.per_strip = (int)(share < 1 ? 1 : pn_logits_least(share, PN_FUSED_STRIP));
    w.strips = (w.pieces + w.per_strip - 1) / w.per_strip;
    w.items = (int64_t)w.strips * w.row_groups;
    return w;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* y[64, N] = a[64, 16] b[16, N] + y, or without y unless `keep`; a and b from shared memory, D along their rows. */
template <int BLOCKS> struct pn_fused_product;
/* clang-format off */
#define PN_Y(i) "+f"(y[i][0]), "+f"(y[i][1]), "+f"(y[i][2]), "+f"(y[i][3])
#define PN_Y4(i) PN_Y(i), PN_Y(i + 1), PN_Y(i + 2), PN_Y(i + 3)
#define PN_Y16(i) PN_Y4(i), PN_Y4(i + 4), PN_Y4(i + 8), PN_Y4(i + 12)
#define PN_R0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PN_R1 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define PN_R2 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define PN_R3 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define PN_FUSED_PRODUCT(BLOCKS, N, RESULT, A, B, KEEP, ...)                                                       \
    template <> struct pn_fused_product<BLOCKS> {                                                                  \
        static __device__ __forceinline__ void add(float (*y)[4], uint64_t a, uint64_t b, int keep) {              \
            asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, " KEEP ", 0;\n"                                   \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" RESULT "}, " A ", " B        \
                         ", keep, 1, 1, 0, 0;\n}"                                                                  \
                         : __VA_ARGS__                                                                             \
                         : "l"(a), "l"(b), "r"(keep));                                                             \
        }                                                                                                          \
    };
PN_FUSED_PRODUCT(16, 128, PN_R0 ", " PN_R1, "%64", "%65", "%66", PN_Y16(0))
PN_FUSED_PRODUCT(32, 256, PN_R0 ", " PN_R1 ", " PN_R2 ", " PN_R3, "%128", "%129", "%130", PN_Y16(0), PN_Y16(16))
#undef PN_FUSED_PRODUCT
#undef PN_Y
#undef PN_Y4
#undef PN_Y16
#undef PN_R0
#undef PN_R1
#undef PN_R2
#undef PN_R3
/* clang-format on */

/* Where a block is in its cluster. */
struct pn_fused_place {
    int row, word; /* of by_rows, of by_words */
    int cluster;   /* its blocks */
};
static __device__ __forceinline__ pn_fused_place pn_fused_place_of(const pn_fused_work &w) {
    const int rank = (int)pn_cluster_rank();
    return { rank % w.by_rows, rank / w.by_rows, w.by_rows * w.by_words };
}

/* Item `i`'s first row of this block, and its strip: rows change fastest within a group of row blocks. */
template <int SIDES>
static __device__ __forceinline__ void pn_fused_item(const pn_fused_work &w, const pn_fused_place &p, int64_t i,
                                                     int *row, int *strip) {
    const int group = PN_FUSED_GROUP / SIDES / w.by_rows;
    const int64_t first = i / ((int64_t)group * w.strips) * group, rest = i - first * w.strips;
    const int size = (int)(w.row_groups - first < group ? w.row_groups - first : group);
    *strip = (int)(rest / size);
    *row = (int)((first + rest % size) * w.by_rows + p.row) * PN_FUSED_ROWS;
}

/* The copying thread: every stage in the order in which the others take them. Of the rows that blocks of a cluster
 * share each copies a part for all of them, and so of the words. */
template <int SIDES>
static __device__ __forceinline__ void pn_fused_copy(const pn_fused_maps<SIDES> &maps, const pn_fused_work &w,
                                                     const pn_fused_place &p, uint32_t ring, uint32_t full,
                                                     uint32_t empty) {
    typedef pn_fused<SIDES> size;
    const int h_share = PN_FUSED_ROWS / w.by_words * p.word, W_share = size::words / w.by_rows * p.row;
    const uint32_t h_mask = (w.by_words == 2 ? 1u | 1u << w.by_rows : 1u) << p.row;
    const uint32_t W_mask = (w.by_rows == 2 ? 3u : 1u) << w.by_rows * p.word;
    pn_ring<size::stages> at;
    for (int64_t i = blockIdx.x / p.cluster; i < w.items; i += gridDim.x / p.cluster) {
        int row, strip;
        pn_fused_item<SIDES>(w, p, i, &row, &strip);
        row += h_share;
        const int end = min(w.pieces, (strip + 1) * w.per_strip);
        for (int piece = strip * w.per_strip; piece < end; piece++) {
            const int word = (piece * w.by_words + p.word) * size::words + W_share;
            for (int s = 0; s < SIDES; s++)
                for (int k = 0; k < w.steps[s]; k++, at.next()) {
                    const uint32_t h = ring + at.stage * size::stage_bytes, W = h + size::h_bytes;
                    const uint32_t ready = full + 8 * at.stage;
                    pn_barrier_wait(empty + 8 * at.stage, at.parity ^ 1);
                    pn_barrier_expect(ready, size::stage_bytes);
                    pn_copy_piece(h + h_share * 128, &maps.h[s], k * PN_FUSED_DEPTH, row, ready, h_mask);
                    pn_copy_piece(W + W_share * 128, &maps.W[s], k * PN_FUSED_DEPTH, word, ready, W_mask);
                }
        }
    }
}

/* Of four neighbouring threads, each with a pair of columns of four blocks of 8: each gets the pairs of one block. */
static __device__ __forceinline__ uint4 pn_fused_turn(uint32_t x0, uint32_t x1, uint32_t x2, uint32_t x3) {
    const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
    uint32_t y0 = __shfl_xor_sync(~0u, odd ? x0 : x1, 1), y1 = __shfl_xor_sync(~0u, odd ? x2 : x3, 1);
    const uint32_t low0 = odd ? y0 : x0, low1 = odd ? x1 : y0, high0 = odd ? y1 : x2, high1 = odd ? x3 : y1;
    y0 = __shfl_xor_sync(~0u, upper ? low0 : high0, 2), y1 = __shfl_xor_sync(~0u, upper ? low1 : high1, 2);
    return upper ? uint4{ y0, y1, high0, high1 } : uint4{ low0, low1, y0, y1 };
}

/* What a multiplying thread has: its place, and that of its logits. */
struct pn_fused_thread {
    pn_fused_place place;
    uint32_t ring, full, empty;
    bool tells; /* whether block number `lane` of the cluster writes to this one, and hears of free stages from it */
    int half, pair; /* which rows of the block's; the first of its two columns in a group of 8 */
    int row;        /* within them, and row + 8 */
};
static __device__ __forceinline__ pn_fused_thread pn_fused_thread_of(const pn_fused_work &w, const pn_fused_place &p,
                                                                     uint32_t ring, uint32_t full, uint32_t empty) {
    const int lane = threadIdx.x % 32;
    const bool tells = lane < p.cluster && (lane % w.by_rows == p.row || lane / w.by_rows == p.word);
    const int half = threadIdx.x / 128 - 1;
    return { p, ring, full, empty, tells, half, 2 * (lane % 4), 64 * half + (int)threadIdx.x / 32 % 4 * 16 + lane / 4 };
}

/* The logits of 64 rows and one piece of the vocabulary. */
template <int SIDES>
static __device__ __forceinline__ void pn_fused_logits(float y[SIDES][32 / SIDES][4], const pn_fused_work &w,
                                                       const pn_fused_thread &t, pn_ring<pn_fused<SIDES>::stages> *at) {
    typedef pn_fused<SIDES> size;
    const uint32_t lane = threadIdx.x % 32;
    int last = -1; /* the stage of products under way */
#pragma unroll
    for (int s = 0; s < SIDES; s++)
        for (int k = 0; k < w.steps[s]; k++, at->next()) {
            const uint32_t h = t.ring + at->stage * size::stage_bytes;
            const uint64_t a = pn_operand(h + t.half * (size::h_bytes / 2), 16, 1024, 1);
            const uint64_t b = pn_operand(h + size::h_bytes, 16, 1024, 1);
            pn_barrier_wait(t.full + 8 * at->stage, at->parity);
            pn_warpgroup_begin();
#pragma unroll
            for (int q = 0; q < PN_FUSED_DEPTH / 16; q++) /* 16 of D are 32 bytes of a row */
                pn_fused_product<32 / SIDES>::add(y[s], a + 2 * q, b + 2 * q, k > 0 || q > 0);
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
            if (last >= 0 && t.tells) pn_barrier_arrive(t.empty + 8 * last, lane);
            last = at->stage;
        }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    if (t.tells) pn_barrier_arrive(t.empty + 8 * last, lane);
#pragma unroll
    for (int s = 0; s < SIDES; s++) pn_warpgroup_keep(y[s], 32 / SIDES);
}

/* result [parts, N]: the sums of rows `row` and `row` + 8 over a strip. */
template <class H>
static __device__ __forceinline__ void
pn_fused_fold_strip(const pn_fused_work &w, const pn_fused_thread &t, const H &head, int row, int strip, void *result,
                    int64_t result_row, pn_ring<pn_fused<H::sides>::stages> *at) {
    constexpr int blocks = 32 / H::sides, own = 2 * blocks; /* a thread's logits of a row */
    const int n[2] = { w.n0 + min(row, w.n - 1), w.n0 + min(row + 8, w.n - 1) };
    const int end = min(w.pieces, (strip + 1) * w.per_strip);
    const typename H::row of[2] = { head.row_of(n[0], row < w.n), head.row_of(n[1], row + 8 < w.n) };
    typename H::sums s[2] = { head.none(), head.none() };
    for (int piece = strip * w.per_strip; piece < end; piece++) {
        float y[H::sides][blocks][4];
        pn_fused_logits<H::sides>(y, w, t, at);
        const int word = (piece * w.by_words + t.place.word) * pn_fused<H::sides>::words + t.pair, left = w.v - word;
        if (piece == w.pieces - 1) { /* it may end within */
#pragma unroll
            for (int j = 0; j < 4 * blocks * H::sides; j++) {
                float *z = &y[j / 4 / blocks][j / 4 % blocks][j % 4];
                if (8 * (j / 4 % blocks) + j % 2 >= left) *z = PN_LOGITS_NONE;
            }
        }
#pragma unroll
        for (int r = 0; r < 2; r++)
            head.template fold<own>(
                s[r], of[r], [&](int side, int j) { return y[side][j / 2][2 * r + j % 2]; },
                [&](int j) { return w.v0 + word + 8 * (j / 2) + j % 2; });
    }
    typename H::sums *part = (typename H::sums *)result + (strip * w.by_words + t.place.word) * result_row;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        head.merge(s[r], pn_logits_shuffle(s[r], 1));
        head.merge(s[r], pn_logits_shuffle(s[r], 2));
        if (t.pair == 0 && row + 8 * r < w.n) part[n[r]] = s[r];
    }
}

/* result: dz [w.n, result_row], of the same rows and words. */
template <class H>
static __device__ __forceinline__ void
pn_fused_gradient_strip(const pn_fused_work &w, const pn_fused_thread &t, const H &head, int row, int strip,
                        void *result, int64_t result_row, pn_ring<pn_fused<H::sides>::stages> *at) {
    constexpr int blocks = 32 / H::sides;
    const int end = min(w.pieces, (strip + 1) * w.per_strip);
    const typename H::slope of[2] = { head.slope_of(w.n0 + min(row, w.n - 1)),
                                      head.slope_of(w.n0 + min(row + 8, w.n - 1)) };
    for (int piece = strip * w.per_strip; piece < end; piece++) {
        float y[H::sides][blocks][4];
        pn_fused_logits<H::sides>(y, w, t, at);
        const int first = (piece * w.by_words + t.place.word) * pn_fused<H::sides>::words;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            uint16_t *line = (uint16_t *)result + (row + 8 * r) * result_row;
#pragma unroll
            for (int j = 0; j < blocks; j += 4) {
                uint32_t x[4];
#pragma unroll
                for (int u = 0; u < 4; u++) {
                    const float *z0 = y[0][j + u] + 2 * r, *z1 = y[H::sides - 1][j + u] + 2 * r;
                    const int word = w.v0 + first + t.pair + 8 * (j + u);
                    x[u] = pn_bf16_pair(head.dz(of[r], z0[0], z1[0], word), head.dz(of[r], z0[1], z1[1], word + 1));
                }
                const uint4 eight = pn_fused_turn(x[0], x[1], x[2], x[3]);
                const int column = first + 8 * j + 4 * t.pair;
                if (row + 8 * r < w.n && column < result_row) *(uint4 *)(line + column) = eight;
            }
        }
    }
}

#endif

/* FOLD: result [parts, N] sums. Otherwise: dz [w.n, result_row]. */
template <bool FOLD, class H>
__global__ void __launch_bounds__(PN_FUSED_THREADS, 1)
    pn_fused_kernel(const __grid_constant__ pn_fused_maps<H::sides> maps, const pn_fused_work w, const H head,
                    void *result, int64_t result_row) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    typedef pn_fused<H::sides> size;
    extern __shared__ char memory[];
    __shared__ alignas(8) uint64_t barriers[2 * size::stages];
    const uint32_t ring = (pn_shared(memory) + 1023) / 1024 * 1024, full = pn_shared(barriers);
    const uint32_t empty = full + 8 * size::stages;
    const pn_fused_place p = pn_fused_place_of(w);
    if (threadIdx.x == 0) {
        for (int s = 0; s < size::stages; s++) {
            pn_barrier_make(full + 8 * s, 1);
            pn_barrier_make(empty + 8 * s, 8 * (w.by_rows + w.by_words - 1)); /* the warps that multiply */
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    pn_cluster_meet();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) pn_fused_copy(maps, w, p, ring, full, empty);
        __syncwarp();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        const pn_fused_thread t = pn_fused_thread_of(w, p, ring, full, empty);
        pn_ring<size::stages> at;
        for (int64_t i = blockIdx.x / p.cluster; i < w.items; i += gridDim.x / p.cluster) {
            int row, strip;
            pn_fused_item<H::sides>(w, p, i, &row, &strip);
            if constexpr (FOLD)
                pn_fused_fold_strip(w, t, head, row + t.row, strip, result, result_row, &at);
            else
                pn_fused_gradient_strip(w, t, head, row + t.row, strip, result, result_row, &at);
        }
    }
    pn_cluster_meet(); /* the other blocks may still arrive here */
#endif
}

/* Whether this GPU has the kernel: elsewhere it is empty, and has no barriers. */
template <bool FOLD, class H> static bool pn_fused_there() {
    static int there = -1;
    if (there < 0) {
        cudaFuncAttributes a;
        there = cudaFuncGetAttributes(&a, pn_fused_kernel<FOLD, H>) == cudaSuccess && a.sharedSizeBytes > 0;
        (void)cudaGetLastError();
    }
    return there;
}

/* What the copy engine can read, and 32-bit counts. Few rows leave most of a block's without work, and are taken faster
 * through tiles of logits. */
static inline bool pn_fused_takes(const pn_logits *x) {
    bool takes = x->type == PN_BF16 && x->N >= PN_FUSED_LEAST_ROWS && x->N < INT32_MAX / 2 && x->V < INT32_MAX / 2;
    for (int s = 0; s < x->sides; s++)
        takes = takes && x->side[s].D % 8 == 0 && x->side[s].D >= 8 && x->side[s].D < INT32_MAX &&
                ((uintptr_t)x->side[s].h | (uintptr_t)x->side[s].W) % 16 == 0;
    return takes;
}

template <bool FOLD, class H>
static pn_status pn_fused_launch(const pn_logits *x, const H &head, const pn_fused_work &w, void *result,
                                 int64_t result_row) {
    typedef pn_fused<H::sides> size;
    static bool ready;
    if (!ready)
        PN_TRY(pn_cuda_status(cudaFuncSetAttribute(pn_fused_kernel<FOLD, H>,
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize, size::shared_bytes),
                              x->name));
    ready = true;
    pn_fused_maps<H::sides> maps;
    for (int s = 0; s < H::sides; s++) {
        const pn_logits_side *of = &x->side[s];
        PN_TRY(pn_tensor_map(x->name, (const pn_bf16 *)of->h + w.n0 * of->D, w.n, of->D, PN_FUSED_ROWS / w.by_words,
                             &maps.h[s]));
        PN_TRY(pn_tensor_map(x->name, (const pn_bf16 *)of->W + w.v0 * of->D, w.v, of->D, size::words / w.by_rows,
                             &maps.W[s]));
    }
    const int cluster = w.by_rows * w.by_words;
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = (unsigned)cluster, attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)cluster);
    config.blockDim = dim3(PN_FUSED_THREADS);
    config.dynamicSmemBytes = size::shared_bytes;
    config.stream = pn_cuda_stream();
    config.attrs = &attribute, config.numAttrs = 1;
    static int clusters[5]; /* of each size, that the GPU runs at a time: one more would wait for all others */
    if (!clusters[cluster])
        PN_TRY(pn_cuda_status(cudaOccupancyMaxActiveClusters(&clusters[cluster], pn_fused_kernel<FOLD, H>, &config),
                              x->name));
    config.gridDim.x = (unsigned)(pn_logits_least(w.items, clusters[cluster]) * cluster);
    PN_TRY(pn_cuda_status(cudaLaunchKernelEx(&config, pn_fused_kernel<FOLD, H>, maps, w, head, result, result_row),
                          x->name));
    return pn_cuda_launched(x->name);
}

/* ---- in place of their namesakes without "fused" in logits.cuh ---- */

template <class H> static int64_t pn_fused_parts(const pn_logits *x) {
    const pn_fused_work w = pn_fused_work_of<H::sides>(x, 0, x->N, 0, x->V);
    return (int64_t)w.strips * w.by_words;
}
template <class H> static pn_logits_work pn_fused_carve(const pn_logits *x, bool backward, void *scratch) {
    return pn_logits_carve(x, backward, PN_FUSED_TILE, sizeof(typename H::sums) * (size_t)pn_fused_parts<H>(x),
                           scratch);
}
template <class H> static pn_status pn_fused_fold(const pn_logits *x, const H &head, const pn_logits_work &w) {
    return pn_fused_launch<true>(x, head, pn_fused_work_of<H::sides>(x, 0, x->N, 0, x->V), w.part, x->N);
}
template <class H, class A = pn_logits_as_is>
static pn_status pn_fused_backward(const pn_logits *x, const H &head, pn_logits_gradients g, const pn_logits_work &w,
                                   const A &amend = A()) {
    g.dh_sum = w.dh_sum;
    for (int64_t n0 = 0; n0 < x->N; n0 += w.tile.rows) {
        const int64_t n = pn_logits_least(w.tile.rows, x->N - n0);
        for (int64_t v0 = 0; v0 < x->V; v0 += w.tile.cols) {
            const int64_t v = pn_logits_least(w.tile.cols, x->V - v0);
            PN_TRY(pn_fused_launch<false>(x, head, pn_fused_work_of<H::sides>(x, n0, n, v0, v), w.dz, w.tile.row));
            PN_TRY(amend(n0, n, v0, v, w.tile.row, w.dz));
            PN_TRY(pn_logits_add_gradients(x, n0, n, v0, v, &w.tile, w.dz, &g, w.workspace));
        }
    }
    return PN_OK;
}

#endif
