/* Ids are checked where they are used: an id outside the table gives a row of zeros, adds to nothing, and fails the
 * next synchronisation (device_cuda.h).
 *
 * Backward adds to every row of the table in token order, as on the CPU. Tokens of one id are a linked list: a block
 * per token looks for the next one with its id, then a block per list, started by the first token of it, walks down. */
#include "cuda/inputs.cuh"

#include "embedding.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "embedding/cuda";

enum { THREADS = 128 };

__global__ void __launch_bounds__(THREADS) gather(const int32_t *ids, int64_t N, const float *table, int64_t V,
                                                  int64_t D, float *y, pn_cuda_bad *bad, const char *what) {
    for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
        int32_t id = ids[n];
        bool inside = id >= 0 && id < V;
        if (!inside && threadIdx.x == 0) pn_report_id(bad, what, id, n, 0, V);
        for (int64_t i = threadIdx.x; i < D; i += THREADS) y[n * D + i] = inside ? table[id * D + i] : 0;
    }
}

/* next[n]: the nearest later token with the id of n, N for none. first[n] is 1 before and becomes 0 where n is one. */
__global__ void __launch_bounds__(THREADS) link_tokens(const int32_t *ids, int64_t N, int32_t *next, int32_t *first) {
    __shared__ int32_t found;
    for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
        if (threadIdx.x == 0) found = (int32_t)N;
        __syncthreads();
        for (int64_t begin = n + 1; begin < N; begin += THREADS) {
            int64_t k = begin + threadIdx.x;
            bool same = k < N && ids[k] == ids[n];
            if (same) atomicMin(&found, (int32_t)k); /* the least, whoever comes first */
            if (__syncthreads_or(same)) break;
        }
        if (threadIdx.x == 0) {
            next[n] = found;
            if (found < N) first[found] = 0;
        }
        __syncthreads();
    }
}

__global__ void __launch_bounds__(THREADS)
    scatter(const int32_t *ids, int64_t N, const int32_t *next, const int32_t *first, const float *dy, int64_t V,
            int64_t D, float *dtable) {
    int64_t i = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
        if (!first[n] || ids[n] < 0 || ids[n] >= V || i >= D) continue;
        float sum = dtable[ids[n] * D + i];
        for (int64_t k = n; k < N; k = next[k]) sum += dy[k * D + i];
        dtable[ids[n] * D + i] = sum;
    }
}

} // namespace

static unsigned grid(int64_t N) {
    return (unsigned)(N < 1 << 20 ? N : 1 << 20);
}

static bool takes(const pn_op_call *c) {
    return c->in[0]->shape[0] <= INT32_MAX - THREADS && c->in[1]->shape[1] <= (int64_t)65535 * THREADS;
}

static pn_status forward(const pn_op_call *c) {
    int64_t N = c->in[0]->shape[0], V = c->in[1]->shape[0], D = c->in[1]->shape[1];
    if (N == 0) return PN_OK;
    gather<<<grid(N), THREADS, 0, pn_cuda_stream()>>>(pn_i32(c->in[0]), N, pn_f32(c->in[1]), V, D, pn_f32(c->out[0]),
                                                      pn_cuda_bad_slot(), "embedding: token id");
    return pn_cuda_launched(name);
}

static pn_status backward(const pn_op_call *c) {
    int64_t N = c->in[0]->shape[0], V = c->in[1]->shape[0], D = c->in[1]->shape[1];
    if (!c->dout[0] || !c->din[1] || N == 0 || D == 0) return PN_OK;
    const int32_t *ids = pn_i32(c->in[0]);
    int32_t *next = (int32_t *)c->scratch, *first = next + N;
    /* Any value but 0 will do for "first". */
    PN_TRY(pn_cuda_status(cudaMemsetAsync(first, 1, (size_t)N * sizeof *first, pn_cuda_stream()), name));
    link_tokens<<<grid(N), THREADS, 0, pn_cuda_stream()>>>(ids, N, next, first);
    PN_TRY(pn_cuda_launched(name));
    dim3 blocks(grid(N), pn_cuda_blocks(D, THREADS));
    scatter<<<blocks, THREADS, 0, pn_cuda_stream()>>>(ids, N, next, first, pn_f32(c->dout[0]), V, D, pn_f32(c->din[1]));
    return pn_cuda_launched(name);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    return backward_pass ? (size_t)c->in[0]->shape[0] * 2 * sizeof(int32_t) : 0;
}

static const pn_op_impl impl = {
    .name = name, .takes = takes, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(embedding, &impl)
