/* One pass over y and target: the variance is what their squares sum to less what the means make of it, in double,
 * where that loses no digit that PN_FEATURE_LOSS_MIN_VARIANCE keeps. */
#include "cuda/map.cuh"
#include "cuda/reduce.cuh"

#include "feature_loss.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "feature_loss/cuda";

enum { Y, TARGET };
enum { LOSS, VARIANCE };
/* A block takes a run of rows of some columns, a thread all rows of its columns; runs are cut by the shape alone. */
enum { THREADS = 256, RUNS = 512, LEAST_ROWS = 8 };

struct cut {
    int64_t N, D, rows, runs; /* of a run; how many */
    int64_t column_blocks, blocks;
};

template <class T> struct inputs { const T *y, *t; };

/* column [runs, D]: sums of the target; part [blocks, 2]: sums of (y - t)^2 and of t^2. */
template <int W, class T>
__global__ void __launch_bounds__(THREADS) sum_runs(cut s, inputs<T> p, double *column, double *part) {
    const int64_t c = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W, begin = blockIdx.y * s.rows;
    const int64_t end = c >= s.D ? begin : begin + s.rows < s.N ? begin + s.rows : s.N;
    double sum[W] = {}, error = 0, energy = 0;
#pragma unroll 4
    for (int64_t n = begin; n < end; n++) {
        pn_lanes<W> y = pn_lanes_at<W>(p.y + n * s.D + c), t = pn_lanes_at<W>(p.t + n * s.D + c);
        float e = 0;
#pragma unroll
        for (int k = 0; k < W; k++) {
            e += (y.x[k] - t.x[k]) * (y.x[k] - t.x[k]);
            sum[k] += t.x[k];
            energy += (double)t.x[k] * t.x[k];
        }
        error += e;
    }
#pragma unroll
    for (int k = 0; k < W; k++)
        if (c < s.D) column[blockIdx.y * s.D + c + k] = sum[k];
    error = pn_block_sum<THREADS>(error);
    energy = pn_block_sum<THREADS>(energy);
    if (threadIdx.x > 0) return;
    part += 2 * (blockIdx.y * gridDim.x + blockIdx.x);
    part[0] = error;
    part[1] = energy;
}

/* square [gridDim.x]: of the sums of the block's columns. */
__global__ void __launch_bounds__(PN_COLUMNS *PN_COLUMNS) square_columns(cut s, const double *column, double *square) {
    __shared__ double part[PN_COLUMNS][PN_COLUMNS];
    const int64_t c = (int64_t)blockIdx.x * PN_COLUMNS + threadIdx.x;
    double sum = 0;
#pragma unroll 8
    for (int64_t run = threadIdx.y; run < s.runs; run += PN_COLUMNS) sum += c < s.D ? column[run * s.D + c] : 0;
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0) return;
    for (int i = 1; i < PN_COLUMNS; i++) sum += part[i][threadIdx.x];
    sum *= sum;
    for (int step = PN_COLUMNS / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (threadIdx.x == 0) square[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(THREADS)
    finish(cut s, const double *part, const double *square, int64_t squares, float *loss, float *variance) {
    double error = 0, energy = 0, means = 0;
    for (int64_t i = threadIdx.x; i < s.blocks; i += THREADS) {
        error += part[2 * i];
        energy += part[2 * i + 1];
    }
    for (int64_t i = threadIdx.x; i < squares; i += THREADS) means += square[i];
    error = pn_block_sum<THREADS>(error);
    energy = pn_block_sum<THREADS>(energy);
    means = pn_block_sum<THREADS>(means);
    if (threadIdx.x > 0) return;
    double n = (double)(s.N * s.D), V = n > 0 ? energy - means / (double)s.N : 0;
    double S = V > PN_FEATURE_LOSS_MIN_VARIANCE * energy ? V : n;
    *loss = n > 0 ? (float)(error / S) : 0;
    *variance = (float)S;
}

struct gradient {
    const float *dloss, *variance;
    __device__ float operator()(float y, float t) const { return 2 * *dloss / *variance * (y - t); }
};

/* W: columns of a thread. */
cut cut_of(const pn_op_call *c, int W) {
    cut s = {};
    s.N = c->in[Y]->shape[0];
    s.D = c->in[Y]->shape[1];
    s.rows = (s.N + RUNS - 1) / RUNS < LEAST_ROWS ? LEAST_ROWS : (s.N + RUNS - 1) / RUNS;
    s.runs = (s.N + s.rows - 1) / s.rows;
    s.column_blocks = (s.D + THREADS * W - 1) / (THREADS * W);
    s.blocks = s.runs * s.column_blocks;
    return s;
}
int64_t squares_of(const cut &s) {
    return (s.D + PN_COLUMNS - 1) / PN_COLUMNS;
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    constexpr int V = pn_vector<T>::n;
    const inputs<T> p = { pn_values<T>(c->in[Y]), pn_values<T>(c->in[TARGET]) };
    const bool pieces = c->in[Y]->shape[1] % V == 0 && pn_cuda_in_pieces<V>(p.y, p.t);
    const cut s = cut_of(c, pieces ? V : 1);
    double *column = (double *)c->scratch, *part = column + s.runs * s.D, *square = part + 2 * s.blocks;
    const int64_t squares = s.blocks ? squares_of(s) : 0;
    if (s.blocks) {
        dim3 blocks((unsigned)s.column_blocks, (unsigned)s.runs), threads(PN_COLUMNS, PN_COLUMNS);
        if (pieces)
            sum_runs<V><<<blocks, THREADS, 0, pn_cuda_stream()>>>(s, p, column, part);
        else
            sum_runs<1><<<blocks, THREADS, 0, pn_cuda_stream()>>>(s, p, column, part);
        PN_TRY(pn_cuda_launched(name));
        square_columns<<<(unsigned)squares, threads, 0, pn_cuda_stream()>>>(s, column, square);
        PN_TRY(pn_cuda_launched(name));
    }
    finish<<<1, THREADS, 0, pn_cuda_stream()>>>(s, part, square, squares, pn_f32(c->out[LOSS]),
                                                pn_f32(c->out[VARIANCE]));
    return pn_cuda_launched(name);
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    return pn_cuda_map_gradient<T>(name, c, Y, gradient{ pn_f32(c->dout[LOSS]), pn_f32(c->out[VARIANCE]) },
                                   pn_values<T>(c->in[Y]), pn_values<T>(c->in[TARGET]));
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[Y], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[LOSS]) return pn_cuda_zero_fresh(c);
    return c->din[Y] ? PN_CUDA_TYPED(c->din[Y], backward_of, c) : PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (backward_pass) return 0;
    const cut s = cut_of(c, 1); /* the most blocks */
    return (size_t)(s.runs * s.D + 2 * s.blocks + squares_of(s)) * sizeof(double);
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(feature_loss, &impl)
