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
#include "gated_delta_cuda_walk.cuh"

namespace {

/* O is computed for so many blocks of 16 tokens at a time. */
enum { OUTPUT_BLOCKS = PN_HAVE_WARPGROUP ? 4 : 2 };

template <int DK> struct shared { /* offsets of a block's shared memory */
    static constexpr int tile = pn_tile<DK>::bytes, value = value_tile::bytes;
    static constexpr int packed = (int)sizeof(pn_delta_packed);
    static constexpr int K = 0, Q = 2 * tile, P = 3 * tile, V = P + 2 * packed, bytes = V + 2 * value;
    static constexpr int blocks = DK <= 96 ? 3 : DK <= 192 ? 2 : 1; /* of them on a multiprocessor */
};

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
                                           copy_packed<in::packed>(base + (uint32_t)(in::P + s * in::packed),
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
        wait_for_copies<1>(); /* this chunk is there for all, but for Q, and no one is in the one before */
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

        wait_for_copies<1>(); /* Q */
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

int pn_delta_sweep_shared(int dk) {
    int bytes = 0;
    pn_delta_for_width(dk, [&](auto width) {
        bytes = shared<decltype(width)::value>::bytes;
        return cudaSuccess;
    });
    return bytes;
}

cudaError_t pn_delta_sweep_launch(const pn_gated_delta_cuda *c, cudaStream_t stream) {
    int64_t blocks = c->docs * c->v_heads * ((c->dv + COLUMNS - 1) / COLUMNS);
    if (blocks == 0) return cudaSuccess;
    return pn_delta_for_width(c->dk, [&](auto width) { return launch<decltype(width)::value>(c, blocks, stream); });
}
