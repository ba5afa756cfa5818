/* Sums whose bits depend on the data alone: work is cut by the shape, never by the GPU, parts are added in a fixed
 * order, and nothing uses atomics. */
#ifndef PN_KERNELS_CUDA_REDUCE_CUH
#define PN_KERNELS_CUDA_REDUCE_CUH

#include "op_cuda.cuh"

/* One value of the values of a block of THREADS (a multiple of 32, at most 1024), for every thread of it, by an
 * operation that does not mind their order but for rounding. All threads must come. */
template <int THREADS, class T, class OP> __device__ T pn_block_reduce(T x, OP op) {
    __shared__ T part[THREADS / 32];
    for (int d = 16; d > 0; d /= 2) x = op(x, __shfl_xor_sync(0xffffffffu, x, d));
    if (THREADS == 32) return x;
    __syncthreads(); /* part may still be read from the sum before */
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    T all = part[0];
    for (int i = 1; i < THREADS / 32; i++) all = op(all, part[i]);
    return all;
}

struct pn_plus {
    template <class T> __device__ T operator()(T a, T b) const { return a + b; }
};
struct pn_larger {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

template <int THREADS, class T> __device__ T pn_block_sum(T x) {
    return pn_block_reduce<THREADS>(x, pn_plus{});
}
template <int THREADS> __device__ float pn_block_max(float x) {
    return pn_block_reduce<THREADS>(x, pn_larger{});
}

/* ---- sums over all elements ---- */

enum { PN_SUM_THREADS = 256, PN_SUM_PART = 8192, PN_SUM_MOST_PARTS = 1024 };

static inline int64_t pn_cuda_sum_parts(int64_t n) {
    int64_t parts = (n + PN_SUM_PART - 1) / PN_SUM_PART;
    return parts < 1 ? 1 : parts < PN_SUM_MOST_PARTS ? parts : PN_SUM_MOST_PARTS;
}
static inline size_t pn_cuda_sums_scratch(int64_t n, int sums) {
    return (size_t)(pn_cuda_sum_parts(n) * sums) * sizeof(double);
}

/* part [parts, K]: f(i, v) gives the K terms of element i. */
template <int K, class F> __global__ void __launch_bounds__(PN_SUM_THREADS) pn_sum_parts(double *part, int64_t n, F f) {
    double sum[K] = {};
    int64_t step = (int64_t)gridDim.x * PN_SUM_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * PN_SUM_THREADS + threadIdx.x; i < n; i += step) {
        float v[K];
        f(i, v);
        for (int k = 0; k < K; k++) sum[k] += v[k];
    }
    for (int k = 0; k < K; k++) {
        double all = pn_block_sum<PN_SUM_THREADS>(sum[k]);
        if (threadIdx.x == 0) part[(int64_t)blockIdx.x * K + k] = all;
    }
}

template <int K, class G>
__global__ void __launch_bounds__(PN_SUM_THREADS) pn_sum_finish(const double *part, int64_t parts, G g) {
    double sum[K] = {};
    for (int64_t p = threadIdx.x; p < parts; p += PN_SUM_THREADS)
        for (int k = 0; k < K; k++) sum[k] += part[p * K + k];
    for (int k = 0; k < K; k++) sum[k] = pn_block_sum<PN_SUM_THREADS>(sum[k]);
    if (threadIdx.x == 0) g(sum);
}

/* K sums over n elements at once; g(sums) runs in one thread when they are there. scratch: pn_cuda_sums_scratch(n, K).
 */
template <int K, class F, class G> pn_status pn_cuda_sums(const char *name, int64_t n, F f, G g, void *scratch) {
    int64_t parts = pn_cuda_sum_parts(n);
    double *part = (double *)scratch;
    pn_sum_parts<K><<<(unsigned)parts, PN_SUM_THREADS, 0, pn_cuda_stream()>>>(part, n, f);
    PN_TRY(pn_cuda_launched(name));
    pn_sum_finish<K><<<1, PN_SUM_THREADS, 0, pn_cuda_stream()>>>(part, parts, g);
    return pn_cuda_launched(name);
}

/* ---- sums over rows: a value per column ---- */

enum { PN_COLUMNS = 32, PN_COLUMN_ROWS = 8, PN_COLUMN_RUN = 64 }; /* a block: 32 columns, 8 rows at a time */

static inline int64_t pn_cuda_column_runs(int64_t rows) {
    return (rows + PN_COLUMN_RUN - 1) / PN_COLUMN_RUN;
}
static inline size_t pn_cuda_column_sum_scratch(int64_t rows, int64_t columns) {
    return (size_t)(pn_cuda_column_runs(rows) * columns) * sizeof(float);
}

/* For every column c of the block's 32: the sum of f(row, c) over rows begin .. end, in thread row 0. */
template <class F> __device__ float pn_column_sum(int64_t begin, int64_t end, int64_t c, bool inside, F f) {
    __shared__ float part[PN_COLUMN_ROWS][PN_COLUMNS];
    float sum = 0;
    for (int64_t r = begin + threadIdx.y; inside && r < end; r += PN_COLUMN_ROWS) sum += f(r, c);
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    sum = 0;
    for (int i = 0; i < PN_COLUMN_ROWS; i++) sum += part[i][threadIdx.x];
    return sum;
}

/* part [runs, columns] */
template <class F>
__global__ void __launch_bounds__(PN_COLUMNS *PN_COLUMN_ROWS)
    pn_column_parts(float *part, int64_t rows, int64_t columns, F f) {
    int64_t c = (int64_t)blockIdx.x * PN_COLUMNS + threadIdx.x, begin = (int64_t)blockIdx.y * PN_COLUMN_RUN;
    for (int64_t run = blockIdx.y; begin < rows; run += gridDim.y, begin = run * PN_COLUMN_RUN) {
        int64_t end = begin + PN_COLUMN_RUN < rows ? begin + PN_COLUMN_RUN : rows;
        float sum = pn_column_sum(begin, end, c, c < columns, f);
        if (threadIdx.y == 0 && c < columns) part[run * columns + c] = sum;
        __syncthreads(); /* the next run writes what this one reads */
    }
}

template <class G>
__global__ void __launch_bounds__(PN_COLUMNS *PN_COLUMN_ROWS)
    pn_column_finish(const float *part, int64_t runs, int64_t columns, G g) {
    int64_t c = (int64_t)blockIdx.x * PN_COLUMNS + threadIdx.x;
    float sum = pn_column_sum(0, runs, c, c < columns, [=](int64_t r, int64_t k) { return part[r * columns + k]; });
    if (threadIdx.y == 0 && c < columns) g(c, sum);
}

/* g(c, sum over rows of f(row, c)) for every column. scratch: pn_cuda_column_sum_scratch(rows, columns). */
template <class F, class G>
pn_status pn_cuda_column_sums(const char *name, int64_t rows, int64_t columns, F f, G g, void *scratch) {
    if (columns == 0) return PN_OK;
    int64_t runs = pn_cuda_column_runs(rows);
    float *part = (float *)scratch;
    dim3 threads(PN_COLUMNS, PN_COLUMN_ROWS), blocks(pn_cuda_blocks(columns, PN_COLUMNS), 1);
    if (runs) {
        blocks.y = (unsigned)(runs < 65535 ? runs : 65535);
        pn_column_parts<<<blocks, threads, 0, pn_cuda_stream()>>>(part, rows, columns, f);
        PN_TRY(pn_cuda_launched(name));
        blocks.y = 1;
    }
    pn_column_finish<<<blocks, threads, 0, pn_cuda_stream()>>>(part, runs, columns, g);
    return pn_cuda_launched(name);
}

/* g of pn_cuda_column_sums: to[c] += sum. */
struct pn_add_to {
    float *to;
    __device__ void operator()(int64_t c, float sum) const { to[c] += sum; }
};

#endif
