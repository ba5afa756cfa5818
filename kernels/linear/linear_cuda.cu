/* cuBLASLt adds a bias of the output's type only, so in BF16 the bias is rounded first, as the weight is; in float it
 * would take another pass over y. */
#include "cuda/element.cuh"
#include "cuda/fresh.cuh"
#include "cuda/reduce.cuh"

#include "linear.h"

extern "C" {
#include "linear_cuda.h"
}

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "linear/cuda";

enum { THREADS = 256 };

__global__ void __launch_bounds__(THREADS) round_values(const float *x, int64_t n, pn_bf16 *y) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < n) pn_store(y + i, x[i]);
}

template <class T> struct element {
    const T *dy;
    int64_t M;
    __device__ float operator()(int64_t n, int64_t m) const { return pn_load(dy + n * M + m); }
};

struct to_db {
    float *db;
    bool add;
    __device__ void operator()(int64_t m, float sum) const { db[m] = add ? db[m] + sum : sum; }
};

/* part [runs, M], as pn_column_parts: 16 bytes of a row to a thread, where rows are whole numbers of them. */
template <class T>
__global__ void __launch_bounds__(PN_COLUMNS *PN_COLUMN_ROWS)
    wide_column_parts(const T *dy, int64_t N, int64_t M, float *part) {
    constexpr int W = pn_vector<T>::n;
    __shared__ float sums[PN_COLUMN_ROWS][PN_COLUMNS * W];
    const int64_t run = blockIdx.y, begin = run * PN_COLUMN_RUN, c0 = (int64_t)blockIdx.x * PN_COLUMNS * W;
    const int64_t end = begin + PN_COLUMN_RUN < N ? begin + PN_COLUMN_RUN : N, c = c0 + threadIdx.x * W;
    float sum[W] = {};
#pragma unroll 4
    for (int64_t n = begin + threadIdx.y; n < end; n += PN_COLUMN_ROWS) {
        const pn_vector<T> v = c < M ? *(const pn_vector<T> *)(dy + n * M + c) : pn_vector<T>{};
        for (int w = 0; w < W; w++) sum[w] += pn_load(v.x + w);
    }
    for (int w = 0; w < W; w++) sums[threadIdx.y][threadIdx.x * W + w] = sum[w];
    __syncthreads();
    const int thread = threadIdx.y * PN_COLUMNS + threadIdx.x;
    if (thread >= PN_COLUMNS * W || c0 + thread >= M) return;
    float all = 0;
    for (int i = 0; i < PN_COLUMN_ROWS; i++) all += sums[i][thread];
    part[run * M + c0 + thread] = all;
}

template <class T> pn_status make_db(const pn_op_call *c) {
    const int64_t N = c->dout[0]->shape[0], M = c->dout[0]->shape[1], runs = pn_cuda_column_runs(N);
    const T *dy = pn_values<T>(c->dout[0]);
    const to_db to = { pn_f32(c->din[2]), pn_op_adds(c, 2) };
    float *part = (float *)c->scratch;
    const int width = pn_vector<T>::n;
    if (runs == 0 || runs > 65535 || M % width || (uintptr_t)dy % 16)
        return pn_cuda_column_sums(name, N, M, element<T>{ dy, M }, to, part);
    const dim3 threads(PN_COLUMNS, PN_COLUMN_ROWS);
    wide_column_parts<<<dim3(pn_cuda_blocks(M, PN_COLUMNS * width), (unsigned)runs), threads, 0, pn_cuda_stream()>>>(
        dy, N, M, part);
    PN_TRY(pn_cuda_launched(name));
    pn_column_finish<<<pn_cuda_blocks(M, PN_COLUMNS), threads, 0, pn_cuda_stream()>>>(part, runs, M, to);
    return pn_cuda_launched(name);
}

} // namespace

/* A product over nothing has no plan. */
static bool takes(const pn_op_call *c) {
    return c->in[1]->shape[0] >= 1 && c->in[1]->shape[1] >= 1;
}

/* Scratch: the products' workspace, where afterwards the bias gradient's sums are; in BF16 forward then the bias. */
static pn_bf16 *rounded_bias(const pn_op_call *c) {
    return (pn_bf16 *)((char *)c->scratch + PN_MATMUL_WORKSPACE);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    size_t products = PN_MATMUL_WORKSPACE, sums = 0;
    if (backward_pass && c->in[2] && c->wants[2])
        sums = pn_cuda_column_sum_scratch(c->in[0]->shape[0], c->in[1]->shape[0]);
    if (!backward_pass && c->in[2] && c->dtype == PN_BF16) products += (size_t)c->in[1]->shape[0] * sizeof(pn_bf16);
    return sums > products ? sums : products;
}

static pn_linear_cuda products_of(const pn_op_call *c) {
    return { name, c->dtype, c->in[0]->shape[0], c->in[1]->shape[1], c->in[1]->shape[0], c->scratch };
}

static pn_status forward(const pn_op_call *c) {
    const pn_linear_cuda l = products_of(c);
    const void *bias = pn_f32_or_null(c->in[2]);
    if (bias && c->dtype == PN_BF16) {
        round_values<<<pn_cuda_blocks(l.out, THREADS), THREADS, 0, pn_cuda_stream()>>>(pn_f32(c->in[2]), l.out,
                                                                                       rounded_bias(c));
        PN_TRY(pn_cuda_launched(name));
        bias = rounded_bias(c);
    }
    return pn_linear_cuda_y(&l, pn_data(c->in[0]), pn_data(c->in[1]), bias, pn_data(c->out[0]));
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return pn_cuda_zero_fresh(c);
    const pn_linear_cuda l = products_of(c);
    const void *dy = pn_data(c->dout[0]);
    if (c->din[0]) PN_TRY(pn_linear_cuda_dx(&l, dy, pn_data(c->in[1]), pn_data(c->din[0]), pn_op_adds(c, 0)));
    if (c->din[1]) PN_TRY(pn_linear_cuda_dw(&l, dy, pn_data(c->in[0]), pn_f32(c->din[1]), pn_op_adds(c, 1)));
    if (!c->din[2]) return PN_OK;
    return c->dtype == PN_BF16 ? make_db<pn_bf16>(c) : make_db<float>(c);
}

static const pn_op_impl impl = { .name = name,
                                 .bf16 = true,
                                 .fresh = true,
                                 .takes = takes,
                                 .scratch_bytes = scratch_bytes,
                                 .forward = forward,
                                 .backward = backward };
PN_CUDA_OP(linear, &impl)
