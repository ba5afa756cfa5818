/* What dplr_cuda_gradient.cu computes, in BF16 on tensor cores.
 *
 * A pair's decay is split at a token between the two: rows q, a carry the decay since then and columns k, b that until
 * then, and sums over pairs are products. Both are <= 1. Warp w has tokens 16 w ..: with all tokens of the warps before
 * it splits at its first, with all of those after it behind its last, and its own 16 it splits in the middle. What is
 * left, pairs among eight tokens, is summed one by one, with products of single decays.
 *
 * Sums over pairs of rows and of columns are rounded apart, and dg is made of their differences: so pairs that no decay
 * lies between stay out of them here as well.
 *
 * A lane has tokens 16 w + g and 16 w + g + 8 and two channels of every eight, as in an accumulator. */
#include "dplr_cuda.cuh"

#include "dplr_cuda_tile.cuh"

namespace {

const char name[] = "dplr/cuda-gradient-tensor";

enum { C = PN_CHUNK, WARPS = 4, THREADS = 32 * WARPS, CHANNELS = 32, PIECES = CHANNELS / 8, STATE_ROWS = 64, LD = 36 };

/* Scores: rows dO (q) and dP (a), columns V (k) and P (b). */
enum { QK, QB, AK, AB, SCORES };

typedef pn_tile<CHANNELS> key_tile;

/* Two blocks must fit a multiprocessor where DV is 64: one alone waits most of the time. */
template <int DV> struct shared {
    unsigned char dO[pn_tile<DV>::bytes], dP[pn_tile<DV>::bytes], V[pn_tile<DV>::bytes], P[pn_tile<DV>::bytes];
    unsigned char S[pn_tile<DV>::bytes], G[pn_tile<DV>::bytes]; /* 64 rows of the states */
    unsigned char q[key_tile::bytes], k[key_tile::bytes], a[key_tile::bytes], b[key_tile::bytes];
    unsigned char score[SCORES][10][512]; /* bf16, 16 x 16 blocks (i, j), j <= i, each as four 8 x 8 matrices */
    float close[SCORES][C / 8][8][8];     /* the blocks of 8 x 8 on the diagonal */
    float near_k[C + 1], near_b[C + 1];   /* scores AK, AB of a token with the one before, zero in `score` */
    alignas(16) float decay[C][LD];
    float L[C + 1][LD]; /* log2 of the decay of all tokens before */
    float part[2 * WARPS][CHANNELS], SG[CHANNELS];
};

struct place {
    int chunk, head, begin, n;
};

__device__ __forceinline__ uint32_t shared_word(uint32_t at) {
    return __float_as_uint(pn_shared_float(at));
}
/* A score block as a left operand, as it is or turned. */
__device__ __forceinline__ void take_block(uint32_t x[4], const unsigned char *block) {
    const int lane = (int)threadIdx.x % 32, matrix = lane / 8; /* 8 x 8 matrices of an operand: columns first */
    pn_load4(x, pn_shared(block) + (uint32_t)(128 * (matrix % 2 * 2 + matrix / 2) + 16 * (lane % 8)));
}
__device__ __forceinline__ void take_block_turned(uint32_t x[4], const unsigned char *block) {
    pn_load4_transposed(x, pn_shared(block) + 16 * (threadIdx.x % 32));
}

/* Scores of this warp's tokens with all up to them, from rows of `left`: kinds `first` (with V) and `first` + 1 (P). */
template <int DV> __device__ void make_scores(shared<DV> *m, const unsigned char *left, int first, float factor) {
    typedef pn_tile<DV> tile;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    float y[2][8][4] = {};
#pragma unroll
    for (int k = 0; k < DV / 16; k++) {
        uint32_t a[4], b[4];
        pn_load4(a, part_of<AS_LEFT, tile>(pn_shared(left), 16 * warp, 2 * k));
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (j > warp) continue;
            pn_load4(b, part_of<AS_COLUMNS, tile>(pn_shared(m->V), 16 * j, 2 * k));
            pn_mma_bf16(y[0][2 * j], a, b[0], b[1]);
            pn_mma_bf16(y[0][2 * j + 1], a, b[2], b[3]);
            pn_load4(b, part_of<AS_COLUMNS, tile>(pn_shared(m->P), 16 * j, 2 * k));
            pn_mma_bf16(y[1][2 * j], a, b[0], b[1]);
            pn_mma_bf16(y[1][2 * j + 1], a, b[2], b[3]);
        }
    }
#pragma unroll
    for (int kind = 0; kind < 2; kind++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (j > warp) continue;
#pragma unroll
            for (int part = 0; part < 4; part++) { /* 8 x 8 matrices: row half part / 2, column half part % 2 */
                float *x = &y[kind][2 * j + part % 2][2 * (part / 2)];
                x[0] *= factor, x[1] *= factor;
                const int row = 16 * warp + 8 * (part / 2) + g, column = 16 * j + 8 * (part % 2) + 2 * t;
                if (first == AK)
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        if (row == column + i + 1) {
                            (kind ? m->near_b : m->near_k)[row] = x[i];
                            x[i] = 0;
                        }
                if (j == warp && part % 2 == part / 2) {
                    m->close[first + kind][2 * warp + part / 2][g][2 * t] = x[0];
                    m->close[first + kind][2 * warp + part / 2][g][2 * t + 1] = x[1];
                } else {
                    *(uint32_t *)&m->score[first + kind][block_of(warp, j)][128 * part + 4 * lane] =
                        pn_bf16_pair(x[0], x[1]);
                }
            }
        }
}

/* Decays of CHANNELS channels, and what they add up to. */
template <class M> __device__ void take_decays(const pn_dplr_cuda<pn_bf16> &c, const place &p, int channel, M *m) {
    const int group = (int)threadIdx.x / (CHANNELS / 4), at = (int)threadIdx.x % (CHANNELS / 4) * 4;
    float L[4][4], total[4] = {};
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const int i = 4 * group + r;
        float4 g = make_float4(0, 0, 0, 0);
        if (i < p.n) g = *(const float4 *)(c.g + ((int64_t)(p.begin + i) * c.heads + p.head) * c.dk + channel + at);
        const float x[4] = { g.x, g.y, g.z, g.w };
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const float log2 = x[n] * 1.44269504f;
            m->decay[i][at + n] = power_of_2(log2);
            total[n] += log2;
            L[r][n] = total[n];
        }
    }
    *(float4 *)&m->L[4 * group + 4][at] = make_float4(total[0], total[1], total[2], total[3]);
    __syncthreads();
    float before[4] = {};
    for (int i = 0; i < group; i++)
#pragma unroll
        for (int n = 0; n < 4; n++) before[n] += m->L[4 * i + 4][at + n];
    __syncthreads(); /* all have what groups add up to */
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int n = 0; n < 4; n++) m->L[4 * group + r + 1][at + n] = before[n] + L[r][n];
    if (group == 0)
#pragma unroll
        for (int n = 0; n < 4; n++) m->L[0][at + n] = 0;
}

/* SG: the sums of the rows of S * G, rows from `row` on; four threads per row. */
template <int DV> __device__ void multiply_states(shared<DV> *m, int row) {
    const int n = (int)threadIdx.x / 4, quarter = (int)threadIdx.x % 4;
    float sum = 0;
#pragma unroll
    for (int piece = 0; piece < DV / 32; piece++) {
        const int at = pn_tile<DV>::at(row + n, DV / 32 * quarter + piece);
        const uint4 s = pn_shared_piece(pn_shared(m->S) + (uint32_t)at);
        const uint4 g = pn_shared_piece(pn_shared(m->G) + (uint32_t)at);
        const uint32_t left[4] = { s.x, s.y, s.z, s.w }, right[4] = { g.x, g.y, g.z, g.w };
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum += pn_bf16_first(left[i]) * pn_bf16_first(right[i]);
            sum += pn_bf16_second(left[i]) * pn_bf16_second(right[i]);
        }
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (quarter == 0) m->SG[n] = sum;
}

/* y [16, CHANNELS] = the warp's rows of `left` times the transpose of rows `row` .. of `states`. */
template <int DV>
__device__ __forceinline__ void through_state(float y[PIECES][4], const unsigned char *left,
                                              const unsigned char *states, int row) {
    typedef pn_tile<DV> tile;
    const int warp = (int)threadIdx.x / 32;
#pragma unroll
    for (int k = 0; k < DV / 16; k++) {
        uint32_t a[4], b[4];
        pn_load4(a, part_of<AS_LEFT, tile>(pn_shared(left), 16 * warp, 2 * k));
#pragma unroll
        for (int n = 0; n < PIECES; n += 2) {
            pn_load4(b, part_of<AS_COLUMNS, tile>(pn_shared(states), row + 16 * (n / 2), 2 * k));
            pn_mma_bf16(y[n], a, b[0], b[1]);
            pn_mma_bf16(y[n + 1], a, b[2], b[3]);
        }
    }
}

/* Pieces n and n + 1 of 16 tokens of x as right operands, times the decay from each token to `split` or from there:
 * L_split - L_token, or with Since its negative. row: of L for the first token. */
template <bool Since, class M>
__device__ __forceinline__ void take_decayed(uint32_t y[4], const M *m, const unsigned char *x, int token, int n,
                                             int row, int split) {
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    pn_load4_transposed(y, part_of<AS_ROWS, key_tile>(pn_shared(x), token, n));
#pragma unroll
    for (int i = 0; i < 4; i++) { /* 8 x 8 matrices: token half i % 2, piece n + i / 2 */
        const int channel = 8 * (n + i / 2) + g, at = row + 8 * (i % 2) + 2 * t;
        const float L = m->L[split][channel], first = m->L[at][channel], second = m->L[at + 1][channel];
        y[i] =
            scaled_pair(y[i], power_of_2(Since ? first - L : L - first), power_of_2(Since ? second - L : L - second));
    }
}

/* This lane's two channels of piece n. */
__device__ __forceinline__ float2 two(const float *row, int n) {
    return *(const float2 *)(row + 8 * n + 2 * (threadIdx.x % 4));
}
__device__ __forceinline__ float2 two(const unsigned char *tile, int row, int n) {
    const uint32_t x = shared_word(pn_shared(tile) + (uint32_t)key_tile::at(row, n) + 4 * (threadIdx.x % 4));
    return make_float2(pn_bf16_first(x), pn_bf16_second(x));
}
/* The elements of an accumulator's row half, times the decay between two rows of L. */
template <class M> __device__ __forceinline__ void decay_half(float *y, const M *m, int n, int later, int earlier) {
    const float2 a = two(m->L[later], n), b = two(m->L[earlier], n);
    y[0] *= power_of_2(a.x - b.x);
    y[1] *= power_of_2(a.y - b.y);
}

__device__ __forceinline__ void add_pair(pn_bf16 *to, int64_t at, const float *x) {
    uint32_t *word = (uint32_t *)(to + at);
    const uint32_t old = *word;
    *word = pn_bf16_pair(__fadd_rn(pn_bf16_first(old), x[0]), __fadd_rn(pn_bf16_second(old), x[1]));
}

/* dq and da of the warp's tokens. moved, moved_a: what the decays of all tokens up to this one, or before it, get. */
template <int DV>
__device__ void rows_gradient(const pn_dplr_cuda<pn_bf16> &c, const place &p, int channel, shared<DV> *m,
                              float moved[PIECES][4], float moved_a[PIECES][4]) {
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int first = 16 * warp, middle = first + 8;
    float q[PIECES][4] = {}, a[PIECES][4] = {};
    through_state<DV>(q, m->dO, m->S, channel % STATE_ROWS);
    through_state<DV>(a, m->dP, m->S, channel % STATE_ROWS);
#pragma unroll
    for (int n = 0; n < PIECES; n++) {
        const float2 L = two(m->L[first], n);
        const float x = power_of_2(L.x), y = power_of_2(L.y);
        q[n][0] *= c.scale * x, q[n][1] *= c.scale * y, q[n][2] *= c.scale * x, q[n][3] *= c.scale * y;
        a[n][0] *= x, a[n][1] *= y, a[n][2] *= x, a[n][3] *= y;
    }
    for (int j = 0; j < warp; j++) {
        uint32_t score[SCORES][4];
#pragma unroll
        for (int s = 0; s < SCORES; s++) take_block(score[s], m->score[s][block_of(warp, j)]);
#pragma unroll
        for (int n = 0; n < PIECES; n += 2) {
            uint32_t k[4], b[4];
            take_decayed<false>(k, m, m->k, 16 * j, n, 16 * j + 1, first);
            take_decayed<false>(b, m, m->b, 16 * j, n, 16 * j + 1, first);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                pn_mma_bf16(q[n + i], score[QK], k[2 * i], k[2 * i + 1]);
                pn_mma_bf16(q[n + i], score[QB], b[2 * i], b[2 * i + 1]);
                pn_mma_bf16(a[n + i], score[AK], k[2 * i], k[2 * i + 1]);
                pn_mma_bf16(a[n + i], score[AB], b[2 * i], b[2 * i + 1]);
            }
        }
    }
    { /* the second eight tokens with the first */
        uint32_t score[SCORES][4];
#pragma unroll
        for (int s = 0; s < SCORES; s++) {
            take_block(score[s], m->score[s][block_of(warp, warp)]);
            score[s][0] = score[s][2] = score[s][3] = 0;
        }
#pragma unroll
        for (int n = 0; n < PIECES; n += 2) {
            uint32_t k[4], b[4];
            take_decayed<false>(k, m, m->k, first, n, first + 1, middle);
            take_decayed<false>(b, m, m->b, first, n, first + 1, middle);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                decay_half(q[n + i] + 2, m, n + i, middle, first);
                decay_half(a[n + i] + 2, m, n + i, middle, first);
                pn_mma_bf16(q[n + i], score[QK], k[2 * i], 0);
                pn_mma_bf16(q[n + i], score[QB], b[2 * i], 0);
                pn_mma_bf16(a[n + i], score[AK], k[2 * i], 0);
                pn_mma_bf16(a[n + i], score[AB], b[2 * i], 0);
            }
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int block = first + 8 * half, token = block + g;
        const float(*close)[C / 8][8][8] = m->close;
        float to[PIECES][2], to_before[PIECES][2]; /* decays since token j up to this one, and to that before */
#pragma unroll
        for (int n = 0; n < PIECES; n++) {
            decay_half(q[n] + 2 * half, m, n, token + 1, block);
            decay_half(a[n] + 2 * half, m, n, token, block);
            to[n][0] = to[n][1] = to_before[n][0] = to_before[n][1] = 1;
        }
        for (int j = 6; j >= 0; j--) {
            const bool later = g > j, later_a = g > j + 1;
            const float qk = later ? close[QK][2 * warp + half][g][j] : 0.0f;
            const float qb = later ? close[QB][2 * warp + half][g][j] : 0.0f;
            const float ak = later_a ? close[AK][2 * warp + half][g][j] : 0.0f;
            const float ab = later_a ? close[AB][2 * warp + half][g][j] : 0.0f;
#pragma unroll
            for (int n = 0; n < PIECES; n++) {
                const float2 e = two(m->decay[block + j + 1], n);
                const float2 k = two(m->k, block + j, n), b = two(m->b, block + j, n);
                if (later) to[n][0] *= e.x, to[n][1] *= e.y;
                if (later_a) to_before[n][0] *= e.x, to_before[n][1] *= e.y;
                q[n][2 * half] += to[n][0] * (qk * k.x + qb * b.x);
                q[n][2 * half + 1] += to[n][1] * (qk * k.y + qb * b.y);
                a[n][2 * half] += to_before[n][0] * (ak * k.x + ab * b.x);
                a[n][2 * half + 1] += to_before[n][1] * (ak * k.y + ab * b.y);
            }
        }
        const float qk = close[QK][2 * warp + half][g][g], qb = close[QB][2 * warp + half][g][g];
        const float ak = m->near_k[token], ab = m->near_b[token];
        const int before = token > 0 ? token - 1 : 0; /* of the first, the scores are 0 */
        const int64_t to_row = ((int64_t)(p.begin + token) * c.heads + p.head) * c.dk + channel + 2 * t;
#pragma unroll
        for (int n = 0; n < PIECES; n++) {
            float *dq = q[n] + 2 * half, *da = a[n] + 2 * half;
            const float2 own_q = two(m->q, token, n), own_a = two(m->a, token, n);
            const float2 k = two(m->k, token, n), b = two(m->b, token, n);
            const float2 k_before = two(m->k, before, n), b_before = two(m->b, before, n);
            moved[n][2 * half] = own_q.x * dq[0], moved[n][2 * half + 1] = own_q.y * dq[1];
            moved_a[n][2 * half] = own_a.x * da[0], moved_a[n][2 * half + 1] = own_a.y * da[1];
            dq[0] += qk * k.x + qb * b.x, dq[1] += qk * k.y + qb * b.y;
            da[0] += ak * k_before.x + ab * b_before.x, da[1] += ak * k_before.y + ab * b_before.y;
            if (token < p.n) {
                if (c.dq) add_pair(c.dq, to_row + 8 * n, dq);
                if (c.da) add_pair(c.da, to_row + 8 * n, da);
            }
        }
    }
}

/* dk and db of the warp's tokens. moved loses what they pass on; left: what the decays of all tokens after get. */
template <int DV>
__device__ void columns_gradient(const pn_dplr_cuda<pn_bf16> &c, const place &p, int channel, shared<DV> *m,
                                 float moved[PIECES][4], float left[PIECES][4]) {
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int first = 16 * warp, middle = first + 8, end = first + 16;
    float k[PIECES][4] = {}, b[PIECES][4] = {};
    for (int i = warp + 1; i < WARPS; i++) {
        uint32_t score[SCORES][4];
#pragma unroll
        for (int s = 0; s < SCORES; s++) take_block_turned(score[s], m->score[s][block_of(i, warp)]);
#pragma unroll
        for (int n = 0; n < PIECES; n += 2) {
            uint32_t q[4], a[4];
            take_decayed<true>(q, m, m->q, 16 * i, n, 16 * i + 1, end);
            take_decayed<true>(a, m, m->a, 16 * i, n, 16 * i, end);
#pragma unroll
            for (int y = 0; y < 2; y++) {
                pn_mma_bf16(k[n + y], score[QK], q[2 * y], q[2 * y + 1]);
                pn_mma_bf16(k[n + y], score[AK], a[2 * y], a[2 * y + 1]);
                pn_mma_bf16(b[n + y], score[QB], q[2 * y], q[2 * y + 1]);
                pn_mma_bf16(b[n + y], score[AB], a[2 * y], a[2 * y + 1]);
            }
        }
    }
    { /* the first eight tokens with the second */
        uint32_t score[SCORES][4];
#pragma unroll
        for (int s = 0; s < SCORES; s++) {
            take_block_turned(score[s], m->score[s][block_of(warp, warp)]);
            score[s][0] = score[s][1] = score[s][3] = 0;
        }
#pragma unroll
        for (int n = 0; n < PIECES; n += 2) {
            uint32_t q[4], a[4];
            take_decayed<true>(q, m, m->q, first, n, first + 1, middle);
            take_decayed<true>(a, m, m->a, first, n, first, middle);
#pragma unroll
            for (int y = 0; y < 2; y++) {
                decay_half(k[n + y], m, n + y, end, middle);
                decay_half(b[n + y], m, n + y, end, middle);
                pn_mma_bf16(k[n + y], score[QK], 0, q[2 * y + 1]);
                pn_mma_bf16(k[n + y], score[AK], 0, a[2 * y + 1]);
                pn_mma_bf16(b[n + y], score[QB], 0, q[2 * y + 1]);
                pn_mma_bf16(b[n + y], score[AB], 0, a[2 * y + 1]);
            }
        }
    }
    float kS[PIECES][4] = {}, bS[PIECES][4] = {};
    through_state<DV>(kS, m->V, m->G, channel % STATE_ROWS);
    through_state<DV>(bS, m->P, m->G, channel % STATE_ROWS);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int block = first + 8 * half, token = block + g;
        const float(*close)[C / 8][8][8] = m->close;
        float from[PIECES][2]; /* decay since this token up to token i */
#pragma unroll
        for (int n = 0; n < PIECES; n++) {
            decay_half(k[n] + 2 * half, m, n, block + 8, token + 1);
            decay_half(b[n] + 2 * half, m, n, block + 8, token + 1);
            decay_half(kS[n] + 2 * half, m, n, C, token + 1);
            decay_half(bS[n] + 2 * half, m, n, C, token + 1);
            from[n][0] = from[n][1] = 1;
        }
        for (int i = 1; i < 8; i++) {
            const bool later = i > g, later_a = i > g + 1;
            const float qk = later ? close[QK][2 * warp + half][i][g] : 0.0f;
            const float qb = later ? close[QB][2 * warp + half][i][g] : 0.0f;
            const float ak = later_a ? close[AK][2 * warp + half][i][g] : 0.0f;
            const float ab = later_a ? close[AB][2 * warp + half][i][g] : 0.0f;
#pragma unroll
            for (int n = 0; n < PIECES; n++) {
                const float2 e = two(m->decay[block + i], n);
                float2 q = two(m->q, block + i, n), a = two(m->a, block + i, n);
                a.x *= from[n][0], a.y *= from[n][1];
                if (later) from[n][0] *= e.x, from[n][1] *= e.y;
                q.x *= from[n][0], q.y *= from[n][1];
                k[n][2 * half] += qk * q.x + ak * a.x, k[n][2 * half + 1] += qk * q.y + ak * a.y;
                b[n][2 * half] += qb * q.x + ab * a.x, b[n][2 * half + 1] += qb * q.y + ab * a.y;
            }
        }
        const float qk = close[QK][2 * warp + half][g][g], qb = close[QB][2 * warp + half][g][g];
        const float ak = m->near_k[token + 1], ab = m->near_b[token + 1];
        const int after = token + 1 < C ? token + 1 : token; /* of the last, the scores are 0 */
        const int64_t to_row = ((int64_t)(p.begin + token) * c.heads + p.head) * c.dk + channel + 2 * t;
#pragma unroll
        for (int n = 0; n < PIECES; n++) {
            float *d_k = k[n] + 2 * half, *db = b[n] + 2 * half;
            const float *far_k = kS[n] + 2 * half, *far_b = bS[n] + 2 * half;
            const float2 own_k = two(m->k, token, n), own_b = two(m->b, token, n);
            const float2 q = two(m->q, token, n), a = two(m->a, after, n);
            moved[n][2 * half] -= own_k.x * d_k[0] + own_b.x * db[0];
            moved[n][2 * half + 1] -= own_k.y * d_k[1] + own_b.y * db[1];
            left[n][2 * half] = own_k.x * far_k[0] + own_b.x * far_b[0];
            left[n][2 * half + 1] = own_k.y * far_k[1] + own_b.y * far_b[1];
            d_k[0] += far_k[0] + (qk * q.x + ak * a.x), d_k[1] += far_k[1] + (qk * q.y + ak * a.y);
            db[0] += far_b[0] + (qb * q.x + ab * a.x), db[1] += far_b[1] + (qb * q.y + ab * a.y);
            if (token < p.n) {
                if (c.d_k) add_pair(c.d_k, to_row + 8 * n, d_k);
                if (c.db) add_pair(c.db, to_row + 8 * n, db);
            }
        }
    }
}

/* The sum over those of eight tokens that come after (or before) this lane's; all: over all eight. */
template <bool After> __device__ __forceinline__ float sum_others(float x, float *all) {
    const int lane = (int)threadIdx.x % 32, g = lane / 4;
    float sum = x; /* of so many tokens from this one on */
#pragma unroll
    for (int d = 1; d < 8; d *= 2) {
        const float other = __shfl_sync(~0u, sum, (After ? lane + 4 * d : lane - 4 * d) & 31);
        if (After ? g + d < 8 : g >= d) sum += other;
    }
    *all = __shfl_sync(~0u, sum, After ? lane % 4 : lane % 4 + 28);
    const float next = __shfl_sync(~0u, sum, (After ? lane + 4 : lane - 4) & 31);
    return g == (After ? 7 : 0) ? 0.0f : next;
}

/* dg from what decays get of later tokens (moved, moved_a), of earlier ones (left) and of the states (SG). */
template <class M>
__device__ void decay_gradient(const pn_dplr_cuda<pn_bf16> &c, const place &p, int channel, M *m,
                               const float moved[PIECES][4], const float moved_a[PIECES][4],
                               const float left[PIECES][4]) {
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    float dg[PIECES][4];
    __syncthreads(); /* all are through with the parts of decays */
#pragma unroll
    for (int n = 0; n < PIECES; n++)
#pragma unroll
        for (int x = 0; x < 2; x++) {
            float later[2], earlier[2]; /* sums of the first and the second eight */
            const float after_first = sum_others<true>(moved[n][x] + moved_a[n][x], &later[0]);
            const float after_second = sum_others<true>(moved[n][x + 2] + moved_a[n][x + 2], &later[1]);
            const float before_first = sum_others<false>(left[n][x], &earlier[0]);
            const float before_second = sum_others<false>(left[n][x + 2], &earlier[1]);
            dg[n][x] = before_first + ((after_first + later[1]) + moved[n][x]);
            dg[n][x + 2] = (before_second + earlier[0]) + (after_second + moved[n][x + 2]);
            if (g == 0) {
                m->part[warp][8 * n + 2 * t + x] = later[0] + later[1];
                m->part[WARPS + warp][8 * n + 2 * t + x] = earlier[0] + earlier[1];
            }
        }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < PIECES; n++) {
        const float2 L = two(m->L[C], n), SG = two(m->SG, n);
        float2 sum = make_float2(power_of_2(L.x) * SG.x, power_of_2(L.y) * SG.y);
        for (int w = 0; w < WARPS; w++) {
            const float2 x = two(m->part[w < warp ? WARPS + w : w], n);
            if (w != warp) sum.x += x.x, sum.y += x.y;
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int token = 16 * warp + 8 * half + g;
            if (token >= p.n || !c.dg) continue;
            float2 *to =
                (float2 *)(c.dg + ((int64_t)(p.begin + token) * c.heads + p.head) * c.dk + channel + 8 * n + 2 * t);
            float2 y = *to;
            y.x = __fadd_rn(y.x, dg[n][2 * half] + sum.x);
            y.y = __fadd_rn(y.y, dg[n][2 * half + 1] + sum.y);
            *to = y;
        }
    }
}

template <int DV> __global__ void __launch_bounds__(THREADS, DV <= 64 ? 2 : 1) chunk_gradient(pn_dplr_cuda<pn_bf16> c) {
    extern __shared__ __align__(1024) unsigned char memory[];
    shared<DV> *m = (shared<DV> *)memory;
    place p;
    p.chunk = (int)(blockIdx.x / c.heads);
    p.head = (int)(blockIdx.x % c.heads);
    p.begin = c.docs.chunk_begin[p.chunk];
    const int last = c.docs.offset[c.docs.chunk_doc[p.chunk] + 1], id = (int)threadIdx.x;
    p.n = last - p.begin < C ? last - p.begin : (int)C;
    if (p.n == 0) return;

    const int64_t ldv = (int64_t)c.heads * DV, ldk = (int64_t)c.heads * c.dk;
    const int64_t value = p.begin * ldv + p.head * DV, key = p.begin * ldk + (int64_t)p.head * c.dk;
    const int64_t state = ((int64_t)p.chunk * c.heads + p.head) * c.dk * DV;
    auto copy_values = [&](unsigned char *to, const pn_bf16 *from) {
        pn_copy_tile<DV, THREADS>(pn_shared(to), (const uint16_t *)(from ? from : c.v) + value, ldv, p.n, from ? DV : 0,
                                  id);
    };
    copy_values(m->dO, c.dout);
    copy_values(m->dP, c.dp);
    copy_values(m->V, c.v);
    copy_values(m->P, c.p);
    if (id < 2) m->near_k[C * id] = m->near_b[C * id] = 0;
    for (int channel = 0; channel < c.dk; channel += CHANNELS) {
        __syncthreads(); /* all are through with the channels before */
        auto copy_state = [&](unsigned char *to, const pn_bf16 *from) {
            const int rows = c.dk - channel < STATE_ROWS ? c.dk - channel : (int)STATE_ROWS;
            pn_copy_tile<DV, THREADS>(pn_shared(to), (const uint16_t *)from + state + (int64_t)channel * DV, DV, rows,
                                      DV, id);
        };
        auto copy_keys = [&](unsigned char *to, const pn_bf16 *from) {
            pn_copy_tile<CHANNELS, THREADS>(pn_shared(to), (const uint16_t *)from + key + channel, ldk, p.n, CHANNELS,
                                            id);
        };
        if (channel % STATE_ROWS == 0) {
            copy_state(m->S, c.states);
            copy_state(m->G, c.G);
        }
        copy_keys(m->q, c.q);
        copy_keys(m->k, c.k);
        copy_keys(m->a, c.a);
        copy_keys(m->b, c.b);
        pn_copies_commit();
        take_decays(c, p, channel, m);
        pn_copies_wait<0>();
        __syncthreads();
        if (channel == 0) {
            make_scores<DV>(m, m->dO, QK, c.scale);
            make_scores<DV>(m, m->dP, AK, 1);
        }
        multiply_states<DV>(m, channel % STATE_ROWS);
        __syncthreads();
        float moved[PIECES][4], moved_a[PIECES][4], left[PIECES][4];
        rows_gradient<DV>(c, p, channel, m, moved, moved_a);
        columns_gradient<DV>(c, p, channel, m, moved, left);
        decay_gradient(c, p, channel, m, moved, moved_a, left);
    }
}

static_assert(2 * (sizeof(shared<64>) + 1024) <= 228 * 1024, "two blocks");

template <int DV> pn_status launch(const pn_dplr_cuda<pn_bf16> *c, unsigned blocks) {
    const int bytes = (int)sizeof(shared<DV>);
    PN_TRY(pn_dplr_cuda_share(chunk_gradient<DV>, (size_t)bytes, name));
    chunk_gradient<DV><<<blocks, THREADS, bytes, pn_cuda_stream()>>>(*c);
    return pn_cuda_launched(name);
}

} // namespace

bool pn_dplr_cuda_tensor_takes(int dk, int dv) {
    return dk % CHANNELS == 0 && dk >= 64 &&
           ((dv == 64 && sizeof(shared<64>) <= pn_cuda_shared_most()) ||
            (dv == 128 && sizeof(shared<128>) <= pn_cuda_shared_most()));
}

pn_status pn_dplr_cuda_gradient_tensor(const pn_dplr_cuda<pn_bf16> *c) {
    const int64_t blocks = c->docs.chunks * c->heads;
    if (blocks == 0) return PN_OK;
    return c->dv == 64 ? launch<64>(c, (unsigned)blocks) : launch<128>(c, (unsigned)blocks);
}
