/* What the chunkwise kernels of dplr have in common: the scores of a chunk's tokens with each other, and the solution
 * of the system that they make. For a block of four warps.
 *
 * Warp w has the rows of tokens 16 w .., and splits the decay of a pair at a token between the two, as
 * dplr_cuda_gradient_tensor.cu does: before its tokens, in their middle, and pairs among eight tokens are summed
 * channel by channel with products of single decays. The systems of 16 tokens are inverted in float; between them is
 * block substitution, a warp for itself with 16 rows of the transposed solution at a time. */
#ifndef PN_KERNELS_DPLR_DPLR_CUDA_SCORES_CUH
#define PN_KERNELS_DPLR_DPLR_CUDA_SCORES_CUH

#include "dplr_cuda_chunk.cuh"
#include "dplr_cuda_tile.cuh"

namespace {

enum { C = PN_CHUNK, WARPS = 4, THREADS = 32 * WARPS, BLOCKS = 10 };
enum { QK, QB, AK, AB, SCORES };

template <int D> struct scored {
    static constexpr int LD = D + 4;
    unsigned char q[pn_tile<D>::bytes], k[pn_tile<D>::bytes], a[pn_tile<D>::bytes], b[pn_tile<D>::bytes];
    unsigned char v[pn_tile<D>::bytes];
    unsigned char score[SCORES][BLOCKS][PN_DPLR_BLOCK]; /* QK, QB times scale */
    unsigned char inverse[C / 16][PN_DPLR_BLOCK];       /* (I - A B)^-1 - I of 16 tokens each */
    float system[C / 16][16][17];                       /* A B of 16 tokens each, below the diagonal */
    alignas(512) float decay[C][LD];
    float L[C + 1][LD]; /* log2 of the decay of all tokens before */
    float part[THREADS / (D / 4)][D];
};

template <int D>
__device__ void take_decays(const float *g, int64_t ld, int n, scored<D> *m) { /* g: from the chunk's first token on */
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
__device__ __forceinline__ float2 decay_between(const scored<D> *m, int later, int earlier, int channel) {
    const float2 x = *(const float2 *)&m->L[later][channel], y = *(const float2 *)&m->L[earlier][channel];
    return make_float2(power_of_2(x.x - y.x), power_of_2(x.y - y.y));
}

/* Scores of the warp's tokens as left operands against 8 or 16 others; split: the row of L they are divided at. */
template <int D>
__device__ __forceinline__ void take_left(uint32_t x[4], const scored<D> *m, const unsigned char *tile, int k,
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
__device__ __forceinline__ void take_right(uint32_t x[4], const scored<D> *m, const unsigned char *tile, int token,
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
template <int D> __device__ void far_scores(scored<D> *m, float scale) {
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
template <int D> __device__ void middle_scores(scored<D> *m, float scale) {
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
template <int D> __device__ void near_scores(scored<D> *m, float scale) {
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
template <int D> __device__ void invert(scored<D> *m) {
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

/* Every token of a tile times the decay from row `earlier` of L to row `later`, of token 0; rows move with the token if
 * they Move. */
template <int D, bool MoveLater, bool MoveEarlier>
__device__ __forceinline__ void decay_tile(scored<D> *m, unsigned char *tile, int later, int earlier) {
    for (int i = (int)threadIdx.x; i < C * D / 8; i += THREADS) {
        const int token = i / (D / 8), piece = i % (D / 8);
        uint4 *at = (uint4 *)(tile + pn_tile<D>::at(token, piece)), x = *at;
        uint32_t *pairs = &x.x;
#pragma unroll
        for (int y = 0; y < 4; y++) {
            const float2 f = decay_between<D>(m, later + (MoveLater ? token : 0), earlier + (MoveEarlier ? token : 0),
                                              8 * piece + 2 * y);
            pairs[y] = scaled_pair(pairs[y], f.x, f.y);
        }
        *at = x;
    }
}

/* Keys, or b, become what is left of them at the chunk's end; a what it asks of the state at its start. */
template <int D> __device__ void decay_to_end(scored<D> *m, unsigned char *tile) {
    decay_tile<D, false, true>(m, tile, C, 1);
}
template <int D> __device__ void decay_from_start(scored<D> *m, unsigned char *tile) {
    decay_tile<D, true, false>(m, tile, 0, 0);
}

/* y[16, 8 and 8 tokens] += left times the transpose of a block. */
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
template <int D> __device__ __forceinline__ void solve(float y[8][4], uint32_t left[4][4], const scored<D> *m) {
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
__device__ __forceinline__ void take_turned(float y[8][4], const scored<D> *m, const unsigned char *tile, int channel,
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

/* Left operands: 16 columns of values, transposed. */
template <int D> __device__ __forceinline__ void take_values(uint32_t y[4][4], const unsigned char *tile, int column) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t x[4];
        pn_load4_transposed(x, part_of<AS_ROWS, pn_tile<D>>(pn_shared(tile), 16 * i, column / 8));
        y[i][0] = x[0], y[i][1] = x[2], y[i][2] = x[1], y[i][3] = x[3];
    }
}

/* Everything from the tiles of q, k, a, b, which are on their way; g: from the chunk's first token on. After the
 * block's next barrier k and b are what is left of them at the chunk's end. */
template <int D> __device__ void make_scores(scored<D> *m, const float *g, int64_t ld, int n, float scale) {
    for (int i = (int)threadIdx.x; i < C * 17; i += THREADS) (&m->system[0][0][0])[i] = 0;
    take_decays<D>(g, ld, n, m);
    pn_copies_wait<0>();
    __syncthreads();
    far_scores<D>(m, scale);
    middle_scores<D>(m, scale);
    near_scores<D>(m, scale);
    __syncwarp();
    invert<D>(m);
    __syncthreads();
    decay_to_end<D>(m, m->k);
    decay_to_end<D>(m, m->b);
}

} // namespace

#endif
