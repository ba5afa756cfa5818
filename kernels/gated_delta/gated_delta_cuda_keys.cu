/* The gradients that need no order, chunk by chunk, from the states S that forward saved and dR and G, the gradient of
 * the state at the chunk's end, that the reverse walk left (blocks.md 8.4; A, P without beta):
 *
 *     dP = scale beta_j E_ij <dO_i, e_j>                 dA = -beta_j E_ij <dR_i, e_j> below the diagonal
 *     dQ = scale e^L dO S^T + dP K
 *     dK = -e^L dR S^T + dA K + dA^T K + dP^T Q + beta e^{L_C - L} e G^T
 *
 * and with Y = P <dO, e^T> - A <dR, e^T>, reads_i = <q_i, dq_i> + <k_i, dk_i> of what token i reads of S, writes_i =
 * e^{L_C - L_i} <k_i, G e_i>:
 *
 *     dbeta_j = sum_i Y_ij + writes_j
 *     dg_i    = sum_{m >= i} (reads_m + sum_j beta_j Y_mj - beta_m sum_j Y_jm) + sum_{j < i} beta_j writes_j
 *               + e^{L_C} <S, G>
 *
 * Each of the three warpgroups multiplies one thing by what comes from memory, 64 columns of values at a time: dO and
 * dR with S and e, e with G. Then the first ends dQ, the second what keys read, the third what they write, which it
 * hands to the second. A block goes from chunk to chunk, and the columns to come are copied while it computes: memory
 * is what bounds it. All value heads of a query/key head are one block's work, one after another; of
 * wide keys it takes one half of the columns after the other, so that accumulators fit in registers. */
#include "gated_delta_cuda_walk.cuh"

namespace {

enum { QUERIES, KEYS, ENDS, ROLES }; /* what a warpgroup is for */

constexpr int ALL = (int)ROLES * (int)THREADS;

struct call {
    pn_gated_delta_cuda c;
    pn_gated_delta_cuda_grads d;
    pn_delta_grad_work w;
};

/* W: columns of keys at a time */
template <int W> struct shared { /* offsets of a block's shared memory */
    static constexpr int stages = W <= 96 ? 3 : 2;
    static constexpr int value = value_tile::bytes, strip = 64 * W, state = COLUMNS / 32 * strip;
    static constexpr int S = ROLES * value, G = S + state, stage = G + state; /* a stage: dO, dR, e, S, G */
    static constexpr int tile = pn_tile<W>::bytes, Q = stages * stage, K = Q + tile;
    static constexpr int dP = K + tile, dA = dP + value, packed = dA + value;
    static constexpr int skipped = (int)offsetof(pn_delta_packed_grad, P);
    static constexpr int bytes = packed + (int)sizeof(pn_delta_packed_grad) - skipped;
};

struct sums {                             /* of tokens; [2]: of queries and of keys */
    float row[2][C], column[2][WARPS][C]; /* of Y below the diagonal; rows with their betas */
    float diagonal[C], reads[2][C], writes[C], state[WARPS];
};

/* ---- where a block is: one step is 64 columns of values of a part of an item, which is a chunk and query/key head;
 * its parts are value heads and, of each, the `Halves` of the columns of keys ---- */

struct place {
    int first, n; /* token, tokens */
};
struct cursor {
    int item, part, tile;
    place now, next; /* of this item and the block's next one: what tables say comes early enough */
};
struct course {
    int items, parts, tiles;
};

__device__ __forceinline__ place find(const pn_gated_delta_cuda &c, const course &to, int item) {
    if (item >= to.items) return { 0, 0 };
    const int chunk = item / c.heads, first = c.chunk_begin[chunk], left = c.offset[c.chunk_doc[chunk] + 1] - first;
    return { first, left < C ? left : (int)C };
}
__device__ __forceinline__ cursor start(const pn_gated_delta_cuda &c, const course &to) {
    const int item = (int)blockIdx.x;
    return { item, 0, 0, find(c, to, item), find(c, to, item + (int)gridDim.x) };
}
__device__ __forceinline__ void advance(const pn_gated_delta_cuda &c, const course &to, cursor *at) {
    if (++at->tile < to.tiles) return;
    at->tile = 0;
    if (++at->part < to.parts) return;
    at->part = 0;
    at->item += (int)gridDim.x;
    at->now = at->next;
    at->next = find(c, to, at->item + (int)gridDim.x);
}
template <int Halves> __device__ __forceinline__ int v_head(const pn_gated_delta_cuda &c, const cursor &at) {
    return at.item % c.heads * (c.v_heads / c.heads) + at.part / Halves;
}
template <int Halves> __device__ __forceinline__ int64_t packed_at(const pn_gated_delta_cuda &c, const cursor &at) {
    return (int64_t)(at.item / c.heads) * c.v_heads + v_head<Halves>(c, at);
}

/* ---- pieces of the products ---- */

__device__ __forceinline__ uint32_t shared_word(uint32_t at) {
    uint32_t x;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(at) : "memory");
    return x;
}
__device__ __forceinline__ void put_word(uint32_t at, uint32_t x) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(x) : "memory");
}

/* Around products with times_rows(); keep() for a second accumulator. */
__device__ __forceinline__ void begin() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    pn_warpgroup_begin();
#endif
}
template <int N> __device__ __forceinline__ void end(float y[N / 8][4]) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    pn_warpgroup_end(y, N / 8);
#endif
}
__device__ __forceinline__ void keep(float y[8][4]) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    pn_warpgroup_keep(y, 8);
#endif
}

/* y[16, N] += a[16, columns 16 k ..] M^T, M a tile of N rows and 64 columns. */
template <int N>
__device__ __forceinline__ void times_rows(float y[N / 8][4], const uint32_t a[4], uint32_t tile, int k) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    pn_warpgroup<N>::template add<false>(y, a,
                                         pn_operand_of_tile(tile) + (uint64_t)((k / 2 * 64 * N + k % 2 * 32) / 16));
#else
    const lane_rows<false> rows(tile + (uint32_t)(k / 2 * 64 * N));
#pragma unroll
    for (int j = 0; j < N / 16; j++) {
        uint32_t b[4];
        pn_load4(b, rows.at(16 * j, k % 2 * 2));
        pn_mma_bf16(y[2 * j], a, b[0], b[1]);
        pn_mma_bf16(y[2 * j + 1], a, b[2], b[3]);
    }
#endif
}

/* y_i *= x_i for the tokens 16 w .. of a warp, which are rows here; x: floats in shared memory. */
template <int Blocks>
__device__ __forceinline__ void scale_rows(float y[Blocks][4], uint32_t x, float factor, int warp) {
    x += 4 * (uint32_t)(16 * warp + lane() / 4);
    const float first = factor * pn_shared_float(x), second = factor * pn_shared_float(x + 32);
#pragma unroll
    for (int i = 0; i < Blocks; i++) y[i][0] *= first, y[i][1] *= first, y[i][2] *= second, y[i][3] *= second;
}

/* <y_i, row i of the tile> for a warp's tokens, to `to` or added to it. */
template <int DK>
__device__ __forceinline__ void put_dots(float *to, bool add, const float y[DK / 8][4], uint32_t tile, int warp) {
    const int g = lane() / 4, t = lane() % 4;
    const uint32_t row = tile + (uint32_t)((16 * warp + g) * 64 + 4 * t), turn = (uint32_t)(pn_tile<32>::turn(g) * 16);
    float first = 0, second = 0;
#pragma unroll
    for (int i = 0; i < DK / 8; i++) {
        const uint32_t at = row + (uint32_t)(i / 4 * pn_tile<32>::strip_bytes) + ((uint32_t)(i % 4 * 16) ^ turn);
        const uint32_t a = shared_word(at), b = shared_word(at + 8 * 64);
        first += y[i][0] * pn_bf16_first(a) + y[i][1] * pn_bf16_second(a);
        second += y[i][2] * pn_bf16_first(b) + y[i][3] * pn_bf16_second(b);
    }
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
        first += __shfl_xor_sync(~0u, first, step);
        second += __shfl_xor_sync(~0u, second, step);
    }
    to += 16 * warp + g;
    if (t == 0) to[0] = (add ? to[0] : 0) + first, to[8] = (add ? to[8] : 0) + second;
}

/* From products of a warp's rows with e to dP (Query) or dA, as a left operand and in the tile `to`, and Y's sums.
 * packed: as copied, without X. */
template <bool Query>
__device__ __forceinline__ void score_gradients(uint32_t left[4][4], float y[8][4], uint32_t packed, float scale,
                                                uint32_t to, sums *sum, int warp) {
    constexpr uint32_t skipped = offsetof(pn_delta_packed_grad, P);
    constexpr uint32_t from = (Query ? offsetof(pn_delta_packed_grad, P) : offsetof(pn_delta_packed_grad, A)) - skipped;
    const uint32_t beta = packed + offsetof(pn_delta_packed_grad, beta) - skipped;
    const uint32_t high = packed + offsetof(pn_delta_packed_grad, high) - skipped;
    const uint32_t low = packed + offsetof(pn_delta_packed_grad, low) - skipped;
    const int g = lane() / 4, t = lane() % 4;
    float rows[2] = {};
#pragma unroll
    for (int b = 0; b < 8; b++) {
        float columns[2] = {};
        if (b / 2 <= warp) {
            const uint32_t block =
                packed + from + (uint32_t)(512 * pn_delta_block(warp, b / 2) + b % 2 * 128 + 4 * lane());
            const uint32_t column = (uint32_t)(4 * (8 * b + 2 * t));
            const float2 step = pn_shared_pair(beta + column);
            const float2 L = pn_shared_pair(high + column), rest = pn_shared_pair(low + column);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int i = 16 * warp + 8 * h + g, j = 8 * b + 2 * t;
                const uint32_t pair = shared_word(block + (uint32_t)(256 * h));
                const float Li = pn_shared_float(high + 4 * (uint32_t)i),
                            rest_i = pn_shared_float(low + 4 * (uint32_t)i);
                const float first = j < i + Query ? exp2f((Li - L.x) + (rest_i - rest.x)) : 0.0f;
                const float second = j + 1 < i + Query ? exp2f((Li - L.y) + (rest_i - rest.y)) : 0.0f;
                float *x = y[b] + 2 * h;
                const float factor = Query ? scale : -1.0f;
                const float Y0 = (Query ? x[0] : -x[0]) * pn_bf16_first(pair);
                const float Y1 = (Query ? x[1] : -x[1]) * pn_bf16_second(pair);
                rows[h] += step.x * (j < i ? Y0 : 0) + step.y * (j + 1 < i ? Y1 : 0);
                columns[0] += j < i ? Y0 : 0, columns[1] += j + 1 < i ? Y1 : 0;
                if (Query && j == i) sum->diagonal[i] = Y0;
                if (Query && j + 1 == i) sum->diagonal[i] = Y1;
                x[0] *= factor * step.x * first, x[1] *= factor * step.y * second;
            }
        } else {
#pragma unroll
            for (int h = 0; h < 4; h++) y[b][h] = 0;
        }
#pragma unroll
        for (int step = 4; step < 32; step *= 2) {
            columns[0] += __shfl_xor_sync(~0u, columns[0], step);
            columns[1] += __shfl_xor_sync(~0u, columns[1], step);
        }
        if (g == 0) *(float2 *)&sum->column[!Query][warp][8 * b + 2 * t] = make_float2(columns[0], columns[1]);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        rows[h] += __shfl_xor_sync(~0u, rows[h], 1);
        rows[h] += __shfl_xor_sync(~0u, rows[h], 2);
        if (t == 0) sum->row[!Query][16 * warp + 8 * h + g] = rows[h];
    }
    const uint32_t row = to + (uint32_t)((16 * warp + g) * 64 + 4 * t), turn = (uint32_t)(pn_tile<32>::turn(g) * 16);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        pn_left_operand(left[k], y[2 * k], y[2 * k + 1]);
#pragma unroll
        for (int i = 0; i < 4; i++)
            put_word(row + (uint32_t)(k / 2 * pn_tile<32>::strip_bytes + i % 2 * 8 * 64) +
                         ((uint32_t)((2 * k + i / 2) % 4 * 16) ^ turn),
                     left[k][i]);
    }
}

/* to += y, or where it is fresh = y, for a warp's tokens below n; to: of the chunk's first token. */
template <int DK>
__device__ __forceinline__ void add_rows(uint16_t *to, bool fresh, const float y[DK / 8][4], int64_t ld, int n,
                                         int warp) {
    const int row = 16 * warp + lane() / 4;
    to += row * ld + lane() % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (row + 8 * h >= n) return;
        uint32_t *line = (uint32_t *)(to + 8 * h * ld);
#pragma unroll
        for (int i = 0; i < DK / 8; i += 4) { /* loads, then stores */
            uint32_t x[4];
#pragma unroll
            for (int b = 0; b < 4; b++) x[b] = fresh ? 0 : line[4 * (i + b)];
#pragma unroll
            for (int b = 0; b < 4; b++)
                line[4 * (i + b)] =
                    pn_bf16_pair(pn_bf16_first(x[b]) + y[i + b][2 * h], pn_bf16_second(x[b]) + y[i + b][2 * h + 1]);
        }
    }
}

__device__ __forceinline__ float dot8(const uint4 &a, const uint4 &b) {
    const uint32_t x[4] = { a.x, a.y, a.z, a.w }, y[4] = { b.x, b.y, b.z, b.w };
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 4; i++)
        sum += pn_bf16_first(x[i]) * pn_bf16_first(y[i]) + pn_bf16_second(x[i]) * pn_bf16_second(y[i]);
    return sum;
}
__device__ __forceinline__ uint4 add8(const uint4 &a, const uint4 &b) {
    const uint32_t x[4] = { a.x, a.y, a.z, a.w }, y[4] = { b.x, b.y, b.z, b.w };
    uint32_t s[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        s[i] = pn_bf16_pair(pn_bf16_first(x[i]) + pn_bf16_first(y[i]), pn_bf16_second(x[i]) + pn_bf16_second(y[i]));
    return make_uint4(s[0], s[1], s[2], s[3]);
}

/* dg and dbeta of a chunk by one warp, lane l for tokens 2 l and 2 l + 1. at: of the chunk's first token. */
__device__ __forceinline__ void add_gates(const call &x, const sums *sum, uint32_t packed, int64_t at, int n) {
    constexpr uint32_t skipped = offsetof(pn_delta_packed_grad, P);
    const int ld = x.c.v_heads, i = 2 * lane();
    const float2 beta =
        pn_shared_pair(packed + (uint32_t)(offsetof(pn_delta_packed_grad, beta) - skipped) + 4 * (uint32_t)i);
    const float through =
        pn_shared_float(packed + (uint32_t)(offsetof(pn_delta_packed_grad, in) - skipped) + 4 * (C - 1));
    /* what decays far is small beside what does not decay: nothing large is added that has to go again */
    float here[2], written[2], dbeta[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float column = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) column += sum->column[0][w][i + h] + sum->column[1][w][i + h];
        const float step = h ? beta.y : beta.x, inside = sum->row[0][i + h] + sum->row[1][i + h] - step * column;
        here[h] = sum->reads[0][i + h] + sum->reads[1][i + h] + inside;
        written[h] = step * sum->writes[i + h];
        dbeta[h] = column + sum->diagonal[i + h] + sum->writes[i + h];
    }
    float after = here[0] + here[1], before = written[0] + written[1]; /* of this lane and those after it, before it */
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const float next = __shfl_down_sync(~0u, after, (unsigned)step);
        const float last = __shfl_up_sync(~0u, before, (unsigned)step);
        if (lane() + step < 32) after += next;
        if (lane() >= step) before += last;
    }
    after = __shfl_down_sync(~0u, after, 1), before = __shfl_up_sync(~0u, before, 1); /* without this lane */
    if (lane() == 31) after = 0;
    if (lane() == 0) before = 0;
    float state = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) state += sum->state[w];
    const float dg[2] = { here[0] + here[1] + after + before + through * state,
                          here[1] + after + before + written[0] + through * state };
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (i + h >= n) return;
        const int64_t to = at + (int64_t)(i + h) * ld;
        if (x.d.dg) x.d.dg[to] = (x.d.fresh & PN_FRESH_DG ? 0.0f : x.d.dg[to]) + dg[h];
        if (x.d.dbeta) x.d.dbeta[to] = (x.d.fresh & PN_FRESH_DBETA ? 0.0f : x.d.dbeta[to]) + dbeta[h];
    }
}

/* ---- the kernel ---- */

template <int DK, int Halves> __global__ void __launch_bounds__(ALL, 1) delta_grad_keys(const call x) {
    constexpr int W = DK / Halves;
    typedef shared<W> in;
    extern __shared__ __align__(1024) unsigned char memory[];
    __shared__ sums sum;
    const pn_gated_delta_cuda &c = x.c;
    const int role = __shfl_sync(~0u, (int)threadIdx.x / THREADS, 0);
    const int warp = __shfl_sync(~0u, (int)threadIdx.x / 32 % WARPS, 0), id = (int)threadIdx.x % THREADS;
    const int dv = c.dv, ldk = c.heads * DK, ldv = c.v_heads * dv;
    const course to = { c.chunk[c.docs] * c.heads, c.v_heads / c.heads * Halves, (dv + COLUMNS - 1) / COLUMNS };
    const uint32_t base = pn_shared(memory), packed = base + in::packed;
    const uint16_t *rows = (const uint16_t *)(role == QUERIES ? x.d.dO : role == KEYS ? x.w.dR : x.c.e);

    auto copy_step = [&](const cursor &at, uint32_t stage) {
        if (at.item >= to.items) return;
        const int column = COLUMNS * at.tile, columns = dv - column;
        const int64_t token = at.now.first;
        pn_copy_tile<COLUMNS, THREADS>(stage + (uint32_t)(role * in::value),
                                       rows ? rows + token * ldv + v_head<Halves>(c, at) * dv + column
                                            : (const uint16_t *)c.q,
                                       ldv, at.now.n, rows ? columns : 0, id);
        const int row = (int)threadIdx.x / 8, piece = (int)threadIdx.x % 8;
        const bool there = 8 * piece < columns;
        const int64_t from =
            packed_at<Halves>(c, at) * DK * dv + at.part % Halves * W * dv + column + (there ? 8 * piece : 0);
#pragma unroll
        for (int r = row; r < W; r += ALL / 8) {
            const uint32_t place =
                stage + (uint32_t)(piece / 4 * in::strip + r * 64 + (piece % 4 ^ pn_tile<32>::turn(r)) * 16);
            pn_copy16(place + in::S, (const uint16_t *)c.states + from + r * dv, there);
            pn_copy16(place + in::G, x.w.G + from + r * dv, there);
        }
    };
    auto copy_chunk = [&](const cursor &at) {
        if (role == ENDS) {
            const unsigned char *from = (const unsigned char *)(x.w.packed + packed_at<Halves>(c, at)) + in::skipped;
            for (int i = 16 * id; i < in::bytes - in::packed; i += 16 * THREADS)
                pn_copy16(packed + (uint32_t)i, from + i, true);
        } else {
            const uint16_t *from = (const uint16_t *)(role == QUERIES ? c.q : c.k);
            pn_copy_tile<W, THREADS>(base + (uint32_t)(role == QUERIES ? in::Q : in::K),
                                     from + (int64_t)at.now.first * ldk + at.item % c.heads * DK + at.part % Halves * W,
                                     ldk, at.now.n, W, id);
        }
    };

    cursor at = start(c, to), ahead = at;
#pragma unroll
    for (int s = 0; s < in::stages - 1; s++) {
        copy_step(ahead, base + (uint32_t)(s * in::stage));
        pn_copies_commit();
        advance(c, to, &ahead);
    }
    int s = 0; /* the stage to compute */
    while (at.item < to.items) {
        const int head = v_head<Halves>(c, at), half = at.part % Halves, n = at.now.n;
        const int64_t token = at.now.first;
        float y[W / 8][4] = {}, score[8][4] = {}, state = 0;
        uint32_t left[4][4];
        for (int tile = 0; tile < to.tiles; tile++) {
            pn_copies_wait<in::stages - 2>();
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
            pn_warpgroup_see();
#endif
            __syncthreads(); /* this step is there for all, and no one is in the one before */
            if (tile == 0) copy_chunk(at);
            copy_step(ahead, base + (uint32_t)((s + in::stages - 1) % in::stages * in::stage));
            pn_copies_commit();
            advance(c, to, &ahead);

            const uint32_t stage = base + (uint32_t)(s * in::stage);
            s = (s + 1) % in::stages;
            const lane_rows<true> own(stage + (uint32_t)(role * in::value));
#pragma unroll
            for (int k = 0; k < 4; k++) pn_load4(left[k], own.at(16 * warp, 2 * k));
            if (role != ENDS) {
                begin();
#pragma unroll
                for (int k = 0; k < 4; k++) times_rows<W>(y, left[k], stage + in::S, k);
#pragma unroll
                for (int k = 0; k < 4; k++) times_rows<COLUMNS>(score, left[k], stage + (int)ENDS * in::value, k);
                end<W>(y);
                keep(score);
                continue;
            }
            begin();
#pragma unroll
            for (int k = 0; k < 4; k++) times_rows<W>(y, left[k], stage + in::G, k);
            end<W>(y);
#pragma unroll
            for (int i = 16 * id; i < in::state; i += 16 * THREADS)
                state += dot8(pn_shared_piece(stage + (uint32_t)(in::S + i)),
                              pn_shared_piece(stage + (uint32_t)(in::G + i)));
            if (!x.d.dv || half > 0) continue;
            const int row = id / 8, piece = id % 8, column = COLUMNS * tile + 8 * piece;
            uint16_t *dV = (uint16_t *)x.d.dv + (token + row) * ldv + head * dv + column;
            const uint32_t dR = stage + (uint32_t)((int)KEYS * in::value + value_tile::at(row, piece));
            uint4 old[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (row + 16 * i < n && column < dv) old[i] = *(const uint4 *)(dV + (int64_t)(16 * i) * ldv);
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (row + 16 * i < n && column < dv)
                    *(uint4 *)(dV + (int64_t)(16 * i) * ldv) =
                        add8(old[i], pn_shared_piece(dR + (uint32_t)(16 * i * 64)));
        }
        if (to.tiles < in::stages) { /* what copy_chunk() copies came with a later step */
            pn_copies_wait<0>();
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
            pn_warpgroup_see();
#endif
            __syncthreads();
        }

        const uint32_t Q = base + in::Q, K = base + in::K;
        const uint32_t read = packed + (uint32_t)offsetof(pn_delta_packed_grad, in) - in::skipped;
        const uint32_t out = packed + (uint32_t)offsetof(pn_delta_packed_grad, out) - in::skipped;
        const uint32_t beta = packed + (uint32_t)offsetof(pn_delta_packed_grad, beta) - in::skipped;
        if (role == QUERIES) {
            scale_rows<W / 8>(y, read, c.scale, warp);
            put_dots<W>(sum.reads[0], half > 0, y, Q, warp);
            score_gradients<true>(left, score, packed, c.scale, base + in::dP, &sum, warp);
            add_tile<W>(y, left, K);
        } else if (role == KEYS) {
            scale_rows<W / 8>(y, read, -1, warp);
            put_dots<W>(sum.reads[1], half > 0, y, K, warp);
            score_gradients<false>(left, score, packed, c.scale, base + in::dA, &sum, warp);
            add_tile<W>(y, left, K);
        } else {
            scale_rows<W / 8>(y, out, 1, warp);
            put_dots<W>(sum.writes, half > 0, y, K, warp);
            scale_rows<W / 8>(y, beta, 1, warp);
#pragma unroll
            for (int step = 1; step < 32; step *= 2) state += __shfl_xor_sync(~0u, state, step);
            if (lane() == 0) sum.state[warp] = (half > 0 ? sum.state[warp] : 0) + state;
        }
        __syncthreads(); /* dP, dA and the sums are there */
        const int64_t key = token * ldk + at.item % c.heads * DK + half * W;
        float4 *handed = (float4 *)(memory + in::Q) + (warp * (W / 8) * 32 + lane()); /* over Q and K */
        if (role == QUERIES) {
            if (x.d.dq)
                add_rows<W>((uint16_t *)x.d.dq + key, at.part < Halves && x.d.fresh & PN_FRESH_DQ, y, ldk, n, warp);
            if (warp == 0 && half == Halves - 1) add_gates(x, &sum, packed, token * c.v_heads + head, n);
        } else if (role == ENDS) {
            const lane_rows<false> dA(base + in::dA), dP(base + in::dP);
#pragma unroll
            for (int k = 0; k < 4; k++) pn_load4_transposed(left[k], dA.at(16 * k, 2 * warp));
            add_tile<W>(y, left, K);
#pragma unroll
            for (int k = 0; k < 4; k++) pn_load4_transposed(left[k], dP.at(16 * k, 2 * warp));
            add_tile<W>(y, left, Q);
        }
        __syncthreads(); /* all are through with Q and K */
        if (role == ENDS)
#pragma unroll
            for (int i = 0; i < W / 8; i++) handed[32 * i] = make_float4(y[i][0], y[i][1], y[i][2], y[i][3]);
        __syncthreads();
        if (role == KEYS && x.d.dk) {
#pragma unroll
            for (int i = 0; i < W / 8; i++) {
                const float4 more = handed[32 * i];
                y[i][0] += more.x, y[i][1] += more.y, y[i][2] += more.z, y[i][3] += more.w;
            }
            add_rows<W>((uint16_t *)x.d.dk + key, at.part < Halves && x.d.fresh & PN_FRESH_DK, y, ldk, n, warp);
        }
        at.tile = to.tiles - 1;
        advance(c, to, &at);
    }
}

constexpr int halves(int dk) {
    return dk <= 128 ? 1 : 2;
}

template <int DK, int Halves> cudaError_t launch(const call *x, unsigned blocks, cudaStream_t stream) {
    cudaError_t status = cudaFuncSetAttribute(delta_grad_keys<DK, Halves>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                              shared<DK / Halves>::bytes);
    if (status != cudaSuccess) return status;
    delta_grad_keys<DK, Halves><<<blocks, ALL, shared<DK / Halves>::bytes, stream>>>(*x);
    return cudaGetLastError();
}

} // namespace

int pn_delta_grad_keys_shared(int dk) {
    int bytes = 0;
    pn_delta_for_width(dk, [&](auto width) {
        constexpr int DK = decltype(width)::value;
        bytes = shared<DK / halves(DK)>::bytes + (int)sizeof(sums);
        return cudaSuccess;
    });
    return bytes;
}

cudaError_t pn_delta_grad_keys_launch(const pn_gated_delta_cuda *c, const pn_gated_delta_cuda_grads *d,
                                      const pn_delta_grad_work *w, cudaStream_t stream) {
    const int64_t items = c->chunks * c->heads;
    if (items == 0) return cudaSuccess;
    int device, blocks;
    cudaError_t status = cudaGetDevice(&device);
    if (status == cudaSuccess) status = cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, device);
    if (status != cudaSuccess) return status;
    if (items < blocks) blocks = (int)items;
    const call x = { *c, *d, *w };
    return pn_delta_for_width(c->dk, [&](auto width) {
        constexpr int DK = decltype(width)::value;
        return launch<DK, halves(DK)>(&x, (unsigned)blocks, stream);
    });
}
