/* Ids are checked where they are used: an id outside the table gives a row of zeros, adds to nothing, and fails the
 * next synchronisation (device_cuda.h). */
#include "embedding_cuda.cuh"

#include "cuda/element.cuh"
#include "cuda/inputs.cuh"

#include "embedding.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "embedding/cuda";

enum { THREADS = 128 };

/* Rows of D pieces; X: one element, or 16 bytes of them. */
template <class X>
__global__ void __launch_bounds__(THREADS) gather(const int32_t *ids, int64_t N, const X *table, int64_t V, int64_t D,
                                                  X *y, pn_cuda_bad *bad, const char *what) {
    for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
        int32_t id = ids[n];
        bool inside = id >= 0 && id < V;
        if (!inside && threadIdx.x == 0) pn_report_id(bad, what, id, n, 0, V);
        for (int64_t i = threadIdx.x; i < D; i += THREADS) y[n * D + i] = inside ? table[id * D + i] : X{};
    }
}

/* Backward: tokens sorted by id are cut into runs. Most ids lie within one, and a block adds their sum to the table; of
 * an id that goes on from run to run every run keeps its part, and the run where it began adds them up. */
enum { RUN = 32, AT_ONCE = 4 };

struct sorted {
    const int32_t *ids, *token; /* tokens by id, tokens of one id in their order */
    int64_t N, V, D;
    __device__ int64_t id(int64_t i) const { /* of the i-th; -1 outside; an id outside the table is V or more */
        if (i < 0 || i >= N) return -1;
        int32_t id = ids[token[i]];
        return id < 0 ? V : id;
    }
};

/* What a thread works on: W neighbouring columns. */
template <int W> struct piece {
    float x[W];
    __device__ void add(const piece &y) {
        for (int w = 0; w < W; w++) x[w] += y.x[w];
    }
};

template <class T, int W> __device__ piece<W> load_piece(const T *from) {
    struct alignas(W * sizeof(T)) values {
        T x[W];
    } v = *(const values *)from;
    piece<W> p;
    for (int w = 0; w < W; w++) p.x[w] = pn_load(v.x + w);
    return p;
}
template <int W> __device__ void store_piece(float *to, const piece<W> &p) {
    constexpr int four = W < 4 ? W : 4;
    struct alignas(four * sizeof(float)) values {
        float x[four];
    };
    for (int w = 0; w < W; w += four) {
        values v;
        for (int k = 0; k < four; k++) v.x[k] = p.x[w + k];
        *(values *)(to + w) = v;
    }
}
template <int W> __device__ void add_piece(float *to, const piece<W> &p) {
    constexpr int four = W < 4 ? W : 4;
    struct alignas(four * sizeof(float)) values {
        float x[four];
    };
    for (int w = 0; w < W; w += four) {
        values v = *(const values *)(to + w);
        for (int k = 0; k < four; k++) v.x[k] += p.x[w + k];
        *(values *)(to + w) = v;
    }
}

/* part [runs, 2, D]: of the id that comes from the run before, of the id that began here and goes on. */
template <class T, int W>
__global__ void __launch_bounds__(THREADS) add_runs(sorted s, const T *dy, float *dtable, float *part) {
    __shared__ int64_t around[RUN + 2];
    __shared__ int32_t token[RUN];
    const int64_t run = blockIdx.x, begin = run * RUN, left = s.N - begin;
    const int n = left < RUN ? (int)left : RUN;
    if (threadIdx.x < RUN + 2) around[threadIdx.x] = s.id(begin - 1 + threadIdx.x);
    if (threadIdx.x < n) token[threadIdx.x] = s.token[begin + threadIdx.x];
    __syncthreads();
    const int64_t *id = around + 1, i = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * W;
    if (i >= s.D) return;
    piece<W> sum = {};
    bool from_before = id[0] == id[-1];
    for (int j0 = 0; j0 < n; j0 += AT_ONCE) {
        piece<W> x[AT_ONCE];
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) x[u] = load_piece<T, W>(dy + token[j0 + u < n ? j0 + u : n - 1] * s.D + i);
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) {
            const int j = j0 + u;
            if (j >= n) break;
            sum.add(x[u]);
            const bool goes_on = id[j] == id[j + 1];
            if (goes_on && j + 1 < n) continue;
            if (from_before)
                store_piece<W>(part + 2 * run * s.D + i, sum);
            else if (goes_on)
                store_piece<W>(part + (2 * run + 1) * s.D + i, sum);
            else if (id[j] < s.V)
                add_piece<W>(dtable + id[j] * s.D + i, sum);
            sum = {};
            from_before = false;
        }
    }
}

template <int W> __global__ void __launch_bounds__(THREADS) join_runs(sorted s, float *dtable, const float *part) {
    const int64_t run = blockIdx.x, begin = run * RUN, i = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * W;
    int64_t next = begin + RUN;
    const int64_t id = s.id(next - 1);
    if (next >= s.N || s.id(next) != id || s.id(begin - 1) == id || id >= s.V || i >= s.D) return;
    piece<W> sum = load_piece<float, W>(part + (2 * run + 1) * s.D + i);
    for (int64_t r = run + 1; s.id(next) == id; r++, next += RUN) sum.add(load_piece<float, W>(part + 2 * r * s.D + i));
    add_piece<W>(dtable + id * s.D + i, sum);
}

template <class T, int W> pn_status add_to_table(const sorted &s, const T *dy, float *dtable, float *part) {
    dim3 blocks(pn_cuda_blocks(s.N, RUN), pn_cuda_blocks(s.D, THREADS * W));
    add_runs<T, W><<<blocks, THREADS, 0, pn_cuda_stream()>>>(s, dy, dtable, part);
    PN_TRY(pn_cuda_launched(name));
    join_runs<W><<<blocks, THREADS, 0, pn_cuda_stream()>>>(s, dtable, part);
    return pn_cuda_launched(name);
}

bool whole(int64_t D, int width, const void *x, const void *y) {
    return D % width == 0 && ((uintptr_t)x | (uintptr_t)y) % 16 == 0;
}

} // namespace

static unsigned grid(int64_t N) {
    return (unsigned)(N < 1 << 20 ? N : 1 << 20);
}

static bool takes(const pn_op_call *c) {
    return c->in[0]->shape[0] <= PN_SORT_MOST && c->in[1]->shape[1] <= (int64_t)65535 * THREADS;
}

template <class X> static pn_status gather_rows(const pn_op_call *c, int64_t D) {
    int64_t N = c->in[0]->shape[0], V = c->in[1]->shape[0];
    gather<X><<<grid(N), THREADS, 0, pn_cuda_stream()>>>(pn_i32(c->in[0]), N, (const X *)pn_data(c->in[1]), V, D,
                                                         (X *)pn_data(c->out[0]), pn_cuda_bad_slot(),
                                                         "embedding: token id");
    return pn_cuda_launched(name);
}

static pn_status forward(const pn_op_call *c) {
    int64_t D = c->in[1]->shape[1];
    if (c->in[0]->shape[0] == 0) return PN_OK;
    const bool narrow = c->dtype == PN_BF16;
    const int width = narrow ? 8 : 4; /* elements in 16 bytes */
    if (whole(D, width, pn_data(c->in[1]), pn_data(c->out[0]))) return gather_rows<float4>(c, D / width);
    return narrow ? gather_rows<uint16_t>(c, D) : gather_rows<float>(c, D);
}

/* Scratch: what sorting needs, then the parts. */
static size_t sort_bytes(const pn_op_call *c) {
    return (pn_sort_scratch(c->in[0]->shape[0]) + 255) / 256 * 256;
}
static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    int64_t runs = (c->in[0]->shape[0] + RUN - 1) / RUN;
    return backward_pass ? sort_bytes(c) + (size_t)(2 * runs * c->in[1]->shape[1]) * sizeof(float) : 0;
}

static pn_status backward(const pn_op_call *c) {
    sorted s = { pn_i32(c->in[0]), NULL, c->in[0]->shape[0], c->in[1]->shape[0], c->in[1]->shape[1] };
    if (!c->dout[0] || !c->din[1] || s.N == 0 || s.D == 0) return PN_OK;
    float *dtable = pn_f32(c->din[1]), *part = (float *)((char *)c->scratch + sort_bytes(c));
    PN_TRY(pn_cuda_sort_by_id(name, s.ids, s.N, s.V, c->scratch, &s.token));
    if (c->dtype == PN_BF16) {
        const pn_bf16 *dy = pn_values<pn_bf16>(c->dout[0]);
        return whole(s.D, 8, dy, dtable) ? add_to_table<pn_bf16, 8>(s, dy, dtable, part)
                                         : add_to_table<pn_bf16, 1>(s, dy, dtable, part);
    }
    const float *dy = pn_f32(c->dout[0]);
    return whole(s.D, 4, dy, dtable) ? add_to_table<float, 4>(s, dy, dtable, part)
                                     : add_to_table<float, 1>(s, dy, dtable, part);
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .takes = takes, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(embedding, &impl)
