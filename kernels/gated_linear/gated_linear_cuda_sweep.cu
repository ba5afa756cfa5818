/* The walk through a document's chunks: S <- diag(e^{L_C}) S + (e^{L_C - L} K)^T V, and in reverse
 * G <- diag(e^{L_C}) G + (e^L scale Q)^T dO. A block of four warps takes 64 rows and N columns of a head's state; the
 * next chunk or two are on their way while one is multiplied. */
#include "gated_linear_cuda_tensor.cuh"

namespace {

enum { C = PN_GLIN_CHUNK, ROWS = 64, THREADS = 128 };

/* Offsets of a block's shared memory, where Stages chunks are or are on their way. */
template <int N, int Stages> struct shared {
    static constexpr int X = 0, V = pn_tile<ROWS>::bytes, factors = V + pn_tile<N>::bytes;
    static constexpr int stage = factors + 4 * ROWS * (int)sizeof(float), buffer = Stages * stage;
    static constexpr int bytes = buffer + THREADS / 32 * pn_glin_buffer<N>;
    static constexpr int blocks = 3; /* on a multiprocessor: they fit its shared memory */
};

struct piece { /* of a state */
    int doc, head, first_row, first_column;
};

template <int N> __device__ piece piece_of(const pn_glin_sizes &s) {
    const int down = (s.dk + ROWS - 1) / ROWS, across = (s.dv + N - 1) / N;
    int64_t block = blockIdx.x;
    piece p;
    p.first_row = (int)(block % down) * ROWS, block /= down;
    p.first_column = (int)(block % across) * N, block /= across;
    p.head = (int)(block % s.heads), p.doc = (int)(block / s.heads);
    return p;
}

/* f(offset in a state, pair) for every two neighbouring elements that exist. */
template <int N, class F> __device__ void each_pair(const pn_glin_sizes &s, const piece &p, float (*y)[4], F f) {
    const int row = p.first_row + (int)threadIdx.x / 32 * 16 + pn_lane() / 4;
#pragma unroll
    for (int i = 0; i < N / 8; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int r = row + 8 * half, column = p.first_column + 8 * i + 2 * (pn_lane() % 4);
            if (r < s.dk && column < s.dv) f((int64_t)r * s.dv + column, y[i] + 2 * half);
        }
}

template <int N, int Stages, bool Vector, bool Reverse>
__global__ void __launch_bounds__(THREADS, shared<N, Stages>::blocks) sweep(const pn_glin_tensor c) {
    typedef shared<N, Stages> in;
    extern __shared__ __align__(1024) unsigned char memory[];
    const pn_glin_sizes &s = c.s;
    const piece p = piece_of<N>(s);
    const int warp = (int)threadIdx.x / 32, lane = pn_lane();
    const int64_t first_chunk = s.docs.first_chunk[p.doc], chunks = s.docs.first_chunk[p.doc + 1] - first_chunk;
    const int64_t state = s.state_at(p.doc, p.head), begin = s.docs.offset[p.doc], end = s.docs.offset[p.doc + 1];
    const int row = p.first_row + 16 * warp; /* the warp's first */

    auto chunk_at = [&](int64_t i) { return first_chunk + (Reverse ? chunks - 1 - i : i); };
    auto copy = [&](int64_t i) {
        const int64_t chunk = chunk_at(i), block = chunk * s.heads + p.head, first = begin + C * (chunk - first_chunk);
        const int n = end - first < C ? (int)(end - first) : (int)C;
        unsigned char *to = memory + i % Stages * in::stage;
        if (Vector)
            pn_glin_copy<ROWS, THREADS>(pn_shared(to + in::X),
                                        (Reverse ? c.Qpre : c.Ksuf) + block * C * s.dk + p.first_row, s.dk, C,
                                        s.dk - p.first_row);
        else if (Reverse)
            pn_glin_copy<ROWS, THREADS>(pn_shared(to + in::X), c.q + s.q_at(first, p.head) + p.first_row, s.ldq, n,
                                        s.dk - p.first_row);
        else
            pn_glin_copy<ROWS, THREADS>(pn_shared(to + in::X), c.k + s.k_at(first, p.head) + p.first_row, s.ldk, n,
                                        s.dk - p.first_row);
        if (!Reverse)
            pn_glin_copy<N, THREADS>(pn_shared(to + in::V), c.v + s.v_at(first, p.head) + p.first_column, s.ldv, n,
                                     s.dv - p.first_column);
        else
            pn_glin_copy<N, THREADS>(pn_shared(to + in::V),
                                     (c.dO ? c.dO + s.o_at(first, p.head) : c.v) + p.first_column, s.ldo, c.dO ? n : 0,
                                     c.dO ? s.dv - p.first_column : 0);
        const int id = (int)threadIdx.x;
        if (Vector) { /* [4, 64] of the decays of sub-blocks */
            const int channel = p.first_row + id % 16 * 4;
            if (id < 64)
                pn_copy16(pn_shared(to + in::factors + 16 * id),
                          c.block + (block * PN_GLIN_BLOCKS + id / 16) * s.dk + (channel < s.dk ? channel : 0),
                          channel < s.dk);
        } else if (id < 32) { /* in, out */
            pn_copy16(pn_shared(to + in::factors + 16 * id), c.gates[block].in + 4 * id, true);
        }
    };

    float S[N / 8][4] = {};
    const float *start = Reverse ? c.dS_T : c.S0;
    if (start)
        each_pair<N>(s, p, S, [&](int64_t at, float *x) {
            const float2 y = *(const float2 *)(start + state + at);
            x[0] = y.x, x[1] = y.y;
        });
#pragma unroll
    for (int i = 0; i < Stages - 1; i++) {
        if (i < chunks) copy(i);
        pn_copies_commit();
    }
    for (int64_t i = 0; i < chunks; i++) {
        pn_glin_wait<Stages - 2>();
        unsigned char *stage = memory + i % Stages * in::stage,
                      *buffer = memory + in::buffer + warp * pn_glin_buffer<N>;
        const uint32_t X = pn_shared(stage + in::X), V = pn_shared(stage + in::V);
        const float *factors = (const float *)(stage + in::factors);
        uint32_t a[PN_GLIN_BLOCKS][4];
#pragma unroll
        for (int j = 0; j < PN_GLIN_BLOCKS; j++) pn_glin_left_turned(a[j], X, warp, j);
        pn_glin_stage<N>(buffer, S);
        auto meanwhile = [&] { /* what has time while products run */
                               if (i + Stages - 1 < chunks) copy(i + Stages - 1);
                               pn_copies_commit();
                               pn_bf16 *to = (Reverse ? c.G : c.S) + s.state_at(chunk_at(i), p.head) +
                                             (int64_t)row * s.dv + p.first_column;
                               pn_glin_put_staged<N>(buffer, to, s.dv, s.dk - row, s.dv - p.first_column, false);
        };
        if (Vector) {
#pragma unroll
            for (int step = 0; step < PN_GLIN_BLOCKS; step++) {
                const int j = Reverse ? PN_GLIN_BLOCKS - 1 - step : step;
                const float *decay = factors + j * ROWS + 16 * warp + lane / 4;
                pn_glin_scale_rows(S, N / 8, decay[0], decay[8]);
                pn_glin_begin();
                pn_glin_add<N, true>(S, a[j], V, j);
                if (step == 0) meanwhile();
                pn_glin_end(S, N / 8);
            }
        } else {
            const float through = factors[C - 1];
#pragma unroll
            for (int j = 0; j < PN_GLIN_BLOCKS; j++)
                pn_glin_scale_columns(a[j], factors + (Reverse ? 0 : C) + 16 * j, Reverse ? s.scale : 1.0f);
            pn_glin_scale_rows(S, N / 8, through, through);
            pn_glin_begin();
#pragma unroll
            for (int j = 0; j < PN_GLIN_BLOCKS; j++) pn_glin_add<N, true>(S, a[j], V, j);
            meanwhile();
            pn_glin_end(S, N / 8);
        }
    }
    if (!Reverse) {
        each_pair<N>(s, p, S, [&](int64_t at, float *x) { *(float2 *)(c.S_T + state + at) = make_float2(x[0], x[1]); });
    } else if (c.dS0) {
        each_pair<N>(s, p, S, [&](int64_t at, float *x) {
            float2 *y = (float2 *)(c.dS0 + state + at);
            *y = c.dS0_add ? make_float2(__fadd_rn(y->x, x[0]), __fadd_rn(y->y, x[1])) : make_float2(x[0], x[1]);
        });
    }
}

template <int N, int Stages, bool Vector, bool Reverse> pn_status launch(const pn_glin_tensor &c) {
    const pn_glin_sizes &s = c.s;
    const char *name = "gated_linear/cuda-tensor sweep";
    typedef shared<N, Stages> in;
    int64_t blocks = s.docs.n * s.heads * ((s.dk + ROWS - 1) / ROWS) * ((s.dv + N - 1) / N);
    if (blocks == 0) return PN_OK;
    PN_TRY((pn_glin_allow<in::bytes>(sweep<N, Stages, Vector, Reverse>, name)));
    sweep<N, Stages, Vector, Reverse><<<(unsigned)blocks, THREADS, in::bytes, pn_cuda_stream()>>>(c);
    return pn_cuda_launched(name);
}
template <int N, int Stages> pn_status launch_with(const pn_glin_tensor &c, bool reverse) {
    if (c.s.vector()) return reverse ? launch<N, Stages, true, true>(c) : launch<N, Stages, true, false>(c);
    return reverse ? launch<N, Stages, false, true>(c) : launch<N, Stages, false, false>(c);
}

} // namespace

/* Wide pieces read less, narrow ones are more. All should run at once, as one that waits doubles the time. (The bits
 * are the same.) */
pn_status pn_glin_tensor_sweep(const pn_glin_tensor &c, bool reverse) {
    const int64_t rows = c.s.docs.n * c.s.heads * ((c.s.dk + ROWS - 1) / ROWS), narrow = rows * ((c.s.dv + 63) / 64);
    const bool fits = narrow <= shared<64, 3>::blocks * pn_cuda_multiprocessors();
    return c.s.dv <= 64 || fits ? launch_with<64, 3>(c, reverse) : launch_with<128, 2>(c, reverse);
}
