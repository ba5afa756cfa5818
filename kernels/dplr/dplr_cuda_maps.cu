/* The part of a chunk that does not know the state (dplr_cuda_chunk.cuh), one chunk and head per block of four warps.
 *
 * Scores first: warp w has the rows of tokens 16 w .., and splits the decay of a pair at a token between the two, as
 * dplr_cuda_gradient_tensor.cu does: before its tokens, in their middle, and pairs among eight tokens are summed
 * channel by channel with products of single decays. The systems of 16 tokens are inverted in float; between them is
 * block substitution, a warp for itself with 16 rows of W^T or U^T at a time. */
#include "dplr_cuda_chunk.cuh"

#include "dplr_cuda_tile.cuh"

namespace {

const char name[] = "dplr/cuda-maps";

enum { C = PN_CHUNK, WARPS = 4, THREADS = 32 * WARPS, BLOCKS = 10 };
enum { QK, QB, AK, AB, SCORES };

template <int D> struct shared {
    static constexpr int LD = D + 4;
    unsigned char q[pn_tile<D>::bytes], k[pn_tile<D>::bytes], a[pn_tile<D>::bytes], b[pn_tile<D>::bytes];
    unsigned char v[pn_tile<D>::bytes];
    unsigned char score[SCORES][BLOCKS][PN_DPLR_BLOCK]; /* QK, QB times scale */
    unsigned char inverse[C / 16][PN_DPLR_BLOCK];       /* (I - A B)^-1 - I of 16 tokens each */
    float system[C / 16][16][17];                       /* A B of 16 tokens each, below the diagonal */
    float decay[C][LD];
    float L[C + 1][LD]; /* log2 of the decay of all tokens before */
    float part[THREADS / (D / 4)][D];
};

struct place {
    int64_t key, value;
    int n;
};

template <int D>
__device__ void take_decays(const float *g, int64_t ld, int n, shared<D> *m) { /* g: from the chunk's first token on */
    constexpr int threads = D / 4, groups = THREADS / threads, tokens = C / groups;
    const int group = (int)threadIdx.x / threads, at = (int)threadIdx.x % threads * 4;
    float L[tokens][4], total[4] = {};
#pragma unroll
    for (int r = 0; r < tokens; r++) {
        const int i = tokens * group + r;
        const float4 y = i < n ? *(const float4 *)(g + i * ld + at) : make_float4(0, 0, 0, 0);
        const float x[4] = { y.x, y.y, y.z, y.w };
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const float log2 = x[c] * 1.44269504f;
            m->decay[i][at + c] = power_of_2(log2);
            total[c] += log2;
            L[r][c] = total[c];
        }
    }
    *(float4 *)&m->part[group][at] = make_float4(total[0], total[1], total[2], total[3]);
    __syncthreads();
    float before[4] = {};
    for (int i = 0; i < group; i++)
#pragma unroll
        for (int c = 0; c < 4; c++) before[c] += m->part[i][at + c];
#pragma unroll
    for (int r = 0; r < tokens; r++)
        *(float4 *)&m->L[tokens * group + r + 1][at] =
            make_float4(before[0] + L[r][0], before[1] + L[r][1], before[2] + L[r][2], before[3] + L[r][3]);
    if (group == 0) *(float4 *)&m->L[0][at] = make_float4(0, 0, 0, 0);
}

/* The two channels from `channel` on: the decay from row `earlier` of L to row `later`. */
template <int D>
__device__ __forceinline__ float2 decay_between(const shared<D> *m, int later, int earlier, int channel) {
    const float2 x = *(const float2 *)&m->L[later][channel], y = *(const float2 *)&m->L[earlier][channel];
    return make_float2(power_of_2(x.x - y.x), power_of_2(x.y - y.y));
}

/* Scores of the warp's tokens as left operands against 8 or 16 others; split: the row of L they are divided at. */
template <int D>
__device__ __forceinline__ void take_left(uint32_t x[4], const shared<D> *m, const unsigned char *tile, int k,
                                          int later, int split) { /* later: row of L of the warp's first token */
    const int warp = (int)threadIdx.x / 32, g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    pn_load4(x, part_of<AS_LEFT, pn_tile<D>>(pn_shared(tile), 16 * warp, 2 * k));
#pragma unroll
    for (int i = 0; i < 4; i++) { /* 8 x 8 matrices: token half i % 2, channel half i / 2 */
        const float2 f = decay_between<D>(m, later + 8 * (i % 2) + g, split, 16 * k + 8 * (i / 2) + 2 * t);
        x[i] = scaled_pair(x[i], f.x, f.y);
    }
}
template <int D>
__device__ __forceinline__ void take_right(uint32_t x[4], const shared<D> *m, const unsigned char *tile, int token,
                                           int k, int split) {
    const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    pn_load4(x, part_of<AS_COLUMNS, pn_tile<D>>(pn_shared(tile), token, 2 * k));
#pragma unroll
    for (int i = 0; i < 4; i++) { /* token half i / 2, channel half i % 2 */
        const float2 f = decay_between<D>(m, split, token + 8 * (i / 2) + g + 1, 16 * k + 8 * (i % 2) + 2 * t);
        x[i] = scaled_pair(x[i], f.x, f.y);
    }
}

/* With all tokens before the warp's. */
template <int D> __device__ void far_scores(shared<D> *m, float scale) {
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, first = 16 * warp;
    uint32_t q[D / 16][4], a[D / 16][4];
    if (warp == 0) return;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        take_left<D>(q[k], m, m->q, k, first + 1, first);
        take_left<D>(a[k], m, m->a, k, first, first);
    }
    for (int j = 0; j < warp; j++) {
        float y[SCORES][2][4] = {};
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
            uint32_t x[4];
            take_right<D>(x, m, m->k, 16 * j, k, first);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                pn_mma_bf16(y[QK][i], q[k], x[2 * i], x[2 * i + 1]);
                pn_mma_bf16(y[AK][i], a[k], x[2 * i], x[2 * i + 1]);
            }
            take_right<D>(x, m, m->b, 16 * j, k, first);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                pn_mma_bf16(y[QB][i], q[k], x[2 * i], x[2 * i + 1]);
                pn_mma_bf16(y[AB][i], a[k], x[2 * i], x[2 * i + 1]);
            }
        }
#pragma unroll
        for (int s = 0; s < SCORES; s++)
#pragma unroll
            for (int part = 0; part < 4; part++) {
                const float *x = &y[s][part % 2][2 * (part / 2)], f = s <= QB ? scale : 1.0f;
                *(uint32_t *)&m->score[s][block_of(warp, j)][128 * part + 4 * lane] = pn_bf16_pair(f * x[0], f * x[1]);
            }
    }
}

/* The warp's second eight tokens with its first. */
template <int D> __device__ void middle_scores(shared<D> *m, float scale) {
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int first = 16 * warp, middle = first + 8, block = block_of(warp, warp);
    float y[SCORES][4] = {};
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t q[4], a[4], x[4];
        take_left<D>(q, m, m->q, k, first + 1, middle);
        take_left<D>(a, m, m->a, k, first, middle);
        q[0] = q[2] = a[0] = a[2] = 0; /* the first eight: before the middle */
        take_right<D>(x, m, m->k, first, k, middle);
        pn_mma_bf16(y[QK], q, x[0], x[1]);
        pn_mma_bf16(y[AK], a, x[0], x[1]);
        take_right<D>(x, m, m->b, first, k, middle);
        pn_mma_bf16(y[QB], q, x[0], x[1]);
        pn_mma_bf16(y[AB], a, x[0], x[1]);
    }
#pragma unroll
    for (int s = 0; s < SCORES; s++) {
        const float f = s <= QB ? scale : 1.0f;
        *(uint32_t *)&m->score[s][block][128 * 1 + 4 * lane] = 0;
        *(uint32_t *)&m->score[s][block][128 * 2 + 4 * lane] = pn_bf16_pair(f * y[s][2], f * y[s][3]);
    }
    m->system[warp][8 + g][2 * t] = y[AB][2];
    m->system[warp][8 + g][2 * t + 1] = y[AB][3];
}

__device__ __forceinline__ void unpack(float x[8], uint4 piece) {
    const uint32_t pairs[4] = { piece.x, piece.y, piece.z, piece.w };
#pragma unroll
    for (int i = 0; i < 4; i++) x[2 * i] = pn_bf16_first(pairs[i]), x[2 * i + 1] = pn_bf16_second(pairs[i]);
}

/* Pairs among eight tokens. A lane has column g and every fourth piece of channels, and lets it decay row by row. */
template <int D> __device__ void near_scores(shared<D> *m, float scale) {
    typedef pn_tile<D> tile;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; half++) {
        const int first = 16 * warp + 8 * half;
        float sum[8][SCORES] = {};
#pragma unroll 1
        for (int piece = t; piece < tile::pieces; piece += 4) {
            float k[8], b[8];
            unpack(k, pn_shared_piece(pn_shared(m->k) + (uint32_t)tile::at(first + g, piece)));
            unpack(b, pn_shared_piece(pn_shared(m->b) + (uint32_t)tile::at(first + g, piece)));
#pragma unroll
            for (int i = 0; i < 8; i++) {
                float q[8], a[8], e[8];
                unpack(q, pn_shared_piece(pn_shared(m->q) + (uint32_t)tile::at(first + i, piece)));
                unpack(a, pn_shared_piece(pn_shared(m->a) + (uint32_t)tile::at(first + i, piece)));
                *(float4 *)e = *(const float4 *)&m->decay[first + i][8 * piece];
                *(float4 *)(e + 4) = *(const float4 *)&m->decay[first + i][8 * piece + 4];
#pragma unroll
                for (int c = 0; c < 8; c++) {
                    sum[i][AK] += a[c] * k[c];
                    sum[i][AB] += a[c] * b[c];
                    if (i > g) k[c] *= e[c], b[c] *= e[c];
                    sum[i][QK] += q[c] * k[c];
                    sum[i][QB] += q[c] * b[c];
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
#pragma unroll
            for (int s = 0; s < SCORES; s++) {
                sum[i][s] += __shfl_xor_sync(~0u, sum[i][s], 1);
                sum[i][s] += __shfl_xor_sync(~0u, sum[i][s], 2);
            }
            const float x = t == QK ? sum[i][QK] : t == QB ? sum[i][QB] : t == AK ? sum[i][AK] : sum[i][AB];
            const float y = (t <= QB ? i >= g : i > g) ? (t <= QB ? scale : 1.0f) * x : 0.0f;
            *(pn_bf16 *)&m->score[t][block_of(warp, warp)][128 * 3 * half + 16 * i + 2 * g] = __float2bfloat16_rn(y);
            if (t == AB) m->system[warp][8 * half + i][8 * half + g] = y;
        }
    }
}

/* (I - system)^-1 - I of the warp's tokens; a column per lane, both halves of the warp the same. */
template <int D> __device__ void invert(shared<D> *m) {
    const int warp = (int)threadIdx.x / 32, j = (int)threadIdx.x % 16;
    float column[16];
#pragma unroll
    for (int i = 0; i < 16; i++) {
        float sum = i == j ? 1.0f : 0.0f;
#pragma unroll
        for (int x = 0; x < i; x++) sum += m->system[warp][i][x] * column[x];
        column[i] = sum;
    }
    if (threadIdx.x % 32 < 16)
#pragma unroll
        for (int i = 0; i < 16; i++)
            *(pn_bf16 *)&m->inverse[warp][128 * (i / 8 * 2 + j / 8) + 16 * (i % 8) + 2 * (j % 8)] =
                __float2bfloat16_rn(i == j ? 0.0f : column[i]);
}

/* Keys, or b, become what is left of them at the chunk's end. */
template <int D> __device__ void decay_to_end(shared<D> *m, unsigned char *tile) {
    for (int i = (int)threadIdx.x; i < C * D / 8; i += THREADS) {
        const int token = i / (D / 8), piece = i % (D / 8);
        uint4 *at = (uint4 *)(tile + pn_tile<D>::at(token, piece)), x = *at;
        uint32_t *pairs = &x.x;
#pragma unroll
        for (int y = 0; y < 4; y++) {
            const float2 f = decay_between<D>(m, C, token + 1, 8 * piece + 2 * y);
            pairs[y] = scaled_pair(pairs[y], f.x, f.y);
        }
        *at = x;
    }
}

/* y[16, 64 tokens] += left times the transpose of a lower triangle of blocks: those of tokens i, up to First + i. */
__device__ __forceinline__ void take_packed(uint32_t x[4], const unsigned char *block) {
    pn_load4(x, pn_shared(block) + 16 * (threadIdx.x % 32));
}
__device__ __forceinline__ void add_block(float y[2][4], const uint32_t left[4], const unsigned char *block) {
    uint32_t b[4];
    take_packed(b, block);
    pn_mma_bf16(y[0], left, b[0], b[1]);
    pn_mma_bf16(y[1], left, b[2], b[3]);
}
/* (I - A B)^-1 from the right on y [16, 64 tokens]; left: the result as left operands. */
template <int D> __device__ __forceinline__ void solve(float y[8][4], uint32_t left[4][4], const shared<D> *m) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < i; j++) add_block(y + 2 * i, left[j], m->score[AB][block_of(i, j)]);
        pn_left_operand(left[i], y[2 * i], y[2 * i + 1]);
        add_block(y + 2 * i, left[i], m->inverse[i]);
        pn_left_operand(left[i], y[2 * i], y[2 * i + 1]);
    }
}
/* y[16, D] += left [16, 64 tokens] times a tile of keys. */
template <int D>
__device__ __forceinline__ void add_tile(float y[D / 8][4], const uint32_t left[4][4], const unsigned char *tile) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t b[4];
            pn_load4_transposed(b, part_of<AS_ROWS, pn_tile<D>>(pn_shared(tile), 16 * i, n));
            pn_mma_bf16(y[n], left[i], b[0], b[1]);
            pn_mma_bf16(y[n + 1], left[i], b[2], b[3]);
        }
}
/* Rows `channel` .. of the transpose of a tile, as an accumulator [16, 64 tokens], times factor and the decay from the
 * chunk's start to row `row` + token of L. */
template <int D>
__device__ __forceinline__ void take_turned(float y[8][4], const shared<D> *m, const unsigned char *tile, int channel,
                                            int row, float factor) {
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t x[4];
        pn_load4_transposed(x, part_of<AS_ROWS, pn_tile<D>>(pn_shared(tile), 16 * i, channel / 8));
#pragma unroll
        for (int part = 0; part < 4; part++) { /* token half part % 2, channel half part / 2 */
            const int token = 16 * i + 8 * (part % 2) + 2 * t, at = channel + 8 * (part / 2) + g;
            float *to = &y[2 * i + part % 2][2 * (part / 2)];
            to[0] = pn_bf16_first(x[part]) * factor * power_of_2(m->L[row + token][at]);
            to[1] = pn_bf16_second(x[part]) * factor * power_of_2(m->L[row + token + 1][at]);
        }
    }
}
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
__device__ void state_maps(const shared<D> *m, int channel, float scale, unsigned char (*Q)[PN_DPLR_BLOCK],
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

/* Left operands: 16 columns of values, transposed. */
template <int D> __device__ __forceinline__ void take_values(uint32_t y[4][4], const shared<D> *m, int column) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t x[4];
        pn_load4_transposed(x, part_of<AS_ROWS, pn_tile<D>>(pn_shared(m->v), 16 * i, column / 8));
        y[i][0] = x[0], y[i][1] = x[2], y[i][2] = x[1], y[i][3] = x[3];
    }
}
template <int D> __device__ __forceinline__ void put_lanes(float4 (*to)[32], const float y[D / 8][4]) {
#pragma unroll
    for (int n = 0; n < D / 8; n++) to[n][threadIdx.x % 32] = make_float4(y[n][0], y[n][1], y[n][2], y[n][3]);
}

/* U^T of 16 columns of values, and from it their rows of Y^T and O^T. */
template <int D> __device__ void value_maps(const shared<D> *m, int column, pn_dplr_maps<D> *out) {
    const int lane = (int)threadIdx.x % 32;
    uint32_t V[4][4], U[4][4];
    take_values<D>(V, m, column);
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
template <int D> __device__ void output_maps(const shared<D> *m, int column, pn_dplr_maps<D> *out) {
    uint32_t dO[4][4];
    take_values<D>(dO, m, column);
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
    shared<D> *m = (shared<D> *)memory;
    const int chunk = (int)(blockIdx.x / c.heads), head = (int)(blockIdx.x % c.heads), id = (int)threadIdx.x;
    const int warp = id / 32, begin = c.docs.chunk_begin[chunk], last = c.docs.offset[c.docs.chunk_doc[chunk] + 1];
    const int n = last - begin < C ? last - begin : (int)C;
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
    for (int i = id; i < C / 16 * 16 * 17; i += THREADS) (&m->system[0][0][0])[i] = 0;
    take_decays<D>(c.g + at, ld, n, m);
    pn_copies_wait<0>();
    __syncthreads();
    far_scores<D>(m, c.scale);
    middle_scores<D>(m, c.scale);
    near_scores<D>(m, c.scale);
    __syncwarp();
    invert<D>(m);
    __syncthreads();
    if (!Backward) decay_to_end<D>(m, m->k);
    decay_to_end<D>(m, m->b);
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
    const int bytes = (int)sizeof(shared<D>);
    PN_TRY(pn_cuda_status(
        cudaFuncSetAttribute(chunk_maps<D, Backward>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), name));
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
