/* Few outputs, in BF16: x is read once for both, and in backward dx is written once; memory is the limit of all three
 * kernels. They take x, W and dx from memory in pieces of 8 neighbouring columns and give them to tensor cores as they
 * come: which column or row of a fragment stands for which of the matrix is free, as long as both operands agree. So
 * nothing goes through shared memory but the sums of several warps.
 *
 * The outputs of both are numbered through: output j is of W0 for j < M0, then of W1; from M0 + M1 on they are none. */
#include "cuda/lanes.cuh"
#include "cuda/tensor_core.cuh"

extern "C" {
#include "linear_pair_cuda.h"
}

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "linear_pair/cuda-narrow";

enum { OUTPUTS = 32, TILE = 16, COLUMNS = 64, WARPS = 8, THREADS = 32 * WARPS };

/* Two matrices, [.., M0] and [.., M1] for the rows of outputs, or W0 and W1. */
struct both {
    const pn_bf16 *at[2]; /* NULL: zeros */
    int m[2];             /* M0, M1 */
};

__device__ uint4 piece_of(const pn_bf16 *from, bool there) {
    return there ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
}
/* x, which no other warp of the multiprocessor wants: W stays in the cache. */
__device__ uint4 passing_piece(const pn_bf16 *from, bool there) {
    uint4 v = make_uint4(0, 0, 0, 0);
    if (there)
        asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
            : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
            : "l"(from));
    return v;
}

/* The row of W for output j. */
__device__ const pn_bf16 *row_of(const both &w, int j, int64_t K) {
    return j < w.m[0] ? w.at[0] + j * K : w.at[1] + (j - w.m[0]) * K;
}

/* Where output j of a row is; NULL: nowhere, it is 0. */
__device__ const pn_bf16 *output_of(const both &y, int64_t row, int j) {
    const bool second = j >= y.m[0];
    const pn_bf16 *at = second ? y.at[1] : y.at[0];
    const int m = second ? y.m[1] : y.m[0], k = second ? j - y.m[0] : j;
    return at && k < m ? at + row * m + k : NULL;
}

/* Outputs j .. j + 3 of a row. FOURS: no four is of both matrices or half of one, and they are aligned to 8 bytes. */
template <bool FOURS> __device__ uint2 four_of(const both &y, int64_t row, int j) {
    if constexpr (FOURS) {
        const pn_bf16 *at = output_of(y, row, j);
        return at ? *(const uint2 *)at : make_uint2(0, 0);
    } else {
        uint32_t v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const pn_bf16 *at = output_of(y, row, j + i);
            v[i] = at ? *(const uint16_t *)at : 0;
        }
        return make_uint2(v[0] | v[1] << 16, v[2] | v[3] << 16);
    }
}

/* pair[c]: column c of two rows, of 8 columns. */
__device__ void pair_columns(uint32_t pair[8], const uint4 &first, const uint4 &second) {
    const uint32_t a[4] = { first.x, first.y, first.z, first.w }, b[4] = { second.x, second.y, second.z, second.w };
#pragma unroll
    for (int q = 0; q < 4; q++) {
        pair[2 * q] = __byte_perm(a[q], b[q], 0x5410);
        pair[2 * q + 1] = __byte_perm(a[q], b[q], 0x7632);
    }
}
__device__ void pair_columns(uint32_t pair[4], const uint2 &first, const uint2 &second) {
    pair[0] = __byte_perm(first.x, second.x, 0x5410), pair[1] = __byte_perm(first.x, second.x, 0x7632);
    pair[2] = __byte_perm(first.y, second.y, 0x5410), pair[3] = __byte_perm(first.y, second.y, 0x7632);
}

/* ---- y ---- */

struct outputs {
    pn_bf16 *at[2];
};

/* A block: 16 rows, and a share of K to each warp. A k of the product's fragments is a column of 32 at a time: lane t
 * has columns 8 t .. 8 t + 7 of them. */
template <int TILES, int SHARES>
__global__ void __launch_bounds__(32 * SHARES) make_y(const pn_bf16 *x, both w, outputs y, int64_t N, int K) {
    __shared__ float part[SHARES][TILE][8 * TILES + 1];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int64_t first = (int64_t)blockIdx.x * TILE;
    /* Past the last row, or output, it is made once more, and left. */
    const pn_bf16 *row[2], *weight[TILES];
    for (int i = 0; i < 2; i++) row[i] = x + (first + g + 8 * i < N ? first + g + 8 * i : N - 1) * K;
    for (int i = 0; i < TILES; i++) weight[i] = row_of(w, min(8 * i + g, w.m[0] + w.m[1] - 1), K);
    float sum[TILES][4] = {};
#pragma unroll 2
    for (int k = warp * 32 + t * 8; k - t * 8 < K; k += SHARES * 32) {
        const uint4 low = passing_piece(row[0] + k, k < K), high = passing_piece(row[1] + k, k < K);
        const uint32_t a[2][4] = { { low.x, high.x, low.y, high.y }, { low.z, high.z, low.w, high.w } };
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            const uint4 b = piece_of(weight[i] + k, k < K);
            pn_mma_bf16(sum[i], a[0], b.x, b.y);
            pn_mma_bf16(sum[i], a[1], b.z, b.w);
        }
    }
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int q = 0; q < 4; q++) part[warp][g + q / 2 * 8][8 * i + 2 * t + q % 2] = sum[i][q];
    __syncthreads();
    const int rows = (int)(N - first < TILE ? N - first : TILE);
#pragma unroll
    for (int k = 0; k < 2; k++)
        for (int e = (int)threadIdx.x; e < rows * w.m[k]; e += 32 * SHARES) {
            const int r = e / w.m[k], j = e % w.m[k] + (k ? w.m[0] : 0);
            float all = 0;
            for (int s = 0; s < SHARES; s++) all += part[s][r][j];
            pn_store(y.at[k] + first * w.m[k] + e, all);
        }
}

/* ---- dx ---- */

enum { DX_TILES = 4, DX_ROWS = WARPS * TILE * DX_TILES };

/* A block: 64 columns, 16 rows at a time to each warp, with its columns of W in registers. A k of the fragments is an
 * output: lane t has 4 t .. 4 t + 3 of 16. Column i of fragment b is 8 b' + i of the 64 for lane group b'. */
template <bool FOURS>
__global__ void __launch_bounds__(THREADS, 2) make_dx(both dy, both w, pn_gradient<pn_bf16> dx, int64_t N, int K) {
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int slabs = (K + COLUMNS - 1) / COLUMNS, first = (int)(blockIdx.x % slabs) * COLUMNS;
    const int column = first + 8 * g, outs = w.m[0] + w.m[1];
    uint32_t b[2][2][8];
#pragma unroll
    for (int s = 0; s < 2; s++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int j = 16 * s + 4 * t + 2 * half;
            uint4 v[2];
            for (int i = 0; i < 2; i++) {
                const bool there = j + i < outs && column < K;
                v[i] = piece_of(there ? row_of(w, j + i, K) + column : NULL, there);
            }
            pair_columns(b[s][half], v[0], v[1]);
        }
    const int64_t begin = (int64_t)(blockIdx.x / slabs) * DX_ROWS + warp * TILE;
    for (int64_t tile = begin; tile < N && tile < begin + DX_ROWS; tile += WARPS * TILE) {
        const int64_t row[2] = { tile + g, tile + g + 8 };
        float sum[8][4] = {};
#pragma unroll
        for (int s = 0; s < 2; s++) {
            const int j = 16 * s + 4 * t;
            const uint2 low = four_of<FOURS>(dy, min(row[0], N - 1), j),
                        high = four_of<FOURS>(dy, min(row[1], N - 1), j);
            const uint32_t a[4] = { low.x, high.x, low.y, high.y };
#pragma unroll
            for (int i = 0; i < 8; i++) pn_mma_bf16(sum[i], a, b[s][0][i], b[s][1][i]);
        }
#pragma unroll
        for (int q = 0; q < 4; q++) {
            const int at = first + 8 * (2 * t + q % 2);
            pn_lanes<8> v;
#pragma unroll
            for (int i = 0; i < 8; i++) v.x[i] = sum[i][q];
            if (row[q / 2] < N && at < K) dx.put(row[q / 2] * K + at, v);
        }
    }
}

/* ---- dW ---- */

enum { RUN = 1024, PARTS = WARPS / 2, SUMS = COLUMNS * OUTPUTS / 32, PITCH = 33 };

/* part [runs, M0 + M1, K]: dy^T x over a run of rows. A block: 64 columns, 16 rows at a time to each warp. A k of the
 * fragments is a row: lane t has 4 t .. 4 t + 3 of 16; g has columns 8 g .. 8 g + 7 of 64 and outputs 4 g .. 4 g + 3.
 */
template <bool FOURS>
__global__ void __launch_bounds__(THREADS, 2) make_dw(const pn_bf16 *x, both dy, float *part, int64_t N, int K) {
    __shared__ float sums[PARTS][SUMS * PITCH];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int slabs = (K + COLUMNS - 1) / COLUMNS, first = (int)(blockIdx.x % slabs) * COLUMNS;
    const int column = first + 8 * g, outs = dy.m[0] + dy.m[1];
    const int64_t run = blockIdx.x / slabs, begin = run * RUN, end = begin + RUN < N ? begin + RUN : N;
    float sum[4][4][4] = {};
    for (int64_t tile = begin + warp * TILE; tile < end; tile += WARPS * TILE) {
        uint4 v[4];
        uint2 d[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int64_t row = tile + 4 * t + i;
            v[i] = passing_piece(x + row * K + column, row < end && column < K);
            d[i] = row < end ? four_of<FOURS>(dy, row, 4 * g) : make_uint2(0, 0);
        }
        uint32_t low[8], high[8], b[2][4];
        pair_columns(low, v[0], v[1]);
        pair_columns(high, v[2], v[3]);
        pair_columns(b[0], d[0], d[1]);
        pair_columns(b[1], d[2], d[3]);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t a[4] = { low[2 * i], low[2 * i + 1], high[2 * i], high[2 * i + 1] };
#pragma unroll
            for (int n = 0; n < 4; n++) pn_mma_bf16(sum[i][n], a, b[0][n], b[1][n]);
        }
    }
    /* The second half of the warps adds to the first, then their sums are added in order. */
    for (int half = 0; half < 2; half++) {
        float *to = sums[warp % PARTS] + lane;
        if (warp / PARTS == half)
#pragma unroll
            for (int e = 0; e < SUMS; e++) {
                const float value = sum[e / 16][e / 4 % 4][e % 4];
                to[e * PITCH] = half ? to[e * PITCH] + value : value;
            }
        __syncthreads();
    }
    for (int o = (int)threadIdx.x; o < outs * COLUMNS; o += THREADS) {
        const int c = o % COLUMNS, j = o / COLUMNS;
        if (first + c >= K) continue;
        const int e = c % 8 / 2 * 16 + j % 4 * 4 + c % 2 * 2 + j / 4 % 2, of = c / 8 * 4 + j / 8;
        float all = 0;
        for (int i = 0; i < PARTS; i++) all += sums[i][e * PITCH + of];
        part[(run * outs + j) * K + first + c] = all;
    }
}

struct weight_gradients {
    float *at[2]; /* NULL: not wanted */
    bool add[2];
};

__global__ void __launch_bounds__(THREADS)
    finish_dw(const float *part, int64_t runs, int64_t n0, int64_t n, weight_gradients dw) {
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    const bool second = i >= n0, add = second ? dw.add[1] : dw.add[0];
    float *to = second ? dw.at[1] : dw.at[0], sum = 0;
    if (!to) return;
    to += second ? i - n0 : i;
    for (int64_t r = 0; r < runs; r++) sum += part[r * n + i];
    *to = add ? *to + sum : sum;
}

/* ---- calls ---- */

int64_t rows_of(const pn_op_call *c) {
    return c->in[0]->shape[0];
}
int columns_of(const pn_op_call *c) {
    return (int)c->in[0]->shape[1];
}
int64_t runs_of(const pn_op_call *c) {
    return (rows_of(c) + RUN - 1) / RUN;
}
int outputs_of(const pn_op_call *c) {
    return (int)(c->in[1]->shape[0] + c->in[2]->shape[0]);
}

both both_of(const pn_op_call *c, const pn_tensor *first, const pn_tensor *second) {
    return { { pn_values_or_null<pn_bf16>(first), pn_values_or_null<pn_bf16>(second) },
             { (int)c->in[1]->shape[0], (int)c->in[2]->shape[0] } };
}

template <int TILES> void start_y(const pn_op_call *c, const both &w, const outputs &y) {
    const int64_t N = rows_of(c);
    const unsigned blocks = pn_cuda_blocks(N, TILE);
    const pn_bf16 *x = pn_values<pn_bf16>(c->in[0]);
    if (N > 2048) /* rows alone fill the GPU */
        make_y<TILES, 4><<<blocks, 128, 0, pn_cuda_stream()>>>(x, w, y, N, columns_of(c));
    else
        make_y<TILES, 16><<<blocks, 512, 0, pn_cuda_stream()>>>(x, w, y, N, columns_of(c));
}

pn_status forward(const pn_op_call *c) {
    const both w = both_of(c, c->in[1], c->in[2]);
    const outputs y = { { pn_values<pn_bf16>(c->out[0]), pn_values<pn_bf16>(c->out[1]) } };
    static void (*const start[])(const pn_op_call *, const both &, const outputs &) = { start_y<1>, start_y<2>,
                                                                                        start_y<3>, start_y<4> };
    start[(outputs_of(c) - 1) / 8](c, w, y);
    return pn_cuda_launched(name);
}

template <bool FOURS> pn_status backward_of(const pn_op_call *c, const both &dy) {
    const int64_t N = rows_of(c), runs = runs_of(c), K = columns_of(c), slabs = (K + COLUMNS - 1) / COLUMNS;
    if (c->din[0]) {
        const unsigned blocks = (unsigned)((N + DX_ROWS - 1) / DX_ROWS * slabs);
        make_dx<FOURS><<<blocks, THREADS, 0, pn_cuda_stream()>>>(dy, both_of(c, c->in[1], c->in[2]),
                                                                 pn_cuda_gradient<pn_bf16>(c, 0), N, (int)K);
        PN_TRY(pn_cuda_launched(name));
    }
    if (!c->din[1] && !c->din[2]) return PN_OK;
    float *part = (float *)c->scratch;
    make_dw<FOURS>
        <<<(unsigned)(runs * slabs), THREADS, 0, pn_cuda_stream()>>>(pn_values<pn_bf16>(c->in[0]), dy, part, N, (int)K);
    PN_TRY(pn_cuda_launched(name));
    const weight_gradients dw = { { pn_f32_or_null(c->din[1]), pn_f32_or_null(c->din[2]) },
                                  { pn_op_adds(c, 1), pn_op_adds(c, 2) } };
    const int64_t n0 = c->in[1]->shape[0] * K, n = outputs_of(c) * K;
    finish_dw<<<pn_cuda_blocks(n, THREADS), THREADS, 0, pn_cuda_stream()>>>(part, runs, n0, n, dw);
    return pn_cuda_launched(name);
}

bool in_fours(const both &y) {
    return y.m[0] % 4 == 0 && y.m[1] % 4 == 0 && pn_cuda_in_pieces<4>(y.at[0], y.at[1]);
}

pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] && !c->dout[1]) return pn_cuda_zero_fresh(c);
    const both dy = both_of(c, c->dout[0], c->dout[1]);
    return in_fours(dy) ? backward_of<true>(c, dy) : backward_of<false>(c, dy);
}

size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    const bool dw = backward_pass && (c->wants[1] || c->wants[2]);
    return dw ? (size_t)(runs_of(c) * outputs_of(c) * columns_of(c)) * sizeof(float) : 0;
}

/* Every tensor starts at a multiple of 16 bytes but a view of rows. */
bool aligned(const pn_tensor *t) {
    return t->offset % 8 == 0;
}

bool takes(const pn_op_call *c) {
    const int64_t m0 = c->in[1]->shape[0], m1 = c->in[2]->shape[0], K = c->in[0]->shape[1];
    for (int i = 0; i < 3; i++)
        if (!aligned(c->in[i])) return false;
    return c->dtype == PN_BF16 && rows_of(c) > 0 && rows_of(c) < 1 << 27 && m0 > 0 && m1 > 0 && m0 + m1 <= OUTPUTS &&
           K > 0 && K % 8 == 0 && K < 1 << 16;
}

} // namespace

extern "C" const pn_op_impl pn_linear_pair_cuda_narrow = { .name = name,
                                                           .bf16 = true,
                                                           .fresh = true,
                                                           .takes = takes,
                                                           .scratch_bytes = scratch_bytes,
                                                           .forward = forward,
                                                           .backward = backward };
