/* dQ, dK and dg of a chunk and head with scalar gates. With A = scale Q K^T E below the diagonal, E_ij = e^{L_i - L_j}:
 *
 *     dQ = scale ((dA E) K + e^L dO S^T)        dK = scale (dA E)^T Q + e^{L_C - L} V G^T
 *
 * and the gate of token i moves what passes from before it to it or later: pairs (dA * A)_mj with j < i <= m, the
 * chunk's start state in queries m >= i, keys j < i in its end state, and e^{L_C} S * G.
 *
 * Neighbouring heads that share queries and keys (all of Mamba-2's do) are taken by one block, a few at a time: their
 * gradients are added up in registers. */
#include "gated_linear_cuda_keys.cuh"

namespace {

enum { C = PN_GLIN_CHUNK, THREADS = PN_GLIN_KEYS_THREADS, WARPS = THREADS / 32, MOST_GROUP = 8 };

struct gate_sums { /* of a head */
    pn_glin_gates gates;
    float moved[C], taken[C], kept[C]; /* by queries, by keys, left at the end */
    float states[WARPS];
};

template <int Width, bool Grouped> struct shared { /* offsets of a block's shared memory */
    static constexpr int stages = 2 * pn_glin_keys_stage<Width>::bytes, tile = pn_tile<Width>::bytes;
    static constexpr int Q = Grouped ? stages : 0, K = Q + tile, buffer = K + tile; /* else where the stages were */
    static constexpr int end = buffer + WARPS * pn_glin_buffer<64>, sums = end > stages ? end : stages;
    static constexpr int bytes = sums + 2 * (int)sizeof(gate_sums);
};

__device__ float quad_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

/* The sums over channels of the accumulators' two rows times those of a tile. */
template <int Width>
__device__ __forceinline__ void row_dots(const float far[Width / 64][8][4], const unsigned char *tile, int row,
                                         float dot[2]) {
    const int t = pn_lane() % 4;
    dot[0] = dot[1] = 0;
#pragma unroll
    for (int d = 0; d < Width / 64; d++)
#pragma unroll
        for (int b = 0; b < 8; b++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const uint32_t x = *(const uint32_t *)(tile + pn_tile<Width>::at(row + 8 * half, 8 * d + b) + 4 * t);
                dot[half] += pn_bf16_first(x) * far[d][b][2 * half] + pn_bf16_second(x) * far[d][b][2 * half + 1];
            }
    dot[0] = quad_sum(dot[0]), dot[1] = quad_sum(dot[1]);
}

/* The sums over the accumulators' two rows of (dA * A) without its diagonal; near = scale dA E, or that transposed. */
template <int Width>
__device__ __forceinline__ void pair_sums(const float near[8][4], uint32_t own, uint32_t other, int warp,
                                          float sum[2]) {
    float y[8][4] = {};
#pragma unroll
    for (int d = 0; d < Width / 64; d++) {
        uint32_t a[4][4];
#pragma unroll
        for (int k = 0; k < 4; k++) pn_glin_left(a[k], own, warp, 4 * d + k);
        pn_glin_begin();
#pragma unroll
        for (int k = 0; k < 4; k++) pn_glin_add<C, false>(y, a[k], other, 4 * d + k);
        pn_glin_end(y, 8);
    }
    const int row = 16 * warp + pn_lane() / 4, column = 2 * (pn_lane() % 4);
    sum[0] = sum[1] = 0;
#pragma unroll
    for (int b = 0; b < 8; b++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            sum[e / 2] += row + e / 2 * 8 == 8 * b + column + e % 2 ? 0.0f : y[b][e] * near[b][e];
    sum[0] = quad_sum(sum[0]), sum[1] = quad_sum(sum[1]);
}

/* By the first warp, lane l for tokens 2 l and 2 l + 1, while others go on: what it reads of m is written again by
 * itself, or after a barrier that it has come to. */
__device__ void put_gates(const pn_glin_tensor &c, const pn_glin_place &p, int tile, float through,
                          const gate_sums *m) {
    const int lane = pn_lane(), i = 2 * lane;
    float moved[2], kept[2] = { m->kept[i], m->kept[i + 1] }, carry = 0;
#pragma unroll
    for (int e = 0; e < 2; e++) {
        moved[e] = m->moved[i + e] - m->taken[i + e];
    }
    for (int w = 0; w < WARPS; w++) carry += m->states[w];
    carry *= through;
    float after = moved[0] + moved[1], before = kept[0] + kept[1];
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
        const float later = __shfl_down_sync(~0u, after, (unsigned)d),
                    earlier = __shfl_up_sync(~0u, before, (unsigned)d);
        if (lane + d < 32) after += later;
        if (lane >= d) before += earlier;
    }
    before -= kept[0] + kept[1];
    after -= moved[0] + moved[1];
    float *to = c.dg + ((p.first + i) * c.s.heads + p.head) * c.dg_tiles + tile;
    if (i < p.n) *to = after + moved[0] + moved[1] + before + carry;
    if (i + 1 < p.n) to[(int64_t)c.s.heads * c.dg_tiles] = after + moved[1] + before + kept[0] + carry;
}

template <int Width>
__device__ __forceinline__ void copy_rows(const pn_glin_tensor &c, const pn_glin_place &p, int first_channel,
                                          unsigned char *Q, unsigned char *K) {
    const pn_glin_sizes &s = c.s;
    const int channels = s.dk - first_channel;
    pn_glin_copy<Width, THREADS>(pn_shared(Q), c.q + s.q_at(p.first, p.head) + first_channel, s.ldq, p.n, channels);
    pn_glin_copy<Width, THREADS>(pn_shared(K), c.k + s.k_at(p.first, p.head) + first_channel, s.ldk, p.n, channels);
}

/* From the products to dQ or dK of one head, which are added to `sum`, and dg. Q and K have come. */
template <int Width>
__device__ __forceinline__ void finish_head(const pn_glin_tensor &c, const pn_glin_place &p, int tile,
                                            const unsigned char *Q, const unsigned char *K, gate_sums *m,
                                            pn_glin_keys_sums<Width> *y, float sum[Width / 64][8][4]) {
    const int id = (int)threadIdx.x, lane = pn_lane(), warp = id / 32 % 4, row = 16 * warp + lane / 4;
    const bool own_keys = id >= THREADS / 2;
    const pn_glin_gates *gates = &m->gates;
    const float scale = c.s.scale;
    float states = 0;
#pragma unroll
    for (int d = 0; d < Width / 64; d++) states += y->states[d];
#pragma unroll
    for (int d = 16; d > 0; d /= 2) states += __shfl_xor_sync(~0u, states, d);
    if (lane == 0) m->states[id / 32] = states;

    const float *by = own_keys ? gates->out : gates->in, all = own_keys ? 1.0f : scale;
#pragma unroll
    for (int d = 0; d < Width / 64; d++) pn_glin_scale_rows(y->far[d], 8, all * by[row], all * by[row + 8]);
    float through_states[2], pairs[2];
    row_dots<Width>(y->far, own_keys ? K : Q, row, through_states);
#pragma unroll
    for (int d = 0; d < Width / 64; d++)
#pragma unroll
        for (int b = 0; b < 8; b++)
#pragma unroll
            for (int e = 0; e < 4; e++) sum[d][b][e] += y->far[d][b][e];
    pn_glin_decay_pairs(y->near, 8, 0, own_keys, gates, scale);
    const uint32_t own = pn_shared(own_keys ? K : Q), other = pn_shared(own_keys ? Q : K);
    pair_sums<Width>(y->near, own, other, warp, pairs);
    if (lane % 4 == 0)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = row + 8 * half;
            if (own_keys)
                m->taken[i] = pairs[half], m->kept[i] = through_states[half];
            else
                m->moved[i] = pairs[half] + through_states[half];
        }
    uint32_t a[4][4];
#pragma unroll
    for (int k = 0; k < 4; k++) pn_left_operand(a[k], y->near[2 * k], y->near[2 * k + 1]);
    pn_glin_begin();
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int d = 0; d < Width / 64; d++)
            pn_glin_add<64, true>(sum[d], a[k], other + (uint32_t)(d * pn_tile<64>::bytes), k);
    pn_glin_end(sum[0], 8);
#pragma unroll
    for (int d = 1; d < Width / 64; d++) pn_glin_keep(sum[d], 8);
    if (!c.dg) return;
    __syncthreads();
    if (id < 32) put_gates(c, p, tile, gates->in[C - 1], m);
}

template <int Width, bool Grouped>
__global__ void __launch_bounds__(THREADS, Width == 64 && !Grouped ? 2 : 1) keys(const pn_glin_tensor c) {
    typedef shared<Width, Grouped> in;
    extern __shared__ __align__(1024) unsigned char memory[];
    const pn_glin_sizes &s = c.s;
    const int tiles = (s.dk + Width - 1) / Width, tile = (int)(blockIdx.x % tiles), first_channel = tile * Width;
    const int heads = Grouped ? c.group : 1;
    pn_glin_place p = pn_glin_place_of(s, blockIdx.x / tiles * heads);
    if (p.n == 0) return;
    const int id = (int)threadIdx.x, warp = id / 32 % 4, group = p.head / heads;
    gate_sums *m =
        (gate_sums *)(memory + in::sums); /* of this head and the next: one warp may still be busy with one */
    auto start = [&](int head, int stage, int slot) {
        const unsigned char *gates = (const unsigned char *)&c.gates[p.chunk * s.heads + head];
        if (id < (int)sizeof(pn_glin_gates) / 16)
            pn_copy16(pn_shared((unsigned char *)&m[slot].gates + 16 * id), gates + 16 * id, true);
        pn_glin_keys_copy<Width>(c, p, head, first_channel, 0, memory + stage % 2 * pn_glin_keys_stage<Width>::bytes);
    };

    pn_glin_keys_sums<Width> y;
    float sum[Width / 64][8][4] = {}; /* over the group */
    int stage = 0;
    if (Grouped) copy_rows<Width>(c, p, first_channel, memory + in::Q, memory + in::K);
    start(p.head, 0, 0);
    pn_copies_commit();
    for (int i = 0; i < heads; i++, p.head++) {
        pn_glin_keys_products<Width>(c, p, first_channel, memory, &stage, &y, [&] {
            if (i + 1 < heads) start(p.head + 1, stage + 1, (i + 1) % 2);
        });
        if (!Grouped) {
            copy_rows<Width>(c, p, first_channel, memory + in::Q, memory + in::K);
            pn_copies_commit();
            pn_glin_wait<0>();
        }
        finish_head<Width>(c, p, tile, memory + in::Q, memory + in::K, m + i % 2, &y, sum);
    }
    const pn_glin_share out = id >= THREADS / 2 ? c.dk : c.dq;
    if (out.to)
#pragma unroll
        for (int d = 0; d < Width / 64; d++) {
            const int channel = first_channel + 64 * d;
            pn_glin_put<64>(memory + in::buffer + id / 32 * pn_glin_buffer<64>, sum[d],
                            out.to + (p.first + 16 * warp) * out.ld + (int64_t)group * s.dk + channel, out.ld,
                            p.n - 16 * warp, s.dk - channel, out.add);
        }
}

template <int Width, bool Grouped> pn_status launch(const pn_glin_tensor &c) {
    const char *name = "gated_linear/cuda-tensor keys";
    typedef shared<Width, Grouped> in;
    int64_t blocks = c.s.docs.chunks * c.s.heads / c.group * ((c.s.dk + Width - 1) / Width);
    if (blocks == 0) return PN_OK;
    PN_TRY((pn_glin_allow<in::bytes>(keys<Width, Grouped>, name)));
    keys<Width, Grouped><<<(unsigned)blocks, THREADS, in::bytes, pn_cuda_stream()>>>(c);
    return pn_cuda_launched(name);
}

} // namespace

void pn_glin_tensor_split(pn_glin_tensor *c) {
    const pn_glin_sizes &s = c->s;
    c->group = 1;
    c->key_channels = 64;
    if (s.vector()) return;
    for (int g = 2; g <= MOST_GROUP; g++)
        if (s.q_share % g == 0 && s.k_share % g == 0) c->group = g;
    if (s.dk > 64) c->key_channels = s.dk <= 128 || s.dk > 192 ? 128 : 192;
    if (c->group > 1 && c->key_channels > 128) c->key_channels = 64; /* two sums of 192 channels do not fit registers */
}

pn_status pn_glin_tensor_keys_scalar(const pn_glin_tensor &c) {
    switch (c.key_channels) {
    case 64: return c.group > 1 ? launch<64, true>(c) : launch<64, false>(c);
    case 128: return c.group > 1 ? launch<128, true>(c) : launch<128, false>(c);
    default: return launch<192, false>(c);
    }
}
