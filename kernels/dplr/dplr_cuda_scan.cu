/* The walk over a document's chunks with one product each, and what their start states add to the outputs
 * (dplr_cuda_chunk.cuh).
 *
 * A block of the scan has 64 columns of one head's state, a warp 16 of them, transposed in its accumulators and as left
 * operands in two halves, rounded and rest, with twice the digits of bf16. While a chunk is multiplied the next one's
 * maps are copied into the other half of a double buffer. */
#include "dplr_cuda_chunk.cuh"

#include "dplr_cuda_tile.cuh"

namespace {

const char name[] = "dplr/cuda-scan";

enum { C = PN_CHUNK, WARPS = 4, THREADS = 32 * WARPS, COLUMNS = 16 * WARPS };

template <int D> struct scanned { /* a chunk's part of the shared memory */
    unsigned char M[D / 16][D / 16][PN_DPLR_BLOCK];
    float4 Y[WARPS][D / 8][32];
    float through[D];
};
template <int D> struct shared {
    static constexpr int stages = 2;
    scanned<D> chunk[stages];
    unsigned char rows[D / 64][pn_tile<COLUMNS>::bytes]; /* the state on its way to memory */
};

__device__ __forceinline__ void copy_bytes(void *to, const void *from, int bytes) {
    for (int i = 16 * (int)threadIdx.x; i < bytes; i += 16 * THREADS)
        pn_copy16(pn_shared(to) + (uint32_t)i, (const char *)from + i, true);
}
/* What a block of columns from 16 `tile` on needs of a chunk. */
template <int D> __device__ __forceinline__ void copy_maps(scanned<D> *to, const pn_dplr_maps<D> *from, int tile) {
    copy_bytes(to->M, from->M, (int)sizeof to->M);
    copy_bytes(to->Y, from->Y[tile], (int)sizeof to->Y);
    copy_bytes(to->through, from->through, (int)sizeof to->through);
}

/* Accumulators [16 columns, D rows] to rows of a bf16 state, the block's 64 columns through shared memory. */
template <int D> __device__ __forceinline__ void put_rows(shared<D> *m, const float S[D / 8][4], pn_bf16 *to) {
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    typedef pn_tile<COLUMNS> tile;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < D / 8; n += 2) {
        uint32_t pairs[4];
        pn_left_operand(pairs, S[n], S[n + 1]);
        pn_store4_transposed(part_of<AS_COLUMNS, tile>(pn_shared(m->rows[n / 8]), 8 * (n % 8), 2 * warp), pairs);
    }
    __syncwarp();
    const int row = lane / 2, piece = 2 * warp + lane % 2; /* the warp's own two pieces */
    for (int r = row; r < D; r += 16)
        *(uint4 *)(to + (int64_t)r * D + 8 * piece) =
            pn_shared_piece(pn_shared(m->rows[r / 64]) + (uint32_t)tile::at(r % 64, piece));
}

/* Backward: the gradient of the state, from the last chunk to the first. */
template <int D, bool Backward> __global__ void __launch_bounds__(THREADS) chunk_scan(pn_dplr_cuda<pn_bf16> c) {
    extern __shared__ __align__(1024) unsigned char memory[];
    shared<D> *m = (shared<D> *)memory;
    constexpr int tiles = D / COLUMNS;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int tile = (int)(blockIdx.x % tiles), head = (int)(blockIdx.x / tiles % c.heads);
    const int doc = (int)(blockIdx.x / tiles / c.heads);
    const int chunks = c.docs.first_chunk[doc + 1] - c.docs.first_chunk[doc];
    const int start = c.docs.first_chunk[doc] + (Backward ? chunks - 1 : 0), step = Backward ? -1 : 1;
    const int column = COLUMNS * tile + 16 * warp + g;
    const int64_t state = ((int64_t)doc * c.heads + head) * D * D + column;
    const pn_dplr_maps<D> *maps = (const pn_dplr_maps<D> *)c.maps + head;

    const float *from = Backward ? c.dS_T : c.S0;
    float S[D / 8][4], *to = Backward ? c.dS0 : c.S_T;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            S[n][i] = from ? from[state + (int64_t)(8 * n + 2 * t + i % 2) * D + 8 * (i / 2)] : 0.0f;
    constexpr int stages = shared<D>::stages;
    auto copy_chunk = [&](int i) { /* the i-th of the walk, or nothing */
                                   if (i < chunks)
                                       copy_maps(&m->chunk[i % stages], maps + (int64_t)(start + step * i) * c.heads,
                                                 WARPS * tile);
                                   pn_copies_commit();
    };
    for (int i = 0; i < stages - 1; i++) copy_chunk(i);
    for (int done = 0; done < chunks; done++) {
        const int chunk = start + step * done;
        pn_copies_wait<stages - 2>();
        __syncthreads(); /* this chunk is there for all, and no one is in the one before */
        copy_chunk(done + stages - 1);
        put_rows<D>(m, S, (Backward ? c.G : c.states) + ((int64_t)chunk * c.heads + head) * D * D + COLUMNS * tile);

        const scanned<D> *x = &m->chunk[done % stages];
        uint32_t left[D / 16][4], rest[D / 16][4];
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            pn_left_operand(left[i], S[2 * i], S[2 * i + 1]);
#pragma unroll
            for (int y = 0; y < 4; y++) {
                const float *z = S[2 * i + y / 2] + 2 * (y % 2);
                rest[i][y] = pn_bf16_pair(z[0] - pn_bf16_first(left[i][y]), z[1] - pn_bf16_second(left[i][y]));
            }
        }
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            const float4 Y = x->Y[warp][n][lane];
            const float2 through = *(const float2 *)&x->through[8 * n + 2 * t];
            S[n][0] = through.x * S[n][0] + Y.x, S[n][1] = through.y * S[n][1] + Y.y;
            S[n][2] = through.x * S[n][2] + Y.z, S[n][3] = through.y * S[n][3] + Y.w;
        }
#pragma unroll
        for (int i = 0; i < D / 16; i++)
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                uint32_t b[4];
                if (Backward) {
                    pn_load4(b, pn_shared(x->M[n][i]) + 16 * (uint32_t)lane);
                } else {
                    uint32_t y[4];
                    pn_load4_transposed(y, pn_shared(x->M[i][n]) + 16 * (uint32_t)lane);
                    b[0] = y[0], b[1] = y[2], b[2] = y[1], b[3] = y[3];
                }
                pn_mma_bf16(S[2 * n], left[i], b[0], b[1]);
                pn_mma_bf16(S[2 * n + 1], left[i], b[2], b[3]);
                pn_mma_bf16(S[2 * n], rest[i], b[0], b[1]);
                pn_mma_bf16(S[2 * n + 1], rest[i], b[2], b[3]);
            }
    }
    if (!to) return;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float *x = to + state + (int64_t)(8 * n + 2 * t + i % 2) * D + 8 * (i / 2);
            *x = Backward ? __fadd_rn(*x, S[n][i]) : S[n][i];
        }
}

/* O += Q' S for one chunk and head per block. */
template <int D> struct applied {
    unsigned char Q[D / 16][C / 16][PN_DPLR_BLOCK];
    unsigned char S[D / 64][pn_tile<D>::bytes]; /* 64 rows each; then the outputs */
};

template <int D> __global__ void __launch_bounds__(THREADS) chunk_apply(pn_dplr_cuda<pn_bf16> c) {
    extern __shared__ __align__(1024) unsigned char memory[];
    applied<D> *m = (applied<D> *)memory;
    typedef pn_tile<D> tile;
    const int chunk = (int)(blockIdx.x / c.heads), head = (int)(blockIdx.x % c.heads), id = (int)threadIdx.x;
    const int warp = id / 32, lane = id % 32;
    const int begin = c.docs.chunk_begin[chunk], last = c.docs.offset[c.docs.chunk_doc[chunk] + 1];
    const int n = last - begin < C ? last - begin : (int)C;
    if (n == 0) return;
    const pn_dplr_maps<D> *maps = (const pn_dplr_maps<D> *)c.maps + blockIdx.x;
    copy_bytes(m->Q, maps->Q, (int)sizeof m->Q);
#pragma unroll
    for (int i = 0; i < D / 64; i++)
        pn_copy_tile<D, THREADS>(pn_shared(m->S[i]),
                                 (const uint16_t *)c.states + (int64_t)blockIdx.x * D * D + 64 * i * D, D, 64, D, id);
    pn_copies_commit();
    float o[D / 64][8][4];
#pragma unroll
    for (int y = 0; y < D / 64; y++)
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const uint2 x = maps->O[warp + WARPS * y][i][lane];
            o[y][i][0] = pn_bf16_first(x.x), o[y][i][1] = pn_bf16_second(x.x);
            o[y][i][2] = pn_bf16_first(x.y), o[y][i][3] = pn_bf16_second(x.y);
        }
    pn_copies_wait<0>();
    __syncthreads();
#pragma unroll
    for (int y = 0; y < D / 64; y++)
#pragma unroll
        for (int k = 0; k < D / 16; k++) { /* key channels */
            uint32_t x[4];
            pn_load4_transposed(x,
                                part_of<AS_ROWS, tile>(pn_shared(m->S[k / 4]), 16 * (k % 4), 2 * (warp + WARPS * y)));
            const uint32_t S[4] = { x[0], x[2], x[1], x[3] };
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t b[4];
                pn_load4_transposed(b, pn_shared(m->Q[k][i]) + 16 * (uint32_t)lane);
                pn_mma_bf16(o[y][2 * i], S, b[0], b[2]);
                pn_mma_bf16(o[y][2 * i + 1], S, b[1], b[3]);
            }
        }
    __syncthreads();
#pragma unroll
    for (int y = 0; y < D / 64; y++)
#pragma unroll
        for (int i = 0; i < 8; i += 2) {
            uint32_t pairs[4];
            pn_left_operand(pairs, o[y][i], o[y][i + 1]);
            pn_store4_transposed(part_of<AS_COLUMNS, tile>(pn_shared(m->S[0]), 8 * i, 2 * (warp + WARPS * y)), pairs);
        }
    __syncthreads();
    pn_bf16 *to = c.o + ((int64_t)begin * c.heads + head) * D;
    for (int i = id; i < n * tile::pieces; i += THREADS) {
        const int row = i / tile::pieces, piece = i % tile::pieces;
        *(uint4 *)(to + (int64_t)row * c.heads * D + 8 * piece) =
            pn_shared_piece(pn_shared(m->S[0]) + (uint32_t)tile::at(row, piece));
    }
}

template <class Kernel> pn_status start(Kernel kernel, int64_t blocks, int bytes, const pn_dplr_cuda<pn_bf16> *c) {
    if (blocks == 0) return PN_OK;
    PN_TRY(pn_dplr_cuda_share(kernel, (size_t)bytes, name));
    kernel<<<(unsigned)blocks, THREADS, bytes, pn_cuda_stream()>>>(*c);
    return pn_cuda_launched(name);
}

} // namespace

pn_status pn_dplr_cuda_scan(const pn_dplr_cuda<pn_bf16> *c, bool backward) {
    return pn_dplr_for_width(c->dk, [=](auto width) {
        constexpr int D = decltype(width)::value;
        const int64_t blocks = c->docs.n * c->heads * (D / COLUMNS);
        return backward ? start(chunk_scan<D, true>, blocks, (int)sizeof(shared<D>), c)
                        : start(chunk_scan<D, false>, blocks, (int)sizeof(shared<D>), c);
    });
}
pn_status pn_dplr_cuda_apply(const pn_dplr_cuda<pn_bf16> *c) {
    return pn_dplr_for_width(c->dk, [=](auto width) {
        constexpr int D = decltype(width)::value;
        return start(chunk_apply<D>, c->docs.chunks * c->heads, (int)sizeof(applied<D>), c);
    });
}
