/* The part of a chunk that does not know the state: scores, decays and the inverse of the unit lower system, for one
 * chunk and value head per block of four warps (blocks.md 1.9, 8.4).
 *
 * Warp w computes rows 16 w .. of K K^T and Q K^T on tensor cores, bf16 in and fp32 out. The inverse is exact
 * substitution in fp32 for the four diagonal 16 x 16 blocks, one per warp, and from there
 * X_21 = -X_22 (A_21 X_11), first for 16 x 16 blocks, then for 32 x 32, in tf32: its rounding is a quarter of that of
 * the bf16 in which X is handed on. */
#include "gated_delta_cuda_chunk.cuh"

#include <type_traits>

#include "cuda/tensor_core.cuh"

namespace {

enum { C = PN_DELTA_CHUNK, THREADS = 128, ROW = C + 4 }; /* ROW: of A, in floats; + 4 spreads a column over the banks */

template <int DK> struct shared {
    static constexpr int tile = pn_tile<DK>::bytes;
    static constexpr int system =
        (int)sizeof(float) * (C * ROW + 4 * 32 * 8); /* A, then a strip of products per warp */
    static constexpr int bytes = 2 * tile > system ? 2 * tile : system;
};

struct gates {
    float high[C], low[C]; /* L_i log2(e), in two floats: differences keep their digits after strong decays */
    float beta[C];
};

struct chunk_place {
    int64_t first; /* token */
    int n;         /* 0: there is no such chunk */
};

__device__ chunk_place find_chunk(const pn_gated_delta_cuda &c, int64_t chunk) {
    if (chunk >= c.chunk[c.docs]) return { 0, 0 };
    const int first = c.chunk_begin[chunk], left = c.offset[c.chunk_doc[chunk] + 1] - first;
    return { first, left < C ? left : (int)C };
}

/* L = g_1 + .. + g_i by one warp in double, lane l for tokens 2 l and 2 l + 1. */
template <class Packed>
__device__ void chunk_gates(const pn_gated_delta_cuda &c, int64_t at, int n, gates *x, Packed *out) {
    int lane = (int)threadIdx.x % 32, i = 2 * lane;
    const float *g = c.g ? c.g + at : nullptr, *beta = c.beta + at;
    float b0 = i < n ? beta[(int64_t)i * c.v_heads] : 0.0f, b1 = i + 1 < n ? beta[(int64_t)(i + 1) * c.v_heads] : 0.0f;
    double g0 = g && i < n ? (double)g[(int64_t)i * c.v_heads] : 0.0;
    double g1 = g && i + 1 < n ? (double)g[(int64_t)(i + 1) * c.v_heads] : 0.0;
    double sum = g0 + g1;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        double before = __shfl_up_sync(~0u, sum, (unsigned)step);
        if (lane >= step) sum += before;
    }
    const double log2e = 1.4426950408889634;
    double L1 = sum * log2e, L0 = (sum - g1) * log2e, end = __shfl_sync(~0u, L1, 31);
    x->high[i] = (float)L0;
    x->high[i + 1] = (float)L1;
    x->low[i] = (float)(L0 - (double)(float)L0);
    x->low[i + 1] = (float)(L1 - (double)(float)L1);
    x->beta[i] = b0;
    x->beta[i + 1] = b1;
    out->in[i] = exp2f((float)L0);
    out->in[i + 1] = exp2f((float)L1);
    const float out0 = exp2f((float)(end - L0)), out1 = exp2f((float)(end - L1));
    if constexpr (std::is_same_v<Packed, pn_delta_packed>) {
        out->write[i] = b0 * out0;
        out->write[i + 1] = b1 * out1;
    } else {
        out->out[i] = out0;
        out->out[i + 1] = out1;
        for (int y = i; y < i + 2; y++) out->beta[y] = x->beta[y], out->high[y] = x->high[y], out->low[y] = x->low[y];
    }
}

/* e^{L_i - L_j}; j <= i. */
__device__ __forceinline__ float decay(const gates *x, int i, int j) {
    return exp2f((x->high[i] - x->high[j]) + (x->low[i] - x->low[j]));
}

/* Two neighbouring elements (g, 2t) of 8 x 8 matrix `half` (2 (row half) + column half) of packed block (i, j). */
__device__ __forceinline__ void put_pair(unsigned char (*packed)[512], int i, int j, int half, float first,
                                         float second) {
    int lane = (int)threadIdx.x % 32;
    *(uint32_t *)&packed[pn_delta_block(i, j)][128 * half + 4 * lane] = pn_bf16_pair(first, second);
}

/* A fragment of 16 x 8 elements of a matrix of floats, and a B fragment of 8 x 8. */
__device__ __forceinline__ void left_tf32(uint32_t a[4], const float *x, int ld) {
    int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    a[0] = pn_tf32(x[g * ld + t]);
    a[1] = pn_tf32(x[(g + 8) * ld + t]);
    a[2] = pn_tf32(x[g * ld + t + 4]);
    a[3] = pn_tf32(x[(g + 8) * ld + t + 4]);
}
/* y[16, 8] = a[16, Inner] b[Inner, 8], as an accumulator. */
template <int Inner>
__device__ __forceinline__ void product_tf32(float y[4], const float *a, int lda, const float *b, int ldb) {
    int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    y[0] = y[1] = y[2] = y[3] = 0;
#pragma unroll
    for (int k = 0; k < Inner; k += 8) {
        uint32_t left[4];
        left_tf32(left, a + k, lda);
        pn_mma_tf32(y, left, pn_tf32(b[(k + t) * ldb + g]), pn_tf32(b[(k + t + 4) * ldb + g]));
    }
}
__device__ __forceinline__ void put_accumulator(float *x, int ld, const float y[4], float factor) {
    int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    *(float2 *)&x[g * ld + 2 * t] = make_float2(factor * y[0], factor * y[1]);
    *(float2 *)&x[(g + 8) * ld + 2 * t] = make_float2(factor * y[2], factor * y[3]);
}

/* The 16 x 16 diagonal block at x becomes its inverse: a column per lane, both halves of the warp the same. */
__device__ void invert_diagonal(float *x) {
    int j = (int)threadIdx.x % 16;
    float column[16];
#pragma unroll
    for (int i = 0; i < 16; i++) {
        float sum = i == j ? 1.0f : 0.0f;
#pragma unroll
        for (int m = 0; m < i; m++) sum -= x[i * ROW + m] * column[m];
        column[i] = sum;
    }
    __syncwarp();
    if (threadIdx.x % 32 < 16)
#pragma unroll
        for (int i = 0; i < 16; i++) x[i * ROW + j] = column[i];
}

/* A, strictly lower, becomes the lower triangle of (I + A)^-1, except for its lower left 32 x 32, which goes to out
 * only. strip: this warp's own [32, 8]. */
template <class Packed> __device__ void invert(float *A, float *strip, Packed *out) {
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    invert_diagonal(A + 16 * warp * (ROW + 1));
    __syncthreads();
    { /* blocks of 16: two pairs, two strips of 8 columns each */
        int at = 32 * (warp / 2), strip_at = at + 8 * (warp % 2);
        float y[4];
        product_tf32<16>(y, A + (at + 16) * ROW + at, ROW, A + at * ROW + strip_at, ROW);
        put_accumulator(strip, 8, y, 1);
        __syncwarp();
        product_tf32<16>(y, A + (at + 16) * (ROW + 1), ROW, strip, 8);
        __syncthreads();
        put_accumulator(A + (at + 16) * ROW + strip_at, ROW, y, -1);
    }
    __syncthreads();
    { /* blocks of 32: four strips */
        float y[4];
#pragma unroll
        for (int i = 0; i < 32; i += 16) {
            product_tf32<32>(y, A + (32 + i) * ROW, ROW, A + 8 * warp, ROW);
            put_accumulator(strip + 8 * i, 8, y, 1);
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 2; i++) {
            product_tf32<32>(y, A + (32 + 16 * i) * ROW + 32, ROW, strip, 8);
            put_pair(out->X, 2 + i, warp / 2, warp % 2, -y[0], -y[1]);
            put_pair(out->X, 2 + i, warp / 2, 2 + warp % 2, -y[2], -y[3]);
        }
    }
    /* the other six blocks, without the diagonal's ones: matrix `warp` of each */
    const int row = 8 * (warp / 2) + lane / 4, column = 8 * (warp % 2) + 2 * (lane % 4);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = i & ~1; j <= i; j++) {
            const float *x = A + (16 * i + row) * ROW + 16 * j + column;
            put_pair(out->X, i, j, warp, j == i && row == column ? 0 : x[0], j == i && row == column + 1 ? 0 : x[1]);
        }
}

template <int DK, class Packed>
__global__ void __launch_bounds__(THREADS, DK <= 96 ? 7 : 6) delta_system(const pn_gated_delta_cuda c, Packed *packed) {
    constexpr bool forward = std::is_same_v<Packed, pn_delta_packed>;
    extern __shared__ __align__(1024) unsigned char memory[];
    __shared__ gates x;
    const int64_t chunk = blockIdx.x / c.v_heads;
    const int head = (int)(blockIdx.x % c.v_heads), warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const int g = lane / 4, t = lane % 4;
    const chunk_place place = find_chunk(c, chunk);
    if (place.n == 0) return;

    const int64_t ldk = (int64_t)c.heads * c.dk, at = place.first * ldk + head / (c.v_heads / c.heads) * c.dk;
    const uint32_t K = pn_shared(memory), Q = K + shared<DK>::tile;
    pn_copy_tile<DK, THREADS>(K, (const uint16_t *)c.k + at, ldk, place.n, DK, (int)threadIdx.x);
    pn_copy_tile<DK, THREADS>(Q, (const uint16_t *)c.q + at, ldk, place.n, DK, (int)threadIdx.x);
    pn_copies_commit();
    Packed *out = packed + blockIdx.x;
    if (warp == 0) chunk_gates(c, place.first * c.v_heads + head, place.n, &x, out);
    pn_copies_wait<0>();
    __syncthreads();

    /* rows 16 w .. of the scores, block after block of 16 columns */
    const int left_row = 16 * warp + lane % 8 + lane / 8 % 2 * 8, left_piece = lane / 16;
    const int right_row = lane % 8 + lane / 16 * 8, right_piece = lane / 8 % 2;
    float kk[8][4] = {};
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (j > warp) continue;
        float qk[2][4] = {};
#pragma unroll
        for (int k = 0; k < DK / 16; k++) {
            uint32_t a[4], b[4];
            pn_load4(b, K + pn_tile<DK>::at(16 * j + right_row, 2 * k + right_piece));
            pn_load4(a, K + pn_tile<DK>::at(left_row, 2 * k + left_piece));
            pn_mma_bf16(kk[2 * j], a, b[0], b[1]);
            pn_mma_bf16(kk[2 * j + 1], a, b[2], b[3]);
            pn_load4(a, Q + pn_tile<DK>::at(left_row, 2 * k + left_piece));
            pn_mma_bf16(qk[0], a, b[0], b[1]);
            pn_mma_bf16(qk[1], a, b[2], b[3]);
        }
#pragma unroll
        for (int y = 0; y < 4; y++) { /* matrix y of the block: rows 8 (y / 2) .., columns 8 (y % 2) .. */
            int row = 16 * warp + 8 * (y / 2) + g, column = 16 * j + 8 * (y % 2) + 2 * t;
            float *a = &kk[2 * j + y % 2][2 * (y / 2)], *p = &qk[y % 2][2 * (y / 2)];
            float first = column <= row ? decay(&x, row, column) : 0.0f;
            float second = column < row ? decay(&x, row, column + 1) : 0.0f;
            const float beta0 = x.beta[column], beta1 = x.beta[column + 1];
            const float p0 = c.scale * first * p[0], p1 = c.scale * second * p[1];
            put_pair(out->P, warp, j, y, forward ? beta0 * p0 : p0, forward ? beta1 * p1 : p1);
            a[0] = column < row ? first * a[0] : 0.0f;
            a[1] = column + 1 < row ? second * a[1] : 0.0f;
            if constexpr (!forward) put_pair(out->A, warp, j, y, a[0], a[1]);
            a[0] *= beta0, a[1] *= beta1;
        }
    }
    __syncthreads(); /* A lies where K and Q were */
    float *A = (float *)memory;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (j > (warp | 1)) continue; /* also the zeros right of diagonal blocks 0 and 2, read with their 32 x 32 */
        put_accumulator(A + 16 * warp * ROW + 16 * j, ROW, kk[2 * j], 1);
        put_accumulator(A + 16 * warp * ROW + 16 * j + 8, ROW, kk[2 * j + 1], 1);
    }
    __syncwarp(); /* a warp inverts the block that it wrote */
    invert(A, A + C * ROW + 256 * warp, out);
}

template <class Packed> cudaError_t launch(const pn_gated_delta_cuda *c, Packed *packed, cudaStream_t stream) {
    if (c->chunks == 0) return cudaSuccess;
    return pn_delta_for_width(c->dk, [&](auto width) {
        constexpr int DK = decltype(width)::value, bytes = shared<DK>::bytes;
        cudaError_t status =
            cudaFuncSetAttribute(delta_system<DK, Packed>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        if (status != cudaSuccess) return status;
        delta_system<DK><<<(unsigned)(c->chunks * c->v_heads), THREADS, bytes, stream>>>(*c, packed);
        return cudaGetLastError();
    });
}

} // namespace

cudaError_t pn_delta_system_launch(const pn_gated_delta_cuda *c, cudaStream_t stream) {
    return launch(c, (pn_delta_packed *)c->scratch, stream);
}
cudaError_t pn_delta_grad_system_launch(const pn_gated_delta_cuda *c, const pn_delta_grad_work *w,
                                        cudaStream_t stream) {
    return launch(c, w->packed, stream);
}
