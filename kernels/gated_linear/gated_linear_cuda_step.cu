/* The recurrence token by token: decoding at the speed of memory, and forward for any shape and type.
 *
 * A block keeps COLS columns of one head's state in registers, four per lane and 32 rows per warp, loaded at once and
 * written once. Rows do not interact but in the output, so 256 of them are taken through all tokens at a time, and
 * where keys are wider than that, outputs wait in scratch. Tokens come BATCH at a time through shared memory. */
#include "gated_linear_cuda.cuh"

namespace {

enum { BATCH = 4, WARPS = 8, WARP_ROWS = 32, SLICE = WARPS * WARP_ROWS };

const char name[] = "gated_linear/cuda-step";

template <class T> struct operands {
    const T *q, *k, *v;
    const float *g, *S0; /* NULL: no decay; zero */
    T *o, *states;       /* states NULL: not kept */
    float *S_T, *partial;
};

/* Four neighbouring elements of which the first n exist. WHOLE: all or none, and 16-byte aligned. */
template <bool WHOLE> __device__ void get(float x[4], const float *from, int n) {
    if (WHOLE) {
        float4 y = n > 0 ? __ldcs((const float4 *)from) : make_float4(0, 0, 0, 0);
        x[0] = y.x, x[1] = y.y, x[2] = y.z, x[3] = y.w;
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = i < n ? from[i] : 0.0f;
    }
}
template <bool WHOLE> __device__ void put(float *to, const float x[4], int n) {
    if (WHOLE) {
        if (n > 0) __stcs((float4 *)to, make_float4(x[0], x[1], x[2], x[3]));
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < n) to[i] = x[i];
    }
}
template <class T> __device__ void put_state(T *to, const float x[4], int n) {
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (i < n) pn_store(to + i, x[i]);
}

template <int COLS> struct batch_memory {
    alignas(16) float q[BATCH][SLICE], k[BATCH][SLICE], decay[BATCH][SLICE];
    alignas(16) float v[BATCH][COLS], sum[BATCH][WARPS][COLS];
};

template <class T, int COLS, bool WHOLE>
__global__ void __launch_bounds__(32 * WARPS) recurrence(const pn_glin_sizes s, const operands<T> x) {
    /* lanes [groups of rows, quadruples of columns] */
    constexpr int ACROSS = COLS / 4, ROWS = WARP_ROWS * ACROSS / 32;
    __shared__ batch_memory<COLS> m;
    const int id = (int)threadIdx.x, warp = id / 32, warps = (int)blockDim.x / 32, lane = id % 32;
    const int tiles = (s.dv + COLS - 1) / COLS, first_column = (int)(blockIdx.x % tiles) * COLS;
    const int head = (int)(blockIdx.x / tiles % s.heads), in_tile = lane % ACROSS * 4;
    const int column = first_column + in_tile, there = s.dv - column, row = warp * WARP_ROWS + lane / ACROSS * ROWS;
    const int64_t doc = blockIdx.x / tiles / s.heads, begin = s.docs.offset[doc], end = s.docs.offset[doc + 1];

    for (int slice = 0; slice < s.dk; slice += SLICE) {
        const int64_t in_state = (int64_t)(slice + row) * s.dv + column, at = s.state_at(doc, head) + in_state;
        const int rows = s.dk - slice - row; /* that exist, of the thread's ROWS */
        float S[ROWS][4];
#pragma unroll
        for (int i = 0; i < ROWS; i++) get<WHOLE>(S[i], x.S0 + at + (int64_t)i * s.dv, x.S0 && i < rows ? there : 0);

        for (int64_t first = begin; first < end; first += BATCH) {
            const int n = end - first < BATCH ? (int)(end - first) : (int)BATCH;
            for (int i = id; i < BATCH * warps * WARP_ROWS; i += (int)blockDim.x) {
                const int b = i / (warps * WARP_ROWS), r = i % (warps * WARP_ROWS), channel = slice + r;
                const bool in = b < n && channel < s.dk;
                const int64_t t = first + b;
                m.q[b][r] = in ? pn_load(x.q + s.q_at(t, head) + channel) : 0.0f;
                m.k[b][r] = in ? pn_load(x.k + s.k_at(t, head) + channel) : 0.0f;
                m.decay[b][r] = in && x.g ? expf(x.g[s.g_at(t, head) + channel * s.g_step]) : 1.0f;
            }
            for (int i = id; i < BATCH * COLS; i += (int)blockDim.x) {
                const int b = i / COLS, c = first_column + i % COLS;
                m.v[b][i % COLS] = b < n && c < s.dv ? pn_load(x.v + s.v_at(first + b, head) + c) : 0.0f;
            }
            __syncthreads();
            if (x.states && (first - begin) % PN_GLIN_CHUNK == 0) {
                T *to = x.states + s.state_at(s.docs.first_chunk[doc] + (first - begin) / PN_GLIN_CHUNK, head);
#pragma unroll
                for (int i = 0; i < ROWS; i++) put_state(to + in_state + (int64_t)i * s.dv, S[i], i < rows ? there : 0);
            }
#pragma unroll
            for (int b = 0; b < BATCH; b++) {
                if (b >= n) break;
                float v[4], sum[4] = {};
#pragma unroll
                for (int c = 0; c < 4; c++) v[c] = m.v[b][in_tile + c];
#pragma unroll
                for (int i = 0; i < ROWS; i++) {
                    const float q = m.q[b][row + i], k = m.k[b][row + i], decay = m.decay[b][row + i];
#pragma unroll
                    for (int c = 0; c < 4; c++) {
                        S[i][c] = decay * S[i][c] + k * v[c];
                        sum[c] += q * S[i][c];
                    }
                }
#pragma unroll
                for (int d = ACROSS; d < 32; d *= 2)
#pragma unroll
                    for (int c = 0; c < 4; c++) sum[c] += __shfl_xor_sync(~0u, sum[c], d);
                if (lane < ACROSS) *(float4 *)&m.sum[b][warp][in_tile] = make_float4(sum[0], sum[1], sum[2], sum[3]);
            }
            __syncthreads();
            for (int i = id; i < n * COLS; i += (int)blockDim.x) {
                const int b = i / COLS, c = i % COLS;
                if (first_column + c >= s.dv) continue;
                const int64_t to = s.o_at(first + b, head) + first_column + c;
                float sum = slice > 0 ? x.partial[to] : 0.0f;
                for (int w = 0; w < warps; w++) sum += m.sum[b][w][c];
                if (slice + SLICE < s.dk)
                    x.partial[to] = sum;
                else
                    pn_store(x.o + to, s.scale * sum);
            }
        }
#pragma unroll
        for (int i = 0; i < ROWS; i++) put<WHOLE>(x.S_T + at + (int64_t)i * s.dv, S[i], i < rows ? there : 0);
        __syncthreads(); /* the next slice's first batch */
    }
}

template <class T, int COLS> pn_status launch(const pn_glin_sizes &s, const operands<T> &x) {
    int64_t blocks = s.docs.n * s.heads * ((s.dv + COLS - 1) / COLS);
    if (blocks == 0) return PN_OK;
    unsigned warps = (unsigned)(s.dk < SLICE ? (s.dk + WARP_ROWS - 1) / WARP_ROWS : (int)WARPS);
    if (s.dv % 4 == 0)
        recurrence<T, COLS, true><<<(unsigned)blocks, 32 * warps, 0, pn_cuda_stream()>>>(s, x);
    else
        recurrence<T, COLS, false><<<(unsigned)blocks, 32 * warps, 0, pn_cuda_stream()>>>(s, x);
    return pn_cuda_launched(name);
}

template <class T> pn_status forward(const pn_op_call *c) {
    pn_glin_sizes s;
    PN_TRY(pn_glin_sizes_of(c, &s));
    operands<T> x = { pn_values<T>(c->in[0]),
                      pn_values<T>(c->in[1]),
                      pn_values<T>(c->in[2]),
                      pn_f32_or_null(c->in[3]),
                      pn_f32_or_null(c->in[4]),
                      pn_values<T>(c->out[0]),
                      pn_tensor_elems(c->out[2]) > 0 ? pn_values<T>(c->out[2]) : nullptr,
                      pn_f32(c->out[1]),
                      (float *)c->scratch };
    return s.dv > 32 ? launch<T, 64>(s, x) : launch<T, 32>(s, x);
}

} // namespace

size_t pn_glin_cuda_step_scratch(const pn_op_call *c, bool backward) {
    const pn_gated_linear_attr *a = (const pn_gated_linear_attr *)c->attr;
    if (backward || a->dk <= SLICE) return 0;
    return sizeof(float) * (size_t)(c->in[0]->shape[0] * a->heads * a->dv);
}

pn_status pn_glin_cuda_step_forward(const pn_op_call *c) {
    return c->dtype == PN_BF16 ? forward<pn_bf16>(c) : forward<float>(c);
}
