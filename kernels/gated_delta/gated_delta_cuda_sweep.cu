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
 * again as soon as every warp is through with it, and awaited apart. Once a warp has read its columns of V, it puts
 * what it writes out in their place: rows of 16-byte pieces.
 *
 * Products are those of a warpgroup where there are (compute capability 9.0a). There the four warps read a right
 * operand once; with mma.sync each reads it, and the bandwidth of shared memory is what bounds the kernel (87 % of it
 * used).
 *
 * What is written to the state is a product of two halves, rounded and rest, with twice the digits of bf16: without
 * decay a state never forgets what rounding did to it.
 *
 * Registers are what is short: three blocks on a multiprocessor leave 168, of which the state takes DK / 2 and e 32. So
 * mma.sync computes O for half of the tokens at a time, addresses are made anew where they are used, from numbers that
 * are the same for a whole warp, and lane() keeps what follows from a lane's number from being held through the loop.
 */
#include "gated_delta_cuda_chunk.cuh"

#include "cuda/tensor_core.cuh"
#include "cuda/warpgroup.cuh"

namespace {

enum { C = PN_DELTA_CHUNK, WARPS = 4, THREADS = 32 * WARPS, COLUMNS = 16 * WARPS };

/* O is computed for so many blocks of 16 tokens at a time. */
enum { OUTPUT_BLOCKS = PN_HAVE_WARPGROUP ? 4 : 2 };

typedef pn_tile<COLUMNS> value_tile; /* V, e, o: a warp's two pieces of 8 columns are its own */

template <int DK> struct shared { /* offsets of a block's shared memory */
    static constexpr int tile = pn_tile<DK>::bytes, value = value_tile::bytes;
    static constexpr int packed = (int)sizeof(pn_delta_packed);
    static constexpr int K = 0, Q = 2 * tile, P = 3 * tile, V = P + 2 * packed, bytes = V + 2 * value;
    static constexpr int blocks = DK <= 96 ? 3 : DK <= 192 ? 2 : 1; /* of them on a multiprocessor */
};

/* The thread's number, for the compiler a new one each time. */
__device__ __forceinline__ int thread() {
    int x;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
    return x;
}
__device__ __forceinline__ int lane() {
    return thread() % 32;
}

/* ---- between global and shared memory ---- */

__device__ __forceinline__ void copy_packed(uint32_t to, const pn_delta_packed *from) {
    constexpr int bytes = (int)sizeof *from;
    const int id = thread();
    const unsigned char *piece = (const unsigned char *)from + 16 * id;
    to += 16 * (uint32_t)id;
#pragma unroll
    for (int i = 0; i < bytes; i += 16 * THREADS)
        if (i + 16 * THREADS <= bytes || id < (bytes - i) / 16) pn_copy16(to + (uint32_t)i, piece + i, true);
}
/* Until what was started before the newest group is there, for all threads of the block. */
__device__ __forceinline__ void wait_for_copies() {
    pn_copies_wait<1>();
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    pn_warpgroup_see();
#endif
    __syncthreads();
}

/* This lane's row of a 16 x 16 part of a tile, for parts at any multiples of 16 rows and 2 pieces: of a right operand
 * whose rows are the tile's, or (Turned) whose columns are. */
template <bool Turned> struct lane_rows {
    uint32_t row, piece;
    __device__ __forceinline__ lane_rows(uint32_t tile) {
        const int id = lane(), r = Turned ? id % 16 : id % 8 + id / 16 * 8, c = Turned ? id / 16 : id / 8 % 2;
        row = tile + (uint32_t)(r * 64);
        piece = (uint32_t)(c ^ pn_tile<32>::turn(r)) * 16;
    }
    __device__ __forceinline__ uint32_t at(int r, int c) const {
        return row + (piece ^ (uint32_t)(c % 4 * 16)) + (uint32_t)(c / 4 * pn_tile<32>::strip_bytes + r * 64);
    }
};

/* 8 `blocks` rows (at most 64) from accumulators [16 columns, rows], through the warp's columns of a tile to global
 * memory: the rows below n and the first `columns` columns. */
__device__ __forceinline__ void put_rows(int blocks, const float (*x)[4], uint16_t *to, int64_t ld, int n, int columns,
                                         uint32_t tile, int warp) {
    const lane_rows<false> own(tile);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        if (i >= blocks) break;
        uint32_t pairs[4];
        pn_left_operand(pairs, x[i], x[i + 1]);
        pn_store4_transposed(own.at(8 * i, 2 * warp), pairs);
    }
    __syncwarp();
    const int id = lane(), row = id / 2, piece = id % 2;
    if (8 * piece >= columns) return;
    to += row * ld + 8 * piece;
    tile += (uint32_t)value_tile::at(row, 2 * warp + piece);
#pragma unroll
    for (int r = 0; r < C; r += 16)
        if (r < 8 * blocks && row + r < n) *(uint4 *)(to + r * ld) = pn_shared_piece(tile + (uint32_t)(r * 64));
}

/* A head's state [dk, dv] in global memory and the warp's accumulators of its transpose. */
template <int DK> __device__ __forceinline__ void get_state(float S[DK / 8][4], const float *from, int dv, int column) {
    const int g = lane() / 4, t = lane() % 4;
#pragma unroll
    for (int i = 0; i < DK / 8; i++)
#pragma unroll
        for (int y = 0; y < 4; y++) {
            int at = column + g + y / 2 * 8;
            S[i][y] = from && at < dv ? from[(8 * i + 2 * t + y % 2) * dv + at] : 0.0f;
        }
}
template <int DK> __device__ __forceinline__ void put_state(float *to, const float S[DK / 8][4], int dv, int column) {
    const int g = lane() / 4, t = lane() % 4;
#pragma unroll
    for (int i = 0; i < DK / 8; i++)
#pragma unroll
        for (int y = 0; y < 4; y++) {
            int at = column + g + y / 2 * 8;
            if (at < dv) to[(8 * i + 2 * t + y % 2) * dv + at] = S[i][y];
        }
}

/* ---- products ---- */

/* y[16, tokens 16 First .. 16 End) += S^T M^T, M [64, DK] a tile of keys or queries. */
template <int DK, int First, int End>
__device__ __forceinline__ void times_tile(float y[][4], const uint32_t S[DK / 16][4], uint32_t tile) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    const uint64_t b = pn_operand_of_tile(tile + 16 * First * 64);
    pn_warpgroup_begin();
#pragma unroll
    for (int i = 0; i < DK / 16; i++)
        pn_warpgroup<16 * (End - First)>::template add<false>(
            y, S[i], b + (uint64_t)((i / 2 * pn_tile<DK>::strip_bytes + i % 2 * 32) / 16));
    pn_warpgroup_end(y, 2 * (End - First));
#else
    const lane_rows<false> tokens(tile);
#pragma unroll
    for (int i = 0; i < DK / 16; i++)
#pragma unroll
        for (int j = 0; j < End - First; j++) {
            uint32_t b[4];
            pn_load4(b, tokens.at(16 * (First + j), 2 * i));
            pn_mma_bf16(y[2 * j], S[i], b[0], b[1]);
            pn_mma_bf16(y[2 * j + 1], S[i], b[2], b[3]);
        }
#endif
}

/* y[16, tokens 16 First .. 16 End) += a M^T, M [64, 64] lower triangular and packed. */
template <int First, int End>
__device__ __forceinline__ void times_packed(float y[][4], const uint32_t a[4][4], uint32_t packed) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    const uint64_t b = pn_operand_of_matrices(packed, 128, 256);
    pn_warpgroup_begin();
#pragma unroll
    for (int j = 0; j < End; j++)
#pragma unroll
        for (int i = First > j ? First : j; i < End; i++)
            pn_warpgroup<16>::template add<false>(y + 2 * (i - First), a[j],
                                                  b + (uint64_t)(512 / 16 * pn_delta_block(i, j)));
    pn_warpgroup_end(y, 2 * (End - First));
#else
    packed += 16 * (uint32_t)lane();
#pragma unroll
    for (int j = 0; j < End; j++)
#pragma unroll
        for (int i = First > j ? First : j; i < End; i++) {
            uint32_t b[4];
            pn_load4(b, packed + (uint32_t)(512 * pn_delta_block(i, j)));
            pn_mma_bf16(y[2 * (i - First)], a[j], b[0], b[1]);
            pn_mma_bf16(y[2 * (i - First) + 1], a[j], b[2], b[3]);
        }
#endif
}

/* S^T += (left + rest) K. */
template <int DK>
__device__ __forceinline__ void add_keys(float S[DK / 8][4], const uint32_t left[4][4], const uint32_t rest[4][4],
                                         uint32_t K) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    const uint64_t b = pn_operand_of_tile(K);
    pn_warpgroup_begin();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        pn_warpgroup<DK>::template add<true>(S, left[i], b + (uint64_t)(16 * i * 64 / 16));
        pn_warpgroup<DK>::template add<true>(S, rest[i], b + (uint64_t)(16 * i * 64 / 16));
    }
    pn_warpgroup_end(S, DK / 8);
#else
    const lane_rows<true> keys(K);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < DK / 16; j++) {
            uint32_t b[4];
            pn_load4_transposed(b, keys.at(16 * i, 2 * j));
            pn_mma_bf16(S[2 * j], left[i], b[0], b[1]);
            pn_mma_bf16(S[2 * j + 1], left[i], b[2], b[3]);
            pn_mma_bf16(S[2 * j], rest[i], b[0], b[1]);
            pn_mma_bf16(S[2 * j + 1], rest[i], b[2], b[3]);
        }
#endif
}

/* y_i *= factor x_i for 16 tokens i; x: floats in shared memory. */
__device__ __forceinline__ void scale_tokens(float y[2][4], uint32_t x, float factor) {
#pragma unroll
    for (int j = 0; j < 2; j++) {
        float2 f = pn_shared_pair(x + 32 * (uint32_t)j);
        f.x *= factor, f.y *= factor;
        y[j][0] *= f.x, y[j][1] *= f.y, y[j][2] *= f.x, y[j][3] *= f.y;
    }
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

/* ---- the kernel ---- */

template <int DK>
__global__ void __launch_bounds__(THREADS, shared<DK>::blocks) delta_sweep(const pn_gated_delta_cuda c) {
    typedef shared<DK> in;
    extern __shared__ __align__(1024) unsigned char memory[];
    const int warp = __shfl_sync(~0u, (int)threadIdx.x / 32, 0); /* the same for all lanes: now the compiler knows */
    const int dv = c.dv, tiles = (dv + COLUMNS - 1) / COLUMNS;
    const int first_column = (int)(blockIdx.x % tiles) * COLUMNS, column = first_column + 16 * warp;
    const int columns = dv - column; /* that exist, of the warp's 16 */
    const int head = (int)(blockIdx.x / tiles % c.v_heads), qk_head = head / (c.v_heads / c.heads);
    const int64_t doc = blockIdx.x / tiles / c.v_heads;
    const int end = c.offset[doc + 1];
    const int ldk = c.heads * DK, ldv = c.v_heads * dv;
    const int64_t state_at = (doc * c.v_heads + head) * DK * dv;
    const int value_at = head * dv + (columns > 0 ? column : 0); /* in a token's row of v, o, e */
    const uint32_t base = pn_shared(memory);

    float S[DK / 8][4];
    get_state<DK>(S, c.S0 ? c.S0 + state_at : nullptr, dv, column);

    auto copy_chunk = [&](int s, int64_t token,
                          int64_t chunk) { /* all but Q, into half s */
                                           const int n = end - token < C ? end - token : (int)C;
                                           const uint16_t *k =
                                               (const uint16_t *)c.k + (int64_t)token * ldk + qk_head * DK;
                                           const uint16_t *v =
                                               (const uint16_t *)c.v + (int64_t)token * ldv + head * dv + first_column;
                                           pn_copy_tile<DK, THREADS>(base + (uint32_t)(in::K + s * in::tile), k, ldk, n,
                                                                     DK, thread());
                                           copy_packed(base + (uint32_t)(in::P + s * in::packed),
                                                       (const pn_delta_packed *)c.scratch + chunk);
                                           pn_copy_tile<COLUMNS, THREADS>(base + (uint32_t)(in::V + s * in::value), v,
                                                                          ldv, n, dv - first_column, thread());
    };
    auto copy_queries = [&](int token) {
        const int n = end - token < C ? end - token : (int)C;
        pn_copy_tile<DK, THREADS>(base + in::Q, (const uint16_t *)c.q + (int64_t)token * ldk + qk_head * DK, ldk, n, DK,
                                  thread());
    };

    int token = c.offset[doc], chunk = c.chunk[doc] * c.v_heads + head; /* among all chunks and heads */
    if (token < end) copy_chunk(0, token, chunk);
    pn_copies_commit();
    if (token < end) copy_queries(token);
    pn_copies_commit();

    for (int s = 0; token < end; s ^= 1, token += C, chunk += c.v_heads) {
        const uint32_t K = base + (uint32_t)(in::K + s * in::tile);
        const uint32_t packed = base + (uint32_t)(in::P + s * in::packed);
        const uint32_t value = base + (uint32_t)(in::V + s * in::value);
        const uint32_t X = packed + (uint32_t)offsetof(pn_delta_packed, X);
        const uint32_t P = packed + (uint32_t)offsetof(pn_delta_packed, P);
        const uint32_t decay = packed + (uint32_t)offsetof(pn_delta_packed, in);
        const uint32_t write = packed + (uint32_t)offsetof(pn_delta_packed, write);
        const int n = end - token < C ? end - token : (int)C;
        const bool more = token + C < end;
        wait_for_copies(); /* this chunk is there for all, but for Q, and no one is in the one before */
        if (more) copy_chunk(s ^ 1, token + C, chunk + c.v_heads);
        pn_copies_commit();

        uint32_t left_S[DK / 16][4];
#pragma unroll
        for (int i = 0; i < DK / 16; i++) pn_left_operand(left_S[i], S[2 * i], S[2 * i + 1]);
        float e[8][4] = {};
        times_tile<DK, 0, 4>(e, left_S, K);
        const uint32_t pair = 8 * (uint32_t)(lane() % 4); /* of this lane's columns of an accumulator, in floats */
        uint32_t left_e[4][4], left_w[4][4], rest_w[4][4];
        {
            const lane_rows<false> own(value);
#pragma unroll
            for (int i = 0; i < 4; i++) { /* R = V - e^L Z */
                uint32_t x[4];
                pn_load4_transposed(x, own.at(16 * i, 2 * warp));
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const float2 f = pn_shared_pair(decay + pair + (uint32_t)(64 * i + 32 * j));
                    float *y = e[2 * i + j];
                    y[0] = pn_bf16_first(x[2 * j]) - f.x * y[0], y[1] = pn_bf16_second(x[2 * j]) - f.y * y[1];
                    y[2] = pn_bf16_first(x[2 * j + 1]) - f.x * y[2], y[3] = pn_bf16_second(x[2 * j + 1]) - f.y * y[3];
                }
                pn_left_operand(left_e[i], e[2 * i], e[2 * i + 1]);
            }
        }
        times_packed<0, 4>(e, left_e, X);
        if (c.e) put_rows(8, e, (uint16_t *)c.e + (int64_t)token * ldv + value_at, ldv, n, columns, value, warp);
        if (c.states) {
            uint16_t *to = (uint16_t *)c.states + (int64_t)chunk * DK * dv + (columns > 0 ? column : 0);
#pragma unroll
            for (int i = 0; i < DK / 8; i += 8)
                put_rows(DK / 8 - i < 8 ? DK / 8 - i : 8, S + i, to + 8 * i * dv, dv, C, columns, value, warp);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            pn_left_operand(left_e[i], e[2 * i], e[2 * i + 1]);
            scale_tokens(e + 2 * i, write + pair + (uint32_t)(64 * i), 1);
            pn_left_operand(left_w[i], e[2 * i], e[2 * i + 1]);
            left_rest(rest_w[i], left_w[i], e[2 * i], e[2 * i + 1]);
        }

        const float through = pn_shared_float(decay + 4 * (C - 1));
#pragma unroll
        for (int i = 0; i < DK / 8; i++)
#pragma unroll
            for (int y = 0; y < 4; y++) S[i][y] *= through;
        add_keys<DK>(S, left_w, rest_w, K);

        wait_for_copies(); /* Q */
        /* O = scale e^L S^T Q^T + e P^T of some of the tokens */
        auto output = [&](auto part) {
            constexpr int first = OUTPUT_BLOCKS * decltype(part)::value, blocks = OUTPUT_BLOCKS;
            float O[2 * blocks][4] = {};
            times_tile<DK, first, first + blocks>(O, left_S, base + in::Q);
            if (first + blocks == 4) {
                __syncthreads(); /* all are through with Q */
                if (more) copy_queries(token + C);
                pn_copies_commit();
            }
#pragma unroll
            for (int i = 0; i < blocks; i++)
                scale_tokens(O + 2 * i, decay + pair + (uint32_t)(64 * (first + i)), c.scale);
            times_packed<first, first + blocks>(O, left_e, P);
            uint16_t *o = (uint16_t *)c.o + (int64_t)(token + 16 * first) * ldv + value_at;
            put_rows(2 * blocks, O, o, ldv, n - 16 * first, columns, value, warp);
        };
        output(pn_constant<0>{});
        if constexpr (OUTPUT_BLOCKS == 2) output(pn_constant<1>{});
    }
    if (c.S_T) put_state<DK>(c.S_T + state_at, S, dv, column);
}

template <int DK> cudaError_t launch(const pn_gated_delta_cuda *c, int64_t blocks, cudaStream_t stream) {
    cudaError_t status =
        cudaFuncSetAttribute(delta_sweep<DK>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared<DK>::bytes);
    if (status == cudaSuccess) /* room for every block that fits, not the driver's guess */
        status = cudaFuncSetAttribute(delta_sweep<DK>, cudaFuncAttributePreferredSharedMemoryCarveout,
                                      cudaSharedmemCarveoutMaxShared);
    if (status != cudaSuccess) return status;
    delta_sweep<DK><<<(unsigned)blocks, THREADS, shared<DK>::bytes, stream>>>(*c);
    return cudaGetLastError();
}

} // namespace

cudaError_t pn_delta_sweep_launch(const pn_gated_delta_cuda *c, cudaStream_t stream) {
    int64_t blocks = c->docs * c->v_heads * ((c->dv + COLUMNS - 1) / COLUMNS);
    if (blocks == 0) return cudaSuccess;
    return pn_delta_for_width(c->dk, [&](auto width) { return launch<decltype(width)::value>(c, blocks, stream); });
}
