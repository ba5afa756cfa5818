/* What a chunk needs of its gates. Scalar: exponentials of sums. Vector: queries and keys decayed within their
 * sub-blocks of 16 tokens, the decay of every sub-block, and scores (blocks.md 1.9):
 *
 *     A_ij = sum_n Qpre_i[n] Ksuf_j[n] (decay of what lies between)    i in a later sub-block than j: tensor cores,
 *                                                                      what lies between multiplied to the queries
 *     A_ij = sum_n q_i[n] k_j[n] e^{g_{j+1} + .. + g_i}                within a sub-block: in float, the query decaying
 *                                                                      on its way back from key to key */
#include "gated_linear_cuda_tensor.cuh"

namespace {

enum { C = PN_GLIN_CHUNK, B = PN_GLIN_BLOCK, BLOCKS = PN_GLIN_BLOCKS };

/* ---- scalar gates: a warp per chunk and head, lane l for tokens 2 l and 2 l + 1 ---- */

enum { GATES_WARPS = 4 };

__global__ void __launch_bounds__(32 * GATES_WARPS) scalar_gates(const pn_glin_tensor c) {
    const pn_glin_sizes &s = c.s;
    const int64_t block = (int64_t)blockIdx.x * GATES_WARPS + threadIdx.x / 32;
    if (block >= s.docs.chunks * s.heads) return;
    const pn_glin_place p = pn_glin_place_of(s, block);
    if (p.n == 0) return;
    const int lane = pn_lane(), i = 2 * lane;
    pn_glin_gates *x = &c.gates[block];
    const double g0 = c.g && i < p.n ? (double)c.g[s.g_at(p.first + i, p.head)] : 0.0;
    const double g1 = c.g && i + 1 < p.n ? (double)c.g[s.g_at(p.first + i + 1, p.head)] : 0.0;
    double sum = g0 + g1;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const double before = __shfl_up_sync(~0u, sum, (unsigned)step);
        if (lane >= step) sum += before;
    }
    const double log2e = 1.4426950408889634, L1 = sum * log2e, L0 = (sum - g1) * log2e;
    const double end = __shfl_sync(~0u, L1, 31);
    auto put = [](float *at, float first, float second) { *(float2 *)at = make_float2(first, second); };
    x->L[i] = make_float2((float)L0, (float)(L0 - (double)(float)L0));
    x->L[i + 1] = make_float2((float)L1, (float)(L1 - (double)(float)L1));
    put(x->in + i, exp2f((float)L0), exp2f((float)L1));
    put(x->out + i, exp2f((float)(end - L0)), exp2f((float)(end - L1)));
}

/* ---- vector gates: 64 channels at a time ---- */

enum { THREADS = 256, WIDTH = 64, ROW = WIDTH + 4, LANE_CHANNELS = 8 };

struct prepare_memory {
    alignas(1024) unsigned char Qpre[pn_tile<WIDTH>::bytes], Ksuf[pn_tile<WIDTH>::bytes];
    alignas(16) float q[C][ROW], k[C][ROW], decay[C][ROW];
    alignas(16) float block[BLOCKS][WIDTH];
    float near[C][B]; /* scores within sub-blocks */
};

__device__ void put_element(unsigned char *tile, int row, int column, pn_bf16 x) {
    *(pn_bf16 *)(tile + pn_tile<WIDTH>::at(row, column / 8) + column % 8 * 2) = x;
}

/* Sub-block b of one channel: decays, and queries and keys decayed, to shared and global memory. All is loaded before
 * anything is stored. */
__device__ void decay_block(const pn_glin_tensor &c, const pn_glin_place &p, int64_t block, int first, int b, int x,
                            prepare_memory *m) {
    const pn_glin_sizes &s = c.s;
    const int channel = first + x;
    const bool in = channel < s.dk;
    float g[B], q[B], k[B], sum = 0;
    const int x_in = channel < s.dk ? channel : 0; /* loads on no condition: they need not wait for one another */
#pragma unroll
    for (int i = 0; i < B; i++) {
        const bool there = channel < s.dk && B * b + i < p.n;
        const int64_t t = p.first + (there ? B * b + i : 0);
        g[i] = c.g[s.g_at(t, p.head) + x_in];
        q[i] = pn_load(c.q + s.q_at(t, p.head) + x_in);
        k[i] = pn_load(c.k + s.k_at(t, p.head) + x_in);
        if (!there) g[i] = q[i] = k[i] = 0;
        q[i] *= s.scale;
    }
    const int64_t at = (block * C + B * b) * s.dk + channel;
#pragma unroll
    for (int i = 0; i < B; i++) {
        sum += g[i];
        const pn_bf16 y = __float2bfloat16_rn(expf(sum) * q[i]);
        m->q[B * b + i][x] = q[i];
        m->decay[B * b + i][x] = expf(g[i]);
        put_element(m->Qpre, B * b + i, x, y);
        if (in) c.Qpre[at + (int64_t)i * s.dk] = y;
    }
    m->block[b][x] = expf(sum);
    if (in) c.block[(block * BLOCKS + b) * s.dk + channel] = expf(sum);
    sum = 0;
#pragma unroll
    for (int i = B - 1; i >= 0; i--) {
        const pn_bf16 y = __float2bfloat16_rn(expf(sum) * k[i]);
        m->k[B * b + i][x] = k[i];
        put_element(m->Ksuf, B * b + i, x, y);
        if (in) c.Ksuf[at + (int64_t)i * s.dk] = y;
        sum += g[i];
    }
}

/* Adds what 64 channels give the scores within sub-blocks: a row for every four lanes, each with its channels' part of
 * all 16 columns. */
__device__ __forceinline__ void near_scores(float part[B], const prepare_memory *m) {
    const int lane = pn_lane(), i = (int)threadIdx.x / 32 * 8 + lane / 4, first = i / B * B;
#pragma unroll
    for (int half = 0; half < WIDTH; half += WIDTH / 2) {
        const int x0 = half + LANE_CHANNELS * (lane % 4);
        float w[LANE_CHANNELS];
#pragma unroll
        for (int x = 0; x < LANE_CHANNELS; x++) w[x] = m->q[i][x0 + x];
#pragma unroll
        for (int j = B - 1; j >= 0; j--) {
            if (first + j > i) continue;
#pragma unroll
            for (int x = 0; x < LANE_CHANNELS; x++) {
                part[j] += w[x] * m->k[first + j][x0 + x];
                w[x] *= m->decay[first + j][x0 + x];
            }
        }
    }
}
__device__ void put_near_scores(const float part[B], prepare_memory *m) {
    const int lane = pn_lane(), i = (int)threadIdx.x / 32 * 8 + lane / 4;
#pragma unroll
    for (int j = 0; j < B; j++) {
        float sum = part[j];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (lane % 4 == j % 4) m->near[i][j] = sum;
    }
}

/* Likewise between sub-blocks: the warp's 16 rows. */
__device__ void far_scores(float y[8][4], int warp, const prepare_memory *m) {
    const uint32_t Q = pn_shared(m->Qpre), K = pn_shared(m->Ksuf);
    const int id = pn_lane();
#pragma unroll
    for (int k = 0; k < WIDTH / 16; k++) {
        uint32_t a[4];
        pn_glin_left(a, Q, warp, k);
#pragma unroll
        for (int b = BLOCKS - 2; b >= 0; b--) {
            if (b >= warp) continue;
            uint32_t keys[4];
            pn_load4(keys, K + (uint32_t)pn_tile<WIDTH>::at(16 * b + id % 8 + id / 16 * 8, 2 * k + id / 8 % 2));
            pn_mma_bf16(y[2 * b], a, keys[0], keys[1]);
            pn_mma_bf16(y[2 * b + 1], a, keys[2], keys[3]);
            pn_glin_scale_columns(a, m->block[b] + 16 * k, 1);
        }
    }
}

__global__ void __launch_bounds__(THREADS, 2) prepare(const pn_glin_tensor c) {
    extern __shared__ __align__(1024) unsigned char memory[];
    prepare_memory *m = (prepare_memory *)memory;
    const pn_glin_sizes &s = c.s;
    const int64_t block = blockIdx.x;
    const pn_glin_place p = pn_glin_place_of(s, block);
    if (p.n == 0) return;
    const int id = (int)threadIdx.x, warp = id / 32;
    float y[8][4] = {}, near[B] = {};
    for (int first = 0; first < s.dk; first += WIDTH) {
        __syncthreads();
        decay_block(c, p, block, first, id / WIDTH, id % WIDTH, m);
        __syncthreads();
        near_scores(near, m);
        if (warp < BLOCKS) far_scores(y, warp, m);
    }
    put_near_scores(near, m);
    __syncthreads();
    uint32_t *A = (uint32_t *)(c.A + block * C * C);
    if (warp < BLOCKS) {
#pragma unroll
        for (int b = 0; b < 8; b++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int row = 16 * warp + 8 * half + pn_lane() / 4, column = 8 * b + 2 * (pn_lane() % 4);
                float first = y[b][2 * half], second = y[b][2 * half + 1];
                if (b / 2 == warp) {
                    first = column <= row ? m->near[row][column % B] : 0.0f;
                    second = column < row ? m->near[row][column % B + 1] : 0.0f;
                }
                A[(row * C + column) / 2] = pn_bf16_pair(first, second); /* zeros right of the warp's sub-block */
            }
    }
}

} // namespace

pn_status pn_glin_tensor_gates(const pn_glin_tensor &c) {
    int64_t blocks = c.s.docs.chunks * c.s.heads;
    if (blocks == 0) return PN_OK;
    scalar_gates<<<pn_cuda_blocks(blocks, GATES_WARPS), 32 * GATES_WARPS, 0, pn_cuda_stream()>>>(c);
    return pn_cuda_launched("gated_linear/cuda-tensor gates");
}

pn_status pn_glin_tensor_prepare(const pn_glin_tensor &c) {
    const char *name = "gated_linear/cuda-tensor prepare";
    int64_t blocks = c.s.docs.chunks * c.s.heads;
    if (blocks == 0) return PN_OK;
    PN_TRY((pn_glin_allow<(int)sizeof(prepare_memory)>(prepare, name)));
    prepare<<<(unsigned)blocks, THREADS, sizeof(prepare_memory), pn_cuda_stream()>>>(c);
    return pn_cuda_launched(name);
}
