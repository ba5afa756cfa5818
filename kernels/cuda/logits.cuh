/* Output projections without all their logits, on the GPU (kernels/cpu/logits.h says why): what linear_cross_entropy,
 * linear_kl, linear_kl_topk, linear_argmax and linear_topk share. logits_op.cuh and logits_loss.cuh make ops of it.
 *
 * Forward folds the logits of a row into a few numbers, one part of the vocabulary after the other, and merges the
 * parts in order. Backward makes the logits again, turns them into their gradient dz, tile by tile, and multiplies that
 * into dh and dW. Here the logits are made by cuBLASLt, a tile of F32 at a time; logits_warpgroup.cuh keeps them in
 * registers instead.
 *
 * What an op does with logits is its head, a value with
 *     static constexpr int sides                     1, or 2: a student's logits (0) and its teacher's (1)
 *     struct sums; sums none() const                 what is kept of the logits of a row, and of no logits
 *     struct row; row row_of(int64_t n, bool counts) what folding row n takes; without `counts` nothing of it may be
 *                                                    written: the row stands in for one that is not there
 *     fold<K>(sums &, const row &, z, word)          folds in K logits z(side, i) of words word(i), which ascend
 *     merge(sums &, const sums &) const              in either order the same sums but for rounding
 *     struct slope; slope slope_of(int64_t n) const  what the gradient of row n takes
 *     float dz(const slope &, float z0, float z1, int word) const
 */
#ifndef PN_KERNELS_CUDA_LOGITS_CUH
#define PN_KERNELS_CUDA_LOGITS_CUH

#include "element.cuh"

extern "C" {
#include "matmul_cuda.h"
}

struct pn_logits_side {
    const void *h, *W; /* [N, D], [V, D] */
    int64_t D;
};
struct pn_logits {
    const char *name; /* the implementation's, for messages; a literal */
    pn_dtype type;    /* of h and W */
    int64_t N, V;     /* V at least 1 */
    int sides;
    pn_logits_side side[2];
};

/* Inputs 2 s and 2 s + 1 of the call are h and W of side s. Scratch is asked for without values: their addresses are
 * NULL then. name: a literal. */
static inline pn_logits pn_logits_of(const pn_op_call *c, const char *name, int sides) {
    pn_logits x = {};
    x.name = name;
    x.type = c->dtype;
    x.N = c->in[0]->shape[0], x.V = c->in[1]->shape[0];
    x.sides = sides;
    for (int s = 0; s < sides; s++) {
        const pn_tensor *h = c->in[2 * s], *W = c->in[2 * s + 1];
        x.side[s] = { h->storage ? pn_data(h) : NULL, W->storage ? pn_data(W) : NULL, W->shape[1] };
    }
    return x;
}

/* Whether words fit 32 bits and there is something to multiply. */
static inline bool pn_logits_takes(const pn_logits *x) {
    bool takes = x->V >= 1 && x->V <= INT32_MAX;
    for (int s = 0; s < x->sides; s++) takes = takes && x->side[s].D >= 1;
    return takes;
}

/* A tile of logits or their gradients: rows x cols at most, `row` elements from one row to the next. */
struct pn_logits_tile {
    int64_t rows, cols, row;
};

enum { PN_LOGITS_PART = 4096 /* words */, PN_LOGITS_MOST_ROWS = 8192, PN_LOGITS_THREADS = 256 };

/* A number of elements that keeps the rest of the work small beside products: backward reads and writes dh and dW once
 * per tile, V / cols and N / rows times in all. */
enum { PN_LOGITS_TILE = 1 << 26 };

/* As many rows as there are, then as many whole parts of the vocabulary as make `elements`. */
pn_logits_tile pn_logits_tile_of(const pn_logits *x, int64_t elements);
static inline int64_t pn_logits_parts(const pn_logits *x, int64_t words) {
    return (x->V + words - 1) / words;
}

/* z = the logits of rows n0 .. n0 + n - 1 and words v0 .. v0 + v - 1. workspace: PN_MATMUL_WORKSPACE bytes. */
pn_status pn_logits_make(const pn_logits *x, int side, int64_t n0, int64_t n, int64_t v0, int64_t v,
                         const pn_logits_tile *tile, float *z, void *workspace);

/* What backward adds to. A gradient that is not wanted is NULL. */
struct pn_logits_gradients {
    void *dh;              /* [N, D] of x's type */
    float *dW;             /* [V, D] */
    bool adds_dh, adds_dW; /* else they hold nothing yet, and are written */
    float *dh_sum; /* BF16 and dh: [tile.rows, D], where the sum over the vocabulary is made before it is rounded */
};
/* dh and dW of side 0 from the gradients dz, of x's type, of that tile. Tiles of the same rows come one after the other
 * and the whole vocabulary once. */
pn_status pn_logits_add_gradients(const pn_logits *x, int64_t n0, int64_t n, int64_t v0, int64_t v,
                                  const pn_logits_tile *tile, const void *dz, const pn_logits_gradients *g,
                                  void *workspace);

/* Carves arrays out of an op's scratch; with base NULL it only counts. */
struct pn_cuda_carve {
    char *base;
    size_t n_bytes;
    template <class T> T *take(int64_t n) { /* 256-byte aligned where base is */
        T *at = base ? (T *)(base + n_bytes) : NULL;
        n_bytes += ((size_t)n * sizeof(T) + 255) / 256 * 256;
        return at;
    }
};

/* Scratch of both ways. z and dz are one where x is F32. */
struct pn_logits_work {
    pn_logits_tile tile;
    void *workspace;
    float *number; /* for the op's use */
    float *z[2];
    void *dz;      /* backward */
    float *dh_sum; /* backward in BF16 */
    void *part;    /* forward: [parts, N] sums */
    size_t n_bytes;
};
/* elements: of a tile. bytes_per_row: those of a row's sums, over all parts. */
pn_logits_work pn_logits_carve(const pn_logits *x, bool backward, int64_t elements, size_t bytes_per_row,
                               void *scratch);
/* The same for the kernels here. */
pn_logits_work pn_logits_carve_tiles(const pn_logits *x, bool backward, size_t sum_bytes, void *scratch);

/* ---- for heads ---- */

__device__ static inline float pn_logits_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/* e^x to a few units in the last place for x <= 0 near 0, and an absolute error of 1e-7 anywhere below. */
__device__ static inline float pn_logits_exp(float x) {
    return pn_logits_exp2(x * 1.44269504f);
}
/* The largest of K logits and `most`. */
template <int K, class Z> __device__ float pn_logits_max(float most, int side, Z z) {
#pragma unroll
    for (int i = 0; i < K; i++) most = fmaxf(most, z(side, i));
    return most;
}
/* What exponents are relative to: the maximum, if there is one. */
__device__ static inline float pn_logits_base(float most) {
    return most == -INFINITY ? 0.0f : most;
}
/* The first word whose logit is `most`. */
template <int K, class Z, class W> __device__ int pn_logits_first(float most, int side, Z z, W word) {
    int first = 0;
#pragma unroll
    for (int i = K - 1; i >= 0; i--) first = z(side, i) == most ? word(i) : first;
    return first;
}

/* ---- tiles ---- */

/* Stands for the logit of a word past the end: no logit is smaller, and differences of two are 0. */
#define PN_LOGITS_NONE (-1e30f)

template <class S> __device__ S pn_logits_shuffle(S s, int lane_mask) {
    static_assert(sizeof(S) % 4 == 0, "words");
    union {
        S s;
        int word[sizeof(S) / 4];
    } u = { s };
#pragma unroll
    for (unsigned i = 0; i < sizeof(S) / 4; i++) u.word[i] = __shfl_xor_sync(~0u, u.word[i], lane_mask);
    return u.s;
}

/* Element i of a thread's 16 in a part: every fourth group of four is its own, so that a warp reads whole lines. */
__device__ static inline int pn_logits_column(int i) {
    return i / 4 * (4 * PN_LOGITS_THREADS) + 4 * (int)threadIdx.x + i % 4;
}

template <int N> struct pn_logits_sixteen { float z[N][16]; };
/* Those of a row with `cols` columns left; z1 only where there are two sides. */
template <int N> __device__ pn_logits_sixteen<N> pn_logits_read(const float *z0, const float *z1, int64_t cols) {
    static_assert(16 * PN_LOGITS_THREADS == PN_LOGITS_PART, "a block reads a part");
    pn_logits_sixteen<N> x;
#pragma unroll
    for (int s = 0; s < N; s++)
#pragma unroll
        for (int i = 0; i < 16; i += 4) {
            const int at = pn_logits_column(i); /* rows are padded to whole groups of four */
            float4 four = at < cols ? *(const float4 *)((s ? z1 : z0) + at) : float4{};
            x.z[s][i] = four.x, x.z[s][i + 1] = four.y, x.z[s][i + 2] = four.z, x.z[s][i + 3] = four.w;
        }
    return x;
}

/* part [gridDim.y, N]: sums of part blockIdx.y of the tile, for row n0 + blockIdx.x. */
template <class H>
__global__ void __launch_bounds__(PN_LOGITS_THREADS)
    pn_logits_fold_tile(H head, int64_t N, int64_t n0, int64_t v0, int64_t cols, int64_t row, const float *z0,
                        const float *z1, typename H::sums *part) {
    __shared__ typename H::sums of_warp[PN_LOGITS_THREADS / 32];
    const int64_t n = n0 + blockIdx.x, begin = (int64_t)blockIdx.y * PN_LOGITS_PART, left = cols - begin;
    const int64_t at = blockIdx.x * row + begin;
    pn_logits_sixteen<H::sides> x = pn_logits_read<H::sides>(z0 + at, z1 + at, left);
    typename H::sums s = head.none();
    head.template fold<16>(
        s, head.row_of(n, true),
        [&](int side, int i) { return pn_logits_column(i) < left ? x.z[side][i] : PN_LOGITS_NONE; },
        [&](int i) { return (int)(v0 + begin) + pn_logits_column(i); });
    for (int d = 16; d > 0; d /= 2) head.merge(s, pn_logits_shuffle(s, d));
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = s;
    __syncthreads();
    if (threadIdx.x) return;
    for (int w = 1; w < PN_LOGITS_THREADS / 32; w++) head.merge(s, of_warp[w]);
    part[blockIdx.y * N + n] = s;
}

/* dz may be z0. */
template <class T, class H>
__global__ void __launch_bounds__(PN_LOGITS_THREADS)
    pn_logits_tile_gradient(H head, int64_t n0, int64_t v0, int64_t cols, int64_t row, const float *z0, const float *z1,
                            T *dz) {
    const int64_t begin = (int64_t)blockIdx.y * PN_LOGITS_PART, left = cols - begin, at = blockIdx.x * row + begin;
    const typename H::slope slope = head.slope_of(n0 + blockIdx.x);
    pn_logits_sixteen<H::sides> x = pn_logits_read<H::sides>(z0 + at, z1 + at, left);
#pragma unroll
    for (int i = 0; i < 16; i += 4) {
        struct alignas(4 * sizeof(T)) {
            T x[4];
        } four;
#pragma unroll
        for (int k = i; k < i + 4; k++)
            pn_store(&four.x[k - i],
                     head.dz(slope, x.z[0][k], x.z[H::sides - 1][k], (int)(v0 + begin) + pn_logits_column(k)));
        if (pn_logits_column(i) < left) *(decltype(four) *)(dz + at + pn_logits_column(i)) = four;
    }
}

static inline dim3 pn_logits_grid(int64_t n, int64_t v) {
    return dim3((unsigned)n, (unsigned)((v + PN_LOGITS_PART - 1) / PN_LOGITS_PART));
}

static inline int64_t pn_logits_least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* w.part [parts of PN_LOGITS_PART words, N]. */
template <class H> pn_status pn_logits_fold(const pn_logits *x, const H &head, const pn_logits_work &w) {
    typename H::sums *part = (typename H::sums *)w.part;
    for (int64_t n0 = 0; n0 < x->N; n0 += w.tile.rows) {
        const int64_t n = pn_logits_least(w.tile.rows, x->N - n0);
        for (int64_t v0 = 0; v0 < x->V; v0 += w.tile.cols) {
            const int64_t v = pn_logits_least(w.tile.cols, x->V - v0);
            for (int s = 0; s < x->sides; s++) PN_TRY(pn_logits_make(x, s, n0, n, v0, v, &w.tile, w.z[s], w.workspace));
            pn_logits_fold_tile<<<pn_logits_grid(n, v), PN_LOGITS_THREADS, 0, pn_cuda_stream()>>>(
                head, x->N, n0, v0, v, w.tile.row, w.z[0], w.z[1], part + v0 / PN_LOGITS_PART * x->N);
            PN_TRY(pn_cuda_launched(x->name));
        }
    }
    return PN_OK;
}

/* Leaves the gradients of a tile as the head makes them. In its place an op may pass what changes some: it is called
 * with dz [n, row] of rows n0 .. n0 + n - 1 and words v0 .. v0 + v - 1, on its way to dh and dW. */
struct pn_logits_as_is {
    pn_status operator()(int64_t, int64_t, int64_t, int64_t, int64_t, void *) const { return PN_OK; }
};

template <class T, class H, class A = pn_logits_as_is>
pn_status pn_logits_backward(const pn_logits *x, const H &head, pn_logits_gradients g, const pn_logits_work &w,
                             const A &amend = A()) {
    g.dh_sum = w.dh_sum;
    for (int64_t n0 = 0; n0 < x->N; n0 += w.tile.rows) {
        const int64_t n = pn_logits_least(w.tile.rows, x->N - n0);
        for (int64_t v0 = 0; v0 < x->V; v0 += w.tile.cols) {
            const int64_t v = pn_logits_least(w.tile.cols, x->V - v0);
            for (int s = 0; s < x->sides; s++) PN_TRY(pn_logits_make(x, s, n0, n, v0, v, &w.tile, w.z[s], w.workspace));
            pn_logits_tile_gradient<T><<<pn_logits_grid(n, v), PN_LOGITS_THREADS, 0, pn_cuda_stream()>>>(
                head, n0, v0, v, w.tile.row, w.z[0], w.z[1], (T *)w.dz);
            PN_TRY(pn_cuda_launched(x->name));
            PN_TRY(amend(n0, n, v0, v, w.tile.row, w.dz));
            PN_TRY(pn_logits_add_gradients(x, n0, n, v0, v, &w.tile, w.dz, &g, w.workspace));
        }
    }
    return PN_OK;
}

#endif
