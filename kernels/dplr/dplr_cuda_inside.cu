/* Backward inside a chunk, from its start state S and the gradient G of the state at its end (dplr_cpu_backward.c):
 *
 *     P   = (I - A B)^-1 ((A K) V + (e^F A) S)
 *     dP  = (I - A B)^-T ((Q B)^T dO + (e^{L_C - L} B) G)
 *     dV += (Q K)^T dO + (A K)^T dP + (e^{L_C - L} K) G
 *
 * One chunk and head per block; a warp has 16 columns of all three at a time, transposed. */
#include "dplr_cuda_scores.cuh"

namespace {

const char name[] = "dplr/cuda-inside";

template <int D> struct shared {
    unsigned char dO[pn_tile<D>::bytes];
    scored<D> m;
    static_assert(sizeof(scored<D>::decay) >= D / 64 * pn_tile<D>::bytes, "a state in the place of the decays");
};

/* y[16, 8 and 8 tokens] += left times a block, not turned: its rows are what is summed over. */
__device__ __forceinline__ void add_block_rows(float y[2][4], const uint32_t left[4], const unsigned char *block) {
    uint32_t b[4];
    pn_load4_transposed(b, pn_shared(block) + 16 * (threadIdx.x % 32));
    pn_mma_bf16(y[0], left, b[0], b[2]);
    pn_mma_bf16(y[1], left, b[1], b[3]);
}
/* y[16, 64 tokens] += `columns` .. of a state, transposed, times that of a tile of keys. */
template <int D>
__device__ __forceinline__ void add_state(float y[8][4], const unsigned char *state, int column,
                                          const unsigned char *keys) {
    typedef pn_tile<D> tile;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t x[4];
        pn_load4_transposed(
            x, part_of<AS_ROWS, tile>(pn_shared(state) + (uint32_t)(k / 4 * tile::bytes), 16 * (k % 4), column / 8));
        const uint32_t left[4] = { x[0], x[2], x[1], x[3] };
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t b[4];
            pn_load4(b, part_of<AS_COLUMNS, tile>(pn_shared(keys), 16 * i, 2 * k));
            pn_mma_bf16(y[2 * i], left, b[0], b[1]);
            pn_mma_bf16(y[2 * i + 1], left, b[2], b[3]);
        }
    }
}

__device__ __forceinline__ uint32_t add_pairs(uint32_t x, uint32_t y) {
    return pn_bf16_pair(pn_bf16_first(x) + pn_bf16_first(y), pn_bf16_second(x) + pn_bf16_second(y));
}
/* [16 columns, 64 tokens] through the warp's columns of a tile to n rows of global memory, or added to them. */
template <int D, bool Add>
__device__ __forceinline__ void put_columns(const float y[8][4], unsigned char *through, int column, int n, pn_bf16 *to,
                                            int64_t ld) {
    typedef pn_tile<D> tile;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t pairs[4];
        pn_left_operand(pairs, y[2 * i], y[2 * i + 1]);
        pn_store4_transposed(part_of<AS_COLUMNS, tile>(pn_shared(through), 16 * i, column / 8), pairs);
    }
    __syncwarp();
    const int lane = (int)threadIdx.x % 32, piece = column / 8 + lane % 2;
    for (int row = lane / 2; row < n; row += 16) {
        uint4 x = pn_shared_piece(pn_shared(through) + (uint32_t)tile::at(row, piece));
        uint4 *at = (uint4 *)(to + row * ld + 8 * piece);
        if (Add) {
            const uint4 old = *at;
            x = make_uint4(add_pairs(old.x, x.x), add_pairs(old.y, x.y), add_pairs(old.z, x.z), add_pairs(old.w, x.w));
        }
        *at = x;
    }
}

template <int D> __device__ void make_answers(shared<D> *s, int column, int n, pn_bf16 *p, int64_t ld) {
    const scored<D> *m = &s->m;
    uint32_t V[4][4], P[4][4];
    float y[8][4] = {};
    take_values<D>(V, m->v, column);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j <= i; j++) add_block(y + 2 * i, V[j], m->score[AK][block_of(i, j)]);
    add_state<D>(y, (const unsigned char *)m->decay, column, m->a);
    solve<D>(y, P, m);
    put_columns<D, false>(y, s->m.v, column, n, p, ld);
}

template <int D> __device__ void go_back(shared<D> *s, int column, int n, pn_bf16 *to_dp, pn_bf16 *to_dv, int64_t ld) {
    const scored<D> *m = &s->m;
    const unsigned char *G = (const unsigned char *)m->decay;
    uint32_t dO[4][4], dP[4][4];
    float y[8][4] = {};
    take_values<D>(dO, s->dO, column);
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = j; i < 4; i++) add_block_rows(y + 2 * j, dO[i], m->score[QB][block_of(i, j)]);
    add_state<D>(y, G, column, m->b);
#pragma unroll
    for (int j = 3; j >= 0; j--) {
#pragma unroll
        for (int i = j + 1; i < 4; i++) add_block_rows(y + 2 * j, dP[i], m->score[AB][block_of(i, j)]);
        pn_left_operand(dP[j], y[2 * j], y[2 * j + 1]);
        add_block_rows(y + 2 * j, dP[j], m->inverse[j]);
        pn_left_operand(dP[j], y[2 * j], y[2 * j + 1]);
    }
    put_columns<D, false>(y, s->dO, column, n, to_dp, ld);
    if (!to_dv) return;
#pragma unroll
    for (int i = 0; i < 8; i++) y[i][0] = y[i][1] = y[i][2] = y[i][3] = 0;
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = j; i < 4; i++) {
            add_block_rows(y + 2 * j, dO[i], m->score[QK][block_of(i, j)]);
            add_block_rows(y + 2 * j, dP[i], m->score[AK][block_of(i, j)]);
        }
    add_state<D>(y, G, column, m->k);
    put_columns<D, true>(y, s->dO, column, n, to_dv, ld);
}

template <int D> __global__ void __launch_bounds__(THREADS, D <= 64 ? 2 : 1) chunk_inside(pn_dplr_cuda<pn_bf16> c) {
    extern __shared__ __align__(1024) unsigned char memory[];
    shared<D> *s = (shared<D> *)memory;
    scored<D> *m = &s->m;
    const int chunk = (int)(blockIdx.x / c.heads), head = (int)(blockIdx.x % c.heads), id = (int)threadIdx.x;
    const int warp = id / 32, begin = c.docs.chunk_begin[chunk], last = c.docs.offset[c.docs.chunk_doc[chunk] + 1];
    const int n = last - begin < C ? last - begin : (int)C;
    if (n == 0) return;
    const int64_t ld = (int64_t)c.heads * D, at = begin * ld + head * D;
    auto copy = [&](unsigned char *to, const pn_bf16 *from) {
        pn_copy_tile<D, THREADS>(pn_shared(to), (const uint16_t *)(from ? from : c.q) + at, ld, n, from ? D : 0, id);
    };
    auto copy_state = [&](const pn_bf16 *from) {
#pragma unroll
        for (int i = 0; i < D / 64; i++)
            pn_copy_tile<D, THREADS>(pn_shared(m->decay) + (uint32_t)(i * pn_tile<D>::bytes),
                                     (const uint16_t *)from + (int64_t)blockIdx.x * D * D + 64 * i * D, D, 64, D, id);
        pn_copies_commit();
    };
    copy(m->q, c.q);
    copy(m->k, c.k);
    copy(m->a, c.a);
    copy(m->b, c.b);
    copy(m->v, c.v);
    copy(s->dO, c.dout);
    pn_copies_commit();
    make_scores<D>(m, c.g + at, ld, n, c.scale);
    copy_state(c.states);
    decay_from_start<D>(m, m->a);
    pn_copies_wait<0>();
    __syncthreads();
    for (int i = 16 * warp; i < D; i += 16 * WARPS) make_answers<D>(s, i, n, c.p + at, ld);
    __syncthreads();
    copy_state(c.G);
    pn_copies_wait<0>();
    __syncthreads();
    for (int i = 16 * warp; i < D; i += 16 * WARPS) go_back<D>(s, i, n, c.dp + at, c.d_v ? c.d_v + at : nullptr, ld);
}

template <int D> pn_status launch(const pn_dplr_cuda<pn_bf16> *c, unsigned blocks) {
    const int bytes = (int)sizeof(shared<D>);
    PN_TRY(pn_dplr_cuda_share(chunk_inside<D>, (size_t)bytes, name));
    chunk_inside<D><<<blocks, THREADS, bytes, pn_cuda_stream()>>>(*c);
    return pn_cuda_launched(name);
}

} // namespace

/* Of the chunkwise kernels, this one's blocks need the most shared memory. */
bool pn_dplr_cuda_chunk_takes(int dk, int dv) {
    return dk == dv && ((dk == 64 && sizeof(shared<64>) <= pn_cuda_shared_most()) ||
                        (dk == 128 && sizeof(shared<128>) <= pn_cuda_shared_most()));
}
pn_status pn_dplr_cuda_inside(const pn_dplr_cuda<pn_bf16> *c) {
    const int64_t blocks = c->docs.chunks * c->heads;
    if (blocks == 0) return PN_OK;
    return pn_dplr_for_width(c->dk, [=](auto width) { return launch<decltype(width)::value>(c, (unsigned)blocks); });
}
