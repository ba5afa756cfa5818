/* The part of a chunk that does not know the state (dplr_cuda_chunk.cuh), one chunk and head per block. */
#include "dplr_cuda_scores.cuh"

namespace {

const char name[] = "dplr/cuda-maps";

/* Accumulators [16, 16 n] as a row of packed blocks. */
template <int N> __device__ __forceinline__ void put_packed(unsigned char (*to)[PN_DPLR_BLOCK], const float y[][4]) {
    const int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int part = 0; part < 4; part++) {
            const float *x = &y[2 * n + part % 2][2 * (part / 2)];
            *(uint32_t *)&to[n][128 * part + 4 * lane] = pn_bf16_pair(x[0], x[1]);
        }
}

/* W^T of 16 key channels, and from it their rows of Q'^T and M^T, which go to Q and M_to. */
template <int D>
__device__ void state_maps(const scored<D> *m, int channel, float scale, unsigned char (*Q)[PN_DPLR_BLOCK],
                           unsigned char (*M_to)[PN_DPLR_BLOCK]) {
    uint32_t W[4][4];
    float y[8][4];
    take_turned<D>(y, m, m->a, channel, 0, 1);
    solve<D>(y, W, m);
    take_turned<D>(y, m, m->q, channel, 1, scale);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j <= i; j++) add_block(y + 2 * i, W[j], m->score[QB][block_of(i, j)]);
    put_packed<C / 16>(Q, y);
    float M[D / 8][4] = {};
    add_tile<D>(M, W, m->b);
    put_packed<D / 16>(M_to, M);
}

template <int D> __device__ __forceinline__ void put_lanes(float4 (*to)[32], const float y[D / 8][4]) {
#pragma unroll
    for (int n = 0; n < D / 8; n++) to[n][threadIdx.x % 32] = make_float4(y[n][0], y[n][1], y[n][2], y[n][3]);
}

/* U^T of 16 columns of values, and from it their rows of Y^T and O^T. */
template <int D> __device__ void value_maps(const scored<D> *m, int column, pn_dplr_maps<D> *out) {
    const int lane = (int)threadIdx.x % 32;
    uint32_t V[4][4], U[4][4];
    take_values<D>(V, m->v, column);
    float y[8][4] = {}, o[8][4] = {};
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j <= i; j++) {
            add_block(y + 2 * i, V[j], m->score[AK][block_of(i, j)]);
            add_block(o + 2 * i, V[j], m->score[QK][block_of(i, j)]);
        }
    solve<D>(y, U, m);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j <= i; j++) add_block(o + 2 * i, U[j], m->score[QB][block_of(i, j)]);
#pragma unroll
    for (int n = 0; n < 8; n++)
        out->O[column / 16][n][lane] = make_uint2(pn_bf16_pair(o[n][0], o[n][1]), pn_bf16_pair(o[n][2], o[n][3]));
    float Y[D / 8][4] = {};
    add_tile<D>(Y, V, m->k);
    add_tile<D>(Y, U, m->b);
    put_lanes<D>(out->Y[column / 16], Y);
}

/* Backward: 16 columns of dO^T Q', Q'^T in the place of the keys. */
template <int D> __device__ void output_maps(const scored<D> *m, int column, pn_dplr_maps<D> *out) {
    uint32_t dO[4][4];
    take_values<D>(dO, m->v, column);
    const unsigned char(*Q)[C / 16][PN_DPLR_BLOCK] = (const unsigned char(*)[C / 16][PN_DPLR_BLOCK]) m->k;
    float Y[D / 8][4] = {};
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int n = 0; n < D / 16; n++) add_block(Y + 2 * n, dO[i], Q[n][i]);
    put_lanes<D>(out->Y[column / 16], Y);
}

template <int D, bool Backward>
__global__ void __launch_bounds__(THREADS, D <= 64 ? 2 : 1) chunk_maps(pn_dplr_cuda<pn_bf16> c) {
    extern __shared__ __align__(1024) unsigned char memory[];
    scored<D> *m = (scored<D> *)memory;
    const int chunk = (int)(blockIdx.x / c.heads), head = (int)(blockIdx.x % c.heads), id = (int)threadIdx.x;
    const int warp = id / 32, begin = c.docs.chunk_begin[chunk], last = c.docs.offset[c.docs.chunk_doc[chunk] + 1];
    const int n = last - begin < C ? last - begin : (int)C;
    if (n == 0) return;
    const int64_t ld = (int64_t)c.heads * D, at = begin * ld + head * D;
    auto copy = [&](unsigned char *to, const pn_bf16 *from) {
        pn_copy_tile<D, THREADS>(pn_shared(to), (const uint16_t *)(from ? from : c.q) + at, ld, n, from ? D : 0, id);
    };
    copy(m->q, c.q);
    copy(m->k, c.k);
    copy(m->a, c.a);
    copy(m->b, c.b);
    copy(m->v, Backward ? c.dout : c.v);
    pn_copies_commit();
    make_scores<D>(m, c.g + at, ld, n, c.scale);
    __syncthreads();
    pn_dplr_maps<D> *out = (pn_dplr_maps<D> *)c.maps + blockIdx.x;
    for (int i = id; i < D; i += THREADS) out->through[i] = power_of_2(m->L[C][i]);
    static_assert(sizeof m->k == sizeof out->Q, "Q' in the place of the keys");
    unsigned char(*Q)[C / 16][PN_DPLR_BLOCK] = Backward ? (unsigned char(*)[C / 16][PN_DPLR_BLOCK]) m->k : out->Q;
    for (int i = warp; i < D / 16; i += WARPS) {
        state_maps<D>(m, 16 * i, c.scale, Q[i], out->M[i]);
        if (!Backward) value_maps<D>(m, 16 * i, out);
    }
    if (!Backward) return;
    __syncthreads();
    for (int i = 16 * warp; i < D; i += 16 * WARPS) output_maps<D>(m, i, out);
}

template <int D, bool Backward> pn_status launch(const pn_dplr_cuda<pn_bf16> *c, unsigned blocks) {
    const int bytes = (int)sizeof(scored<D>);
    PN_TRY(pn_dplr_cuda_share(chunk_maps<D, Backward>, (size_t)bytes, name));
    chunk_maps<D, Backward><<<blocks, THREADS, bytes, pn_cuda_stream()>>>(*c);
    return pn_cuda_launched(name);
}

} // namespace

pn_status pn_dplr_cuda_maps(const pn_dplr_cuda<pn_bf16> *c, bool backward) {
    const int64_t blocks = c->docs.chunks * c->heads;
    if (blocks == 0) return PN_OK;
    return pn_dplr_for_width(c->dk, [=](auto width) {
        constexpr int D = decltype(width)::value;
        return backward ? launch<D, true>(c, (unsigned)blocks) : launch<D, false>(c, (unsigned)blocks);
    });
}
