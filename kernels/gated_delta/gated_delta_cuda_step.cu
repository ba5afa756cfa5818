/* The recurrence token by token, at the speed of memory: decoding, and any width.
 *
 * A block keeps 128 columns of one head's state in registers, four per lane and up to `Rows` rows per warp, loaded at
 * once and written once. A token needs two answers of the old state, to its key and to its query, because
 * S_t^T q = e^g S^T q + <k, q> u: one pass, whose sums meet in shared memory, and then the update. */
#include "gated_delta_cuda.h"

#include "cuda/tensor_core.cuh"

namespace {

enum { COLUMNS = 128, MAX_WARPS = 8, MAX_DK = 256, CHUNK = 64 };

struct shared {
    float q[MAX_DK], k[MAX_DK];
    float key[MAX_WARPS][COLUMNS], query[MAX_WARPS][COLUMNS], kq[MAX_WARPS];
};

/* Operands are float or, as their bits, bf16. */
__device__ __forceinline__ float real(float x) {
    return x;
}
__device__ __forceinline__ float real(uint16_t x) {
    return __uint_as_float((uint32_t)x << 16);
}

/* Four neighbouring elements of which the first `n` exist. Whole: all or none, and 16-byte (8-byte) aligned. */
template <bool Whole> __device__ __forceinline__ void get(float x[4], const float *from, int n) {
    if (Whole) {
        float4 y = n > 0 ? __ldcs((const float4 *)from) : make_float4(0, 0, 0, 0);
        x[0] = y.x, x[1] = y.y, x[2] = y.z, x[3] = y.w;
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = i < n ? from[i] : 0.0f;
    }
}
template <bool Whole> __device__ __forceinline__ void put(float *to, const float x[4], int n) {
    if (Whole) {
        if (n > 0) __stcs((float4 *)to, make_float4(x[0], x[1], x[2], x[3]));
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < n) to[i] = x[i];
    }
}
template <bool Whole> __device__ __forceinline__ void put(uint16_t *to, const float x[4], int n) {
    if (Whole) {
        if (n > 0) *(uint2 *)to = make_uint2(pn_bf16_pair(x[0], x[1]), pn_bf16_pair(x[2], x[3]));
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < n) to[i] = (uint16_t)pn_bf16_pair(x[i], 0);
    }
}

template <class T, int Rows, bool Whole>
__global__ void __launch_bounds__(32 * MAX_WARPS) delta_step(const pn_gated_delta_cuda c) {
    __shared__ shared m;
    const int warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32, lane = (int)threadIdx.x % 32;
    const int strips = (c.dv + COLUMNS - 1) / COLUMNS, column = (int)(blockIdx.x % strips) * COLUMNS + 4 * lane;
    const int head = (int)(blockIdx.x / strips % c.v_heads), there = c.dv - column, first_row = Rows * warp;
    const int64_t doc = blockIdx.x / strips / c.v_heads, begin = c.offset[doc], end = c.offset[doc + 1];
    const int64_t state = ((doc * c.v_heads + head) * c.dk + first_row) * c.dv + column;

    float S[Rows][4];
#pragma unroll
    for (int i = 0; i < Rows; i++) get<Whole>(S[i], c.S0 + state + i * c.dv, c.S0 && first_row + i < c.dk ? there : 0);

    for (int64_t token = begin; token < end; token++) {
        const int64_t gate = token * c.v_heads + head, at = gate * c.dv + column;
        const int64_t qk = (token * c.heads + head / (c.v_heads / c.heads)) * c.dk;
        if (c.states && (token - begin) % CHUNK == 0) {
            T *to = (T *)c.states +
                    (((c.chunk[doc] + (token - begin) / CHUNK) * c.v_heads + head) * c.dk + first_row) * c.dv + column;
#pragma unroll
            for (int i = 0; i < Rows; i++) put<Whole>(to + i * c.dv, S[i], first_row + i < c.dk ? there : 0);
        }
        for (int i = (int)threadIdx.x; i < Rows * warps; i += (int)blockDim.x) {
            m.q[i] = i < c.dk ? real(((const T *)c.q)[qk + i]) : 0.0f;
            m.k[i] = i < c.dk ? real(((const T *)c.k)[qk + i]) : 0.0f;
        }
        const float decay = c.g ? expf(c.g[gate]) : 1.0f, beta = c.beta[gate];
        __syncthreads();

        float key[4] = {}, query[4] = {}, kq = 0;
#pragma unroll
        for (int i = 0; i < Rows; i++) {
            float k = m.k[first_row + i], q = m.q[first_row + i];
            kq += k * q;
#pragma unroll
            for (int x = 0; x < 4; x++) {
                key[x] += S[i][x] * k;
                query[x] += S[i][x] * q;
            }
        }
        *(float4 *)&m.key[warp][4 * lane] = make_float4(key[0], key[1], key[2], key[3]);
        *(float4 *)&m.query[warp][4 * lane] = make_float4(query[0], query[1], query[2], query[3]);
        if (lane == 0) m.kq[warp] = kq;
        __syncthreads();
        kq = 0;
#pragma unroll
        for (int x = 0; x < 4; x++) key[x] = query[x] = 0;
        for (int w = 0; w < warps; w++) {
            kq += m.kq[w];
#pragma unroll
            for (int x = 0; x < 4; x++) {
                key[x] += m.key[w][4 * lane + x];
                query[x] += m.query[w][4 * lane + x];
            }
        }
        float e[4], o[4];
#pragma unroll
        for (int x = 0; x < 4; x++) {
            float v = x < there ? real(((const T *)c.v)[at + x]) : 0.0f;
            e[x] = v - decay * key[x];
            key[x] = beta * e[x];
            o[x] = c.scale * (decay * query[x] + kq * key[x]);
        }
        if (warp == 0) {
            put<Whole>((T *)c.o + at, o, there);
            if (c.e) put<Whole>((T *)c.e + at, e, there);
        }
#pragma unroll
        for (int i = 0; i < Rows; i++) {
            float k = m.k[first_row + i];
#pragma unroll
            for (int x = 0; x < 4; x++) S[i][x] = decay * S[i][x] + k * key[x];
        }
        if (token + 1 < end) __syncthreads(); /* all are through with q, k and the sums */
    }
#pragma unroll
    for (int i = 0; i < Rows; i++)
        if (c.S_T) put<Whole>(c.S_T + state + i * c.dv, S[i], first_row + i < c.dk ? there : 0);
}

template <class T, int Rows> cudaError_t launch(const pn_gated_delta_cuda *c, cudaStream_t stream) {
    int64_t blocks = c->docs * c->v_heads * ((c->dv + COLUMNS - 1) / COLUMNS);
    if (blocks == 0) return cudaSuccess;
    unsigned threads = (unsigned)(32 * ((c->dk + Rows - 1) / Rows));
    if (c->dv % 4 == 0)
        delta_step<T, Rows, true><<<(unsigned)blocks, threads, 0, stream>>>(*c);
    else
        delta_step<T, Rows, false><<<(unsigned)blocks, threads, 0, stream>>>(*c);
    return cudaGetLastError();
}
template <class T> cudaError_t launch_rows(const pn_gated_delta_cuda *c, cudaStream_t stream) {
    return c->dk <= 64 ? launch<T, 16>(c, stream) : c->dk <= 96 ? launch<T, 24>(c, stream) : launch<T, 32>(c, stream);
}

} // namespace

cudaError_t pn_gated_delta_cuda_step(const pn_gated_delta_cuda *c, cudaStream_t stream) {
    if (c->dk < 1 || c->dk > MAX_DK || c->dv < 1 || c->heads < 1 || c->v_heads % c->heads != 0)
        return cudaErrorInvalidValue;
    return c->f32 ? launch_rows<float>(c, stream) : launch_rows<uint16_t>(c, stream);
}
