/* What a chunk's tokens read, from the state at its start and from each other; and with the roles of queries and keys
 * exchanged, of outputs and values too, the gradient of values:
 *
 *     O  = (e^L scale Q) S + A V                A_ij = scale <q_i, k_j> e^{L_i - L_j}, j <= i
 *     dV = (e^{L_C - L} K) G + A^T dO
 *
 * One block per chunk and head, or for a few neighbouring heads that share queries and keys: their rows and scores go
 * to registers, then states and values come by 64 columns, the next while one is multiplied. */
#include "gated_linear_cuda_tensor.cuh"

namespace {

enum { C = PN_GLIN_CHUNK, THREADS = 128, COLUMNS = 64, BLOCKS = PN_GLIN_BLOCKS };

template <int DK> struct shared { /* offsets of a block's shared memory */
    static constexpr int S = 0, V = DK / 64 * pn_tile<COLUMNS>::bytes, gates = V + pn_tile<COLUMNS>::bytes;
    static constexpr int stage = gates + (int)sizeof(pn_glin_gates);
    static constexpr int X = 0, Y = stage; /* before the first columns come */
    static constexpr int decays = 2 * stage, buffer = decays + BLOCKS * DK * (int)sizeof(float);
    static constexpr int bytes = buffer + THREADS / 32 * pn_glin_buffer<COLUMNS>;
};

/* decays [4, DK] of sub-blocks become those from the chunk's start to each, or from the end of each to the chunk's. */
template <int DK, bool Values> __device__ void far_decays(float *decays) {
    for (int x = (int)threadIdx.x; x < DK; x += THREADS) {
        float passed = 1;
#pragma unroll
        for (int step = 0; step < BLOCKS; step++) {
            const int b = Values ? BLOCKS - 1 - step : step;
            const float own = decays[b * DK + x];
            decays[b * DK + x] = passed;
            passed *= own;
        }
    }
}

/* The warp's rows of A, or of A^T, as left operands, from the products y of queries and keys: scalar gates. */
template <bool Values>
__device__ __forceinline__ void scores(uint32_t A[BLOCKS][4], const float y[8][4], const pn_glin_gates *gates,
                                       float scale) {
#pragma unroll
    for (int k = 0; k < BLOCKS; k++) {
        float x[2][4];
#pragma unroll
        for (int e = 0; e < 4; e++) x[0][e] = y[2 * k][e], x[1][e] = y[2 * k + 1][e];
        pn_glin_decay_pairs(x, 2, 16 * k, Values, gates, scale);
        pn_left_operand(A[k], x[0], x[1]);
    }
}

template <int DK, bool Vector, bool Values> __global__ void __launch_bounds__(THREADS) output(const pn_glin_tensor c) {
    typedef shared<DK> in;
    extern __shared__ __align__(1024) unsigned char memory[];
    const pn_glin_sizes &s = c.s;
    const int heads = Vector ? 1 : c.group, tiles = (s.dv + COLUMNS - 1) / COLUMNS;
    const int64_t block = (int64_t)blockIdx.x * heads; /* the first head's */
    const pn_glin_place p = pn_glin_place_of(s, block);
    if (p.n == 0) return;
    const int warp = (int)threadIdx.x / 32, id = (int)threadIdx.x;
    const uint32_t X = pn_shared(memory + in::X), Y = pn_shared(memory + in::Y);

    if (Vector) {
        pn_glin_copy<DK, THREADS>(X, (Values ? c.Ksuf : c.Qpre) + block * C * s.dk, s.dk, C, s.dk);
        pn_glin_copy<C, THREADS>(Y, c.A + block * C * C, C, C, C);
    } else {
        pn_glin_copy<DK, THREADS>(Values ? Y : X, c.q + s.q_at(p.first, p.head), s.ldq, p.n, s.dk);
        pn_glin_copy<DK, THREADS>(Values ? X : Y, c.k + s.k_at(p.first, p.head), s.ldk, p.n, s.dk);
    }
    pn_copies_commit();
    float *decays = (float *)(memory + in::decays);
    for (int i = id; Vector && i < BLOCKS * DK; i += THREADS)
        decays[i] = i % DK < s.dk ? c.block[(block * BLOCKS + i / DK) * s.dk + i % DK] : 1.0f;
    pn_glin_wait<0>();

    uint32_t rows[DK / 16][4], A[BLOCKS][4];
    float qk[8][4] = {};
#pragma unroll
    for (int k = 0; k < DK / 16; k++) pn_glin_left(rows[k], X, warp, k);
    if (Vector) {
        far_decays<DK, Values>(decays);
#pragma unroll
        for (int k = 0; k < BLOCKS; k++)
            if (Values)
                pn_glin_left_turned(A[k], Y, warp, k);
            else
                pn_glin_left(A[k], Y, warp, k);
        __syncthreads(); /* decays */
#pragma unroll
        for (int k = 0; k < DK / 16; k++) pn_glin_scale_columns(rows[k], decays + warp * DK + 16 * k, 1);
    } else {
        pn_glin_begin();
#pragma unroll
        for (int k = 0; k < DK / 16; k++) pn_glin_add<C, false>(qk, rows[k], Y, k);
        pn_glin_end(qk, 8);
        __syncthreads(); /* all are through with X and Y */
    }

    auto copy = [&](int i) {
        unsigned char *to = memory + i % 2 * in::stage;
        const int head = p.head + i / tiles, column = i % tiles * COLUMNS, columns = s.dv - column;
        const pn_bf16 *states = (Values ? c.G : c.S) + s.state_at(p.chunk, head) + column;
#pragma unroll
        for (int r = 0; r < DK; r += 64)
            pn_glin_copy<COLUMNS, THREADS>(pn_shared(to + in::S + r / 64 * pn_tile<COLUMNS>::bytes),
                                           states + (r < s.dk ? (int64_t)r * s.dv : 0), s.dv, s.dk - r, columns);
        if (!Values)
            pn_glin_copy<COLUMNS, THREADS>(pn_shared(to + in::V), c.v + s.v_at(p.first, head) + column, s.ldv, p.n,
                                           columns);
        else if (c.dO)
            pn_glin_copy<COLUMNS, THREADS>(pn_shared(to + in::V), c.dO + s.o_at(p.first, head) + column, s.ldo, p.n,
                                           columns);
        else
            pn_glin_copy<COLUMNS, THREADS>(pn_shared(to + in::V), c.v, 0, 0, 0);
        if (!Vector && id < (int)sizeof(pn_glin_gates) / 16)
            pn_copy16(pn_shared(to + in::gates + 16 * id), (const unsigned char *)&c.gates[block + i / tiles] + 16 * id,
                      true);
    };
    copy(0);
    pn_copies_commit();
    for (int i = 0; i < heads * tiles; i++) {
        if (i + 1 < heads * tiles) copy(i + 1);
        pn_copies_commit();
        pn_glin_wait<1>();
        const uint32_t stage = pn_shared(memory + i % 2 * in::stage);
        const pn_glin_gates *gates = (const pn_glin_gates *)(memory + i % 2 * in::stage + in::gates);
        if (!Vector && i % tiles == 0) scores<Values>(A, qk, gates, s.scale);
        float y[COLUMNS / 8][4] = {};
        pn_glin_begin();
#pragma unroll
        for (int k = 0; k < DK / 16; k++)
            pn_glin_add<COLUMNS, true>(y, rows[k], stage + (uint32_t)(in::S + k / 4 * pn_tile<COLUMNS>::bytes), k % 4);
        pn_glin_end(y, COLUMNS / 8);
        if (!Vector) {
            const float *by = (Values ? gates->out : gates->in) + 16 * warp + pn_lane() / 4;
            const float all = Values ? 1.0f : s.scale;
            pn_glin_scale_rows(y, COLUMNS / 8, all * by[0], all * by[8]);
        }
        pn_glin_begin();
#pragma unroll
        for (int k = 0; k < BLOCKS; k++) pn_glin_add<COLUMNS, true>(y, A[k], stage + in::V, k);
        pn_glin_end(y, COLUMNS / 8);
        const int64_t ld = Values ? c.dv.ld : s.ldo;
        const int column = i % tiles * COLUMNS;
        pn_bf16 *to =
            (Values ? c.dv.to : c.o) + (p.first + 16 * warp) * ld + (int64_t)(p.head + i / tiles) * s.dv + column;
        pn_glin_put<COLUMNS>(memory + in::buffer + warp * pn_glin_buffer<COLUMNS>, y, to, ld, p.n - 16 * warp,
                             s.dv - column, Values && c.dv.add);
        __syncthreads(); /* all are through with this stage */
    }
}

template <int DK, bool Vector, bool Values> pn_status launch(const pn_glin_tensor &c) {
    const char *name = "gated_linear/cuda-tensor output";
    int64_t blocks = c.s.docs.chunks * c.s.heads / c.group;
    if (blocks == 0) return PN_OK;
    PN_TRY((pn_glin_allow<shared<DK>::bytes>(output<DK, Vector, Values>, name)));
    output<DK, Vector, Values><<<(unsigned)blocks, THREADS, shared<DK>::bytes, pn_cuda_stream()>>>(c);
    return pn_cuda_launched(name);
}
template <int DK> pn_status launch_with(const pn_glin_tensor &c, bool values) {
    if (c.s.vector()) return values ? launch<DK, true, true>(c) : launch<DK, true, false>(c);
    return values ? launch<DK, false, true>(c) : launch<DK, false, false>(c);
}

} // namespace

pn_status pn_glin_tensor_output(const pn_glin_tensor &c, bool values) {
    switch ((c.s.dk + 63) / 64) {
    case 1: return launch_with<64>(c, values);
    case 2: return launch_with<128>(c, values);
    case 3: return launch_with<192>(c, values);
    default: return launch_with<256>(c, values);
    }
}
