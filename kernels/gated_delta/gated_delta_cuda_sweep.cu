/* The walk through a document's chunks. A block of four warps takes 64 columns of a head's state, a warp 16 of them.
 *
 * Everything is computed transposed, so that a warp's state S^T [16, dk], e^T and O^T [16, 64] are accumulators: each
 * is the left operand of the next product as it lies in its registers, and warps share nothing but what they read:
 *
 *     Z^T = S^T K^T    R^T = V^T - e^L Z^T    e^T = R^T + R^T X^T    O^T = scale e^L S^T Q^T + e^T P^T
 *     S^T = e^{L_C} S^T + (beta e^{L_C - L} e)^T K
 *
 * The right operands come from shared memory, K in both orientations from the same tile. While a chunk is computed the
 * next one's K, X, P, gates and V are copied into the other half of a double buffer; Q has one buffer, which is filled
 * again as soon as every warp is through with it. A warp copies its own columns of V and, once they are read, puts what
 * it writes out in their place: rows of 16-byte pieces.
 *
 * Registers are what is short (three blocks on a multiprocessor leave 168): the state takes DK / 2 of them, e 32, and O
 * is computed for half of the tokens at a time. */
#include "gated_delta_cuda_chunk.cuh"

#include "cuda/tensor_core.cuh"

namespace {

enum { C = PN_DELTA_CHUNK, WARPS = 4, THREADS = 32 * WARPS, COLUMNS = 16 * WARPS };

typedef pn_tile<16> value_tile; /* a warp's columns of V, e, o: [64, 16] */

template <int DK> struct shared { /* offsets of a block's shared memory */
    static constexpr int tile = C * pn_tile<DK>::row_bytes, packed = (int)sizeof(pn_delta_packed);
    static constexpr int value = C * value_tile::row_bytes;
    static constexpr int K = 0, Q = 2 * tile, P = 3 * tile, V = P + 2 * packed;
    static constexpr int bytes = V + 2 * WARPS * value;
    static constexpr int blocks = DK <= 96 ? 3 : DK <= 192 ? 2 : 1; /* of them on a multiprocessor */
};

/* This thread's part of copying a [64, DK] tile: pieces of 16 bytes, `across` threads side by side in a row. */
template <int DK> struct tile_copy {
    static constexpr int pieces = pn_tile<DK>::pieces;
    static constexpr int across = pieces % 8 == 0 ? 8 : pieces % 4 == 0 ? 4 : 2, rows = THREADS / across;
    int row, piece, to;

    __device__ tile_copy()
        : row((int)threadIdx.x / across), piece((int)threadIdx.x % across), to(pn_tile<DK>::at(row, piece)) {}
    /* n rows of `from`, `ld` elements apart; zeros from row n on. */
    __device__ __forceinline__ void start(uint32_t tile, const uint16_t *from, int64_t ld, int n) const {
#pragma unroll
        for (int r = 0; r < C; r += rows) {
            bool there = row + r < n;
            const uint16_t *line = from + (there ? (row + r) * ld + 8 * piece : 0);
#pragma unroll
            for (int p = 0; p < pieces; p += across)
                pn_copy16(tile + (uint32_t)(to + r * pn_tile<DK>::row_bytes + 16 * p), there ? line + 8 * p : from,
                          there);
        }
    }
};

/* Where one lane's row of a 16 x 16 part of such a tile is, for parts at any multiples of 16 rows and 2 pieces. */
template <int DK> struct lane_rows {
    uint32_t row, piece;
    __device__ lane_rows(int r, int c)
        : row((uint32_t)(r * pn_tile<DK>::row_bytes)), piece((uint32_t)(c ^ pn_tile<DK>::turn(r)) << 4) {}
    __device__ __forceinline__ uint32_t at(int r, int c) const {
        return row + (piece ^ (uint32_t)(16 * c)) + (uint32_t)(r * pn_tile<DK>::row_bytes);
    }
};

/* Where this warp's columns of a [tokens, Hv dv] tensor go to or come from. */
struct value_lane {
    int row, piece, at; /* of 16 bytes: rows row, row + 16, .. */
    bool there;         /* columns exist */
    __device__ value_lane(int column, int dv)
        : row((int)threadIdx.x % 32 / 2), piece((int)threadIdx.x % 2), at(value_tile::at(row, piece)),
          there(column + 8 * piece < dv) {}
};

/* 8 `blocks` rows (at most 64) from accumulators [16 columns, rows], through the warp's tile to global memory; rows
 * from n on are not written. own: this lane's row of the tile for pn_store4_transposed(). */
__device__ __forceinline__ void put_rows(int blocks, const float (*x)[4], uint16_t *to, int64_t ld, int n,
                                         const value_lane &part, unsigned char *tile, uint32_t own) {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        if (i >= blocks) break;
        uint32_t pairs[4];
        pn_left_operand(pairs, x[i], x[i + 1]);
        pn_store4_transposed(pn_shared(tile) + own + (uint32_t)(8 * i * value_tile::row_bytes), pairs);
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < C; r += 16)
        if (r < 8 * blocks && part.there && part.row + r < n)
            *(uint4 *)(to + (part.row + r) * ld + 8 * part.piece) =
                *(const uint4 *)&tile[part.at + r * value_tile::row_bytes];
}

/* A head's state [dk, dv] in global memory and the warp's accumulators of its transpose. */
template <int DK> __device__ __forceinline__ void get_state(float S[DK / 8][4], const float *from, int dv, int column) {
    int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < DK / 8; i++)
#pragma unroll
        for (int y = 0; y < 4; y++) {
            int at = column + g + y / 2 * 8;
            S[i][y] = from && at < dv ? from[(8 * i + 2 * t + y % 2) * dv + at] : 0.0f;
        }
}
template <int DK> __device__ __forceinline__ void put_state(float *to, const float S[DK / 8][4], int dv, int column) {
    int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < DK / 8; i++)
#pragma unroll
        for (int y = 0; y < 4; y++) {
            int at = column + g + y / 2 * 8;
            if (at < dv) to[(8 * i + 2 * t + y % 2) * dv + at] = S[i][y];
        }
}
/* y[16, tokens 16 First .. 16 End) += a M^T, M [64, 64] lower triangular and packed. */
template <int First, int End>
__device__ __forceinline__ void times_packed(float y[][4], const uint32_t a[4][4], uint32_t packed) {
    uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < End; j++)
#pragma unroll
        for (int i = First > j ? First : j; i < End; i++) {
            uint32_t b[4];
            pn_load4(b, packed + (uint32_t)(512 * (i * (i + 1) / 2 + j)) + 16 * lane);
            pn_mma_bf16(y[2 * (i - First)], a[j], b[0], b[1]);
            pn_mma_bf16(y[2 * (i - First) + 1], a[j], b[2], b[3]);
        }
}

/* o of the 32 tokens from 16 First on: O^T = scale e^L S^T Q^T + e^T P^T. */
template <int DK, int First>
__device__ __forceinline__ void output(uint16_t *o, int64_t ldv, int n, const float S[DK / 8][4],
                                       const uint32_t left_e[4][4], uint32_t Q, const lane_rows<DK> &tokens,
                                       float scale, const pn_delta_packed *p, uint32_t P, const value_lane &part,
                                       unsigned char *value, uint32_t own) {
    float O[4][4] = {};
#pragma unroll
    for (int i = 0; i < DK / 16; i++) {
        uint32_t left_S[4], b[4];
        pn_left_operand(left_S, S[2 * i], S[2 * i + 1]);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            pn_load4(b, Q + tokens.at(16 * (First + j), 2 * i));
            pn_mma_bf16(O[2 * j], left_S, b[0], b[1]);
            pn_mma_bf16(O[2 * j + 1], left_S, b[2], b[3]);
        }
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float2 in = *(const float2 *)&p->in[16 * First + 8 * j + 2 * (threadIdx.x % 4)];
        float x = scale * in.x, y = scale * in.y;
        O[j][0] *= x, O[j][1] *= y, O[j][2] *= x, O[j][3] *= y;
    }
    times_packed<First, First + 2>(O, left_e, P);
    put_rows(4, O, o + 16 * First * ldv, ldv, n - 16 * First, part, value, own);
}

/* What rounding to bf16 left of an operand, as an operand. */
__device__ __forceinline__ void left_rest(uint32_t rest[4], const uint32_t rounded[4], const float left[4],
                                          const float right[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float *x = (i < 2 ? left : right) + 2 * (i % 2);
        rest[i] = pn_bf16_pair(x[0] - pn_bf16_first(rounded[i]), x[1] - pn_bf16_second(rounded[i]));
    }
}

/* S += left K. */
template <int DK>
__device__ __forceinline__ void add_keys(float S[DK / 8][4], const uint32_t left[4][4], uint32_t K,
                                         const lane_rows<DK> &keys) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < DK / 16; j++) {
            uint32_t b[4];
            pn_load4_transposed(b, K + keys.at(16 * i, 2 * j));
            pn_mma_bf16(S[2 * j], left[i], b[0], b[1]);
            pn_mma_bf16(S[2 * j + 1], left[i], b[2], b[3]);
        }
}

/* Careful: what is written to the state keeps twice the digits of bf16. */
template <int DK, bool Careful>
__global__ void __launch_bounds__(THREADS, shared<DK>::blocks) delta_sweep(const pn_gated_delta_cuda c) {
    typedef shared<DK> at;
    extern __shared__ __align__(128) unsigned char memory[];
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, t = lane % 4;
    const int dv = c.dv, tiles = (dv + COLUMNS - 1) / COLUMNS;
    const int column = (int)(blockIdx.x % tiles) * COLUMNS + 16 * warp;
    const int head = (int)(blockIdx.x / tiles % c.v_heads);
    const int64_t doc = blockIdx.x / tiles / c.v_heads, first = c.offset[doc],
                  state = (doc * c.v_heads + head) * DK * dv;
    int left = (int)(c.offset[doc + 1] - first); /* tokens from the current chunk on */

    float S[DK / 8][4];
    get_state<DK>(S, c.S0 ? c.S0 + state : nullptr, dv, column);

    const int64_t ldk = (int64_t)c.heads * DK, ldv = (int64_t)c.v_heads * dv;
    const int64_t qk_at = first * ldk + head / (c.v_heads / c.heads) * DK;
    const int64_t v_at = first * ldv + head * dv + (column < dv ? column : 0);
    const uint16_t *q = (const uint16_t *)c.q + qk_at, *k = (const uint16_t *)c.k + qk_at;
    const uint16_t *v = (const uint16_t *)c.v + v_at;
    uint16_t *o = (uint16_t *)c.o + v_at, *e_out = c.e ? (uint16_t *)c.e + v_at : nullptr;
    const pn_delta_packed *packed = (const pn_delta_packed *)c.scratch + c.chunk[doc] * c.v_heads + head;
    uint16_t *states = c.states ? (uint16_t *)c.states + (c.chunk[doc] * c.v_heads + head) * DK * dv : nullptr;
    if (states && column < dv) states += column;

    const uint32_t shared_at = pn_shared(memory);
    const tile_copy<DK> copy;
    const value_lane part(column, dv);
    /* starts copying the chunk that x, y point to into half `s`, all but Q */
    auto copy_chunk = [&](int s, const uint16_t *keys, const uint16_t *values, const pn_delta_packed *p, int n) {
        copy.start(shared_at + (uint32_t)(at::K + s * at::tile), keys, ldk, n);
        uint32_t to = shared_at + (uint32_t)(at::P + s * at::packed) + 16 * threadIdx.x;
        const unsigned char *from = (const unsigned char *)p + 16 * threadIdx.x;
#pragma unroll
        for (int i = 0; i < at::packed; i += 16 * THREADS)
            if (i + 16 * THREADS <= at::packed || (int)threadIdx.x < (at::packed - i) / 16)
                pn_copy16(to + i, from + i, true);
        to = shared_at + (uint32_t)(at::V + (s * WARPS + warp) * at::value + part.at);
#pragma unroll
        for (int r = 0; r < C; r += 16) {
            bool there = part.there && part.row + r < n;
            pn_copy16(to + (uint32_t)(r * value_tile::row_bytes),
                      there ? values + (part.row + r) * ldv + 8 * part.piece : v, there);
        }
    };
    if (left > 0) {
        copy_chunk(0, k, v, packed, left);
        copy.start(shared_at + at::Q, q, ldk, left);
    }
    pn_copies_commit();

    /* this lane's rows in the tiles: of a right operand whose rows are tokens, and of one whose columns are */
    const lane_rows<DK> tokens(lane % 8 + lane / 16 * 8, lane / 8 % 2), keys(lane % 16, lane / 16);
    const uint32_t own = (uint32_t)value_tile::at(lane % 8 + lane / 16 * 8, lane / 8 % 2);

    for (int s = 0; left > 0; s ^= 1, left -= C) {
        const uint32_t K = shared_at + (uint32_t)(at::K + s * at::tile), Q = shared_at + at::Q,
                       X = shared_at + (uint32_t)(at::P + s * at::packed);
        const pn_delta_packed *p = (const pn_delta_packed *)(memory + at::P + s * at::packed);
        unsigned char *value = memory + at::V + (s * WARPS + warp) * at::value;
        const bool more = left > C;
        pn_copies_wait<0>();
        __syncthreads(); /* this chunk is there for all, and no one is in the one before */
        if (more) copy_chunk(s ^ 1, k + C * ldk, v + C * ldv, packed + c.v_heads, left - C);

        float e[8][4] = {};
#pragma unroll
        for (int i = 0; i < DK / 16; i++) { /* Z */
            uint32_t left_S[4], b[4];
            pn_left_operand(left_S, S[2 * i], S[2 * i + 1]);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                pn_load4(b, K + tokens.at(16 * j, 2 * i));
                pn_mma_bf16(e[2 * j], left_S, b[0], b[1]);
                pn_mma_bf16(e[2 * j + 1], left_S, b[2], b[3]);
            }
        }
        uint32_t left_e[4][4], left_w[4][4], rest_w[4][4];
#pragma unroll
        for (int i = 0; i < 4; i++) { /* R */
            uint32_t x[4];
            pn_load4_transposed(x, pn_shared(value) + own + (uint32_t)(16 * i * value_tile::row_bytes));
#pragma unroll
            for (int j = 0; j < 2; j++) {
                float2 in = *(const float2 *)&p->in[16 * i + 8 * j + 2 * t];
                float *y = e[2 * i + j];
                y[0] = pn_bf16_first(x[2 * j]) - in.x * y[0];
                y[1] = pn_bf16_second(x[2 * j]) - in.y * y[1];
                y[2] = pn_bf16_first(x[2 * j + 1]) - in.x * y[2];
                y[3] = pn_bf16_second(x[2 * j + 1]) - in.y * y[3];
            }
            pn_left_operand(left_e[i], e[2 * i], e[2 * i + 1]);
        }
        times_packed<0, 4>(e, left_e, X);
        const int n = left < C ? left : (int)C;
        if (c.e) put_rows(8, e, e_out, ldv, n, part, value, own);
        if (c.states)
#pragma unroll
            for (int i = 0; i < DK / 8; i += 8) {
                const int blocks = DK / 8 - i < 8 ? DK / 8 - i : 8;
                put_rows(blocks, S + i, states + 8 * i * dv, dv, C, part, value, own);
            }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            pn_left_operand(left_e[i], e[2 * i], e[2 * i + 1]);
#pragma unroll
            for (int j = 0; j < 2; j++) {
                float2 write = *(const float2 *)&p->write[16 * i + 8 * j + 2 * t];
                float *y = e[2 * i + j];
                y[0] *= write.x, y[1] *= write.y, y[2] *= write.x, y[3] *= write.y;
            }
            pn_left_operand(left_w[i], e[2 * i], e[2 * i + 1]);
            if (Careful) left_rest(rest_w[i], left_w[i], e[2 * i], e[2 * i + 1]);
        }

        output<DK, 0>(o, ldv, n, S, left_e, Q, tokens, c.scale, p, X + sizeof p->X, part, value, own);
        output<DK, 2>(o, ldv, n, S, left_e, Q, tokens, c.scale, p, X + sizeof p->X, part, value, own);
        __syncthreads(); /* all are through with Q */
        if (more) copy.start(Q, q + C * ldk, ldk, left - C);
        pn_copies_commit();

        const float through = p->in[C - 1];
#pragma unroll
        for (int i = 0; i < DK / 8; i++)
#pragma unroll
            for (int y = 0; y < 4; y++) S[i][y] *= through;
        add_keys<DK>(S, left_w, K, keys);
        if (Careful) add_keys<DK>(S, rest_w, K, keys);

        k += C * ldk, q += C * ldk, v += C * ldv, o += C * ldv, packed += c.v_heads;
        if (e_out) e_out += C * ldv;
        if (states) states += (int64_t)c.v_heads * DK * dv;
    }
    if (c.S_T) put_state<DK>(c.S_T + state, S, dv, column);
}

template <int DK, bool Careful> cudaError_t launch(const pn_gated_delta_cuda *c, int64_t blocks, cudaStream_t stream) {
    cudaError_t status =
        cudaFuncSetAttribute(delta_sweep<DK, Careful>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared<DK>::bytes);
    if (status == cudaSuccess) /* room for every block that fits, not the driver's guess */
        status = cudaFuncSetAttribute(delta_sweep<DK, Careful>, cudaFuncAttributePreferredSharedMemoryCarveout,
                                      cudaSharedmemCarveoutMaxShared);
    if (status != cudaSuccess) return status;
    delta_sweep<DK, Careful><<<(unsigned)blocks, THREADS, shared<DK>::bytes, stream>>>(*c);
    return cudaGetLastError();
}

} // namespace

cudaError_t pn_delta_sweep_launch(const pn_gated_delta_cuda *c, cudaStream_t stream) {
    int64_t blocks = c->docs * c->v_heads * ((c->dv + COLUMNS - 1) / COLUMNS);
    if (blocks == 0) return cudaSuccess;
    return pn_delta_for_width(c->dk, [&](auto width) {
        constexpr int DK = decltype(width)::value;
        /* without decay a state never forgets what rounding did to it */
        return c->g ? launch<DK, false>(c, blocks, stream) : launch<DK, true>(c, blocks, stream);
    });
}
