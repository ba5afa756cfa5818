/* dQ, dK and dg of a chunk and head with vector gates, 64 channels of keys per block. Per channel
 *
 *     dQ_i = sum over j <= i of dA_ij k_j e^{L_i - L_j} + e^{L_i} (dO S^T)_i
 *     dK_j = sum over i >= j of dA_ij q_i e^{L_i - L_j} + e^{L_C - L_j} (V G^T)_j
 *
 * with q already scaled. Sums over other sub-blocks are products with Ksuf and Qpre on tensor cores, where the
 * accumulators decay from one sub-block to the next; those within a sub-block run in float, one thread per sub-block
 * and channel. dg_i collects what passes from before token i to it or later: from the end backward what q_m dQ_m brings
 * and k_j dK_j takes, but for pairs of a token with itself, and from the start what keys leave to the end state. */
#include "gated_linear_cuda_keys.cuh"

namespace {

enum { C = PN_GLIN_CHUNK, B = PN_GLIN_BLOCK, BLOCKS = PN_GLIN_BLOCKS, WIDTH = 64, THREADS = PN_GLIN_KEYS_THREADS };
enum { ROW = WIDTH + 8 }; /* floats: eight rows of an accumulator's pairs meet every bank once */

struct slice { /* after the products, where their stages were */
    alignas(1024) unsigned char Qpre[pn_tile<WIDTH>::bytes], Ksuf[pn_tile<WIDTH>::bytes];
    alignas(16) float query[C][ROW]; /* e^{L_i} from the sub-block's start, then dQ but for the own sub-block */
    alignas(16) float key[C][ROW];   /* from i to its end, then dK likewise, of pairs */
    alignas(16) float kept[C][ROW];  /* what the end state gives dK */
    alignas(16) float near[C][B];    /* dA within sub-blocks */
    alignas(16) float block[BLOCKS][WIDTH], moved[BLOCKS][WIDTH], left[BLOCKS][WIDTH];
    float states[WIDTH];
};
enum {
    STAGES_BYTES = 2 * pn_glin_keys_stage<WIDTH>::bytes,
    BYTES = (int)sizeof(slice) > STAGES_BYTES ? (int)sizeof(slice) : STAGES_BYTES
};

/* A thread's sub-block of one channel. */
struct column {
    float q[B], k[B], decay[B];
};

/* All is loaded before anything is stored. */
__device__ __forceinline__ void load_column(const pn_glin_tensor &c, const pn_glin_place &p, int b, int x, int channel,
                                            slice *m, column *y) {
    const pn_glin_sizes &s = c.s;
    float g[B], sum = 0;
    const int x_in = channel < s.dk ? channel : 0; /* loads on no condition: they need not wait for one another */
#pragma unroll
    for (int i = 0; i < B; i++) {
        const bool there = channel < s.dk && B * b + i < p.n;
        const int64_t t = p.first + (there ? B * b + i : 0);
        g[i] = c.g[s.g_at(t, p.head) + x_in];
        y->q[i] = pn_load(c.q + s.q_at(t, p.head) + x_in);
        y->k[i] = pn_load(c.k + s.k_at(t, p.head) + x_in);
        if (!there) g[i] = y->q[i] = y->k[i] = 0;
        y->q[i] *= s.scale;
    }
#pragma unroll
    for (int i = 0; i < B; i++) {
        y->decay[i] = expf(g[i]);
        sum += g[i];
        m->query[B * b + i][x] = expf(sum);
    }
    m->block[b][x] = expf(sum);
    sum = 0;
#pragma unroll
    for (int i = B - 1; i >= 0; i--) {
        m->key[B * b + i][x] = expf(sum);
        sum += g[i];
    }
}

/* Accumulators' columns times by[column]. */
__device__ __forceinline__ void scale_columns(float y[8][4], const float *by) {
#pragma unroll
    for (int b = 0; b < 8; b++) {
        const float2 f = *(const float2 *)(by + 8 * b + 2 * (pn_lane() % 4));
        y[b][0] *= f.x, y[b][1] *= f.y, y[b][2] *= f.x, y[b][3] *= f.y;
    }
}

/* What other sub-blocks give: queries of sub-block `warp` from keys before it, or keys from queries after it. */
__device__ __forceinline__ void from_other_blocks(float y[8][4], const uint32_t near[BLOCKS][4], bool own_keys,
                                                  int warp, const slice *m) {
    const uint32_t other = pn_shared(own_keys ? m->Qpre : m->Ksuf);
#pragma unroll
    for (int step = 0; step < BLOCKS - 1; step++) {
        const int b = own_keys ? BLOCKS - 1 - step : step;
        const bool passed = own_keys ? b > warp : b < warp;
        uint32_t a[4];
#pragma unroll
        for (int i = 0; i < 4; i++) /* b is known but for the side */
            a[i] = !passed ? 0 : own_keys ? near[BLOCKS - 1 - step][i] : near[step][i];
        if (passed) scale_columns(y, m->block[b]);
        pn_glin_begin();
        pn_glin_add<WIDTH, true>(y, a, other, b);
        pn_glin_end(y, 8);
    }
}

/* Joined with what comes through states, to m. */
__device__ __forceinline__ void put_others(const float y[8][4], const float far[8][4], bool own_keys, int warp,
                                           slice *m) {
    const int lane = pn_lane(), row = 16 * warp + lane / 4;
#pragma unroll
    for (int b = 0; b < 8; b++) {
        const int x = 8 * b + 2 * (lane % 4);
        float2 passed = make_float2(1, 1);
#pragma unroll
        for (int o = 0; o < BLOCKS; o++)
            if (own_keys ? o > warp : o < warp) passed.x *= m->block[o][x], passed.y *= m->block[o][x + 1];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = row + 8 * half;
            float2 *at = (float2 *)(own_keys ? &m->key[i][x] : &m->query[i][x]);
            const float2 decay = *at;
            const float2 state = make_float2(passed.x * far[b][2 * half], passed.y * far[b][2 * half + 1]);
            if (own_keys) {
                *(float2 *)&m->kept[i][x] = make_float2(decay.x * state.x, decay.y * state.y);
                *at = make_float2(decay.x * y[b][2 * half], decay.y * y[b][2 * half + 1]);
            } else {
                *at = make_float2(decay.x * (y[b][2 * half] + state.x), decay.y * (y[b][2 * half + 1] + state.y));
            }
        }
    }
}

/* Adds the pairs within the sub-block, but those of a token with itself. */
__device__ __forceinline__ void from_own_block(const column &y, const float (*near)[B], float dq[B], float dk[B]) {
#pragma unroll
    for (int i = 1; i < B; i++) {
        float sum = 0;
#pragma unroll
        for (int j = 0; j < i; j++) sum = sum * y.decay[j] + near[i][j] * y.k[j];
        dq[i] += sum * y.decay[i];
    }
#pragma unroll
    for (int j = 0; j < B - 1; j++) {
        float sum = 0;
#pragma unroll
        for (int i = B - 1; i > j; i--) sum = (sum + near[i][j] * y.q[i]) * y.decay[i];
        dk[j] += sum;
    }
}

/* A tile of dQ or dK to global memory. */
__device__ __forceinline__ void put_tile(const pn_glin_share &out, const pn_glin_place &p, int first_channel, int dk,
                                         const unsigned char *tile) {
    if (!out.to) return;
    pn_bf16 *to = out.to + p.first * out.ld + (int64_t)p.head * dk + first_channel;
    for (int i = (int)threadIdx.x; i < C * WIDTH / 8; i += THREADS) {
        const int row = i / (WIDTH / 8), piece = i % (WIDTH / 8);
        if (row < p.n && first_channel + 8 * piece < dk)
            pn_glin_put_piece(to + row * out.ld + 8 * piece, *(const uint4 *)(tile + pn_tile<WIDTH>::at(row, piece)),
                              out.add);
    }
}

__global__ void __launch_bounds__(THREADS, 2) keys(const pn_glin_tensor c) {
    extern __shared__ __align__(1024) unsigned char memory[];
    slice *m = (slice *)memory;
    const pn_glin_sizes &s = c.s;
    const int tiles = (s.dk + WIDTH - 1) / WIDTH, first_channel = (int)(blockIdx.x % tiles) * WIDTH;
    const int64_t block = blockIdx.x / tiles;
    const pn_glin_place p = pn_glin_place_of(s, block);
    if (p.n == 0) return;
    const int id = (int)threadIdx.x, lane = pn_lane(), warp = id / 32 % 4;
    const bool own_keys = id >= THREADS / 2;

    pn_glin_keys_sums<WIDTH> y;
    int stage = 0;
    pn_glin_keys_copy<WIDTH>(c, p, p.head, first_channel, 0, memory);
    pn_copies_commit();
    pn_glin_keys_products<WIDTH>(c, p, first_channel, memory, &stage, &y, [] {});

    const int64_t at = block * C * s.dk + first_channel;
    pn_glin_copy<WIDTH, THREADS>(pn_shared(m->Qpre), c.Qpre + at, s.dk, C, s.dk - first_channel);
    pn_glin_copy<WIDTH, THREADS>(pn_shared(m->Ksuf), c.Ksuf + at, s.dk, C, s.dk - first_channel);
    pn_copies_commit();
    const int b = id / WIDTH, x = id % WIDTH, channel = first_channel + x;
    column own;
    load_column(c, p, b, x, channel, m, &own);
    float states = y.states[0];
    states += __shfl_xor_sync(~0u, states, 1);
    states += __shfl_xor_sync(~0u, states, 2);
    if (lane % 4 == 0) m->states[id / 4] = states;
    if (!own_keys)
#pragma unroll
        for (int o = 0; o < 8; o++) /* the warp's own sub-block */
            if (o / 2 == warp)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    m->near[16 * warp + lane / 4 + e / 2 * 8][8 * (o % 2) + 2 * (lane % 4) + e % 2] = y.near[o][e];
    uint32_t near[BLOCKS][4];
#pragma unroll
    for (int k = 0; k < BLOCKS; k++) pn_left_operand(near[k], y.near[2 * k], y.near[2 * k + 1]);
    pn_glin_wait<0>();

    float others[8][4] = {};
    from_other_blocks(others, near, own_keys, warp, m);
    put_others(others, y.far[0], own_keys, warp, m);
    __syncthreads();

    float dq[B], dk[B], moved = 0, left = 0;
#pragma unroll
    for (int i = 0; i < B; i++) dq[i] = m->query[B * b + i][x], dk[i] = m->key[B * b + i][x];
    from_own_block(own, m->near + B * b, dq, dk);
#pragma unroll
    for (int i = 0; i < B; i++) {
        const float self = m->near[B * b + i][i], kept = m->kept[B * b + i][x];
        const int at = pn_tile<WIDTH>::at(B * b + i, x / 8) + x % 8 * 2;
        pn_store((pn_bf16 *)(m->Qpre + at), s.scale * (dq[i] + self * own.k[i])); /* whose work is done */
        pn_store((pn_bf16 *)(m->Ksuf + at), dk[i] + kept + self * own.q[i]);
        dq[i] = own.q[i] * dq[i] - own.k[i] * dk[i]; /* what moves at i */
        moved += dq[i];
        dk[i] = own.k[i] * kept; /* what it leaves */
        left += dk[i];
    }
    m->moved[b][x] = moved;
    m->left[b][x] = left;
    __syncthreads();
    put_tile(c.dq, p, first_channel, s.dk, m->Qpre);
    put_tile(c.dk, p, first_channel, s.dk, m->Ksuf);
    if (!c.dg || channel >= s.dk) return;
    float after = 0, before = m->states[x];
#pragma unroll
    for (int o = 0; o < BLOCKS; o++) before *= m->block[o][x];
#pragma unroll
    for (int o = 0; o < BLOCKS; o++)
        if (o > b)
            after += m->moved[o][x];
        else if (o < b)
            before += m->left[o][x];
#pragma unroll
    for (int i = B - 1; i >= 0; i--) dq[i] = after += dq[i];
    const int64_t step = (int64_t)s.heads * s.dk;
    float *to = c.dg + (p.first + B * b) * step + (int64_t)p.head * s.dk + channel;
    float old[B] = {};
    if (c.dg_add)
#pragma unroll
        for (int i = 0; i < B; i++)
            if (B * b + i < p.n) old[i] = to[i * step];
#pragma unroll
    for (int i = 0; i < B; i++) {
        if (B * b + i < p.n) to[i * step] = __fadd_rn(old[i], dq[i] + before);
        before += dk[i];
    }
}

} // namespace

pn_status pn_glin_tensor_keys_vector(const pn_glin_tensor &c) {
    const char *name = "gated_linear/cuda-tensor keys";
    int64_t blocks = c.s.docs.chunks * c.s.heads * ((c.s.dk + WIDTH - 1) / WIDTH);
    if (blocks == 0) return PN_OK;
    PN_TRY((pn_glin_allow<(int)BYTES>(keys, name)));
    keys<<<(unsigned)blocks, THREADS, BYTES, pn_cuda_stream()>>>(c);
    return pn_cuda_launched(name);
}
