/* The walk through a document's chunks in reverse, with G the gradient of the state at a chunk's end: the mirror image
 * of gated_delta_cuda_sweep.cu, and as thin. With A, P and X as forward has them (columns scaled by beta):
 *
 *     D^T = G^T K^T    de^T = beta (e^{L_C - L} D^T + dO^T P)    dR^T = de^T + de^T X
 *     G^T = e^{L_C} G^T + (scale e^L dO)^T Q - (e^L dR)^T K
 *
 * X stands transposed to forward's: what was a row of a packed block is a column here. It leaves dR, which is dV, and G
 * for what needs no order (gated_delta_cuda_keys.cu). What keys take from G is a product of two halves, as what forward
 * writes to S; what queries add to it is exact where nothing decays but for `scale`. */
#include "gated_delta_cuda_walk.cuh"

namespace {

template <int DK> struct shared { /* offsets of a block's shared memory */
    static constexpr int tile = pn_tile<DK>::bytes, value = value_tile::bytes;
    static constexpr int packed = (int)offsetof(pn_delta_packed_grad, A);
    static constexpr int K = 0, Q = 2 * tile, P = 3 * tile, V = P + 2 * packed, bytes = V + 2 * value;
    static constexpr int blocks = DK <= 96 ? 3 : DK <= 192 ? 2 : 1; /* of them on a multiprocessor */
};

struct call {
    pn_gated_delta_cuda c;
    pn_gated_delta_cuda_grads d;
    pn_delta_grad_work w;
};

template <int DK>
__device__ __forceinline__ void add_state(float *to, bool fresh, const float G[DK / 8][4], int dv, int column) {
    const int g = lane() / 4, t = lane() % 4;
#pragma unroll
    for (int i = 0; i < DK / 8; i++)
#pragma unroll
        for (int y = 0; y < 4; y++) {
            int at = column + g + y / 2 * 8;
            float *x = to + (8 * i + 2 * t + y % 2) * dv + at;
            if (at < dv) *x = (fresh ? 0.0f : *x) + G[i][y];
        }
}

template <int DK> __global__ void __launch_bounds__(THREADS, shared<DK>::blocks) delta_reverse(const call x) {
    typedef shared<DK> in;
    extern __shared__ __align__(1024) unsigned char memory[];
    const pn_gated_delta_cuda &c = x.c;
    const int warp = __shfl_sync(~0u, (int)threadIdx.x / 32, 0); /* the same for all lanes: now the compiler knows */
    const int dv = c.dv, tiles = (dv + COLUMNS - 1) / COLUMNS;
    const int first_column = (int)(blockIdx.x % tiles) * COLUMNS, column = first_column + 16 * warp;
    const int columns = dv - column; /* that exist, of the warp's 16 */
    const int head = (int)(blockIdx.x / tiles % c.v_heads), qk_head = head / (c.v_heads / c.heads);
    const int64_t doc = blockIdx.x / tiles / c.v_heads;
    const int begin = c.offset[doc], end = c.offset[doc + 1];
    const int ldk = c.heads * DK, ldv = c.v_heads * dv;
    const int64_t state_at = (doc * c.v_heads + head) * DK * dv;
    const int value_at = head * dv + (columns > 0 ? column : 0); /* in a token's row of dR */
    const uint32_t base = pn_shared(memory);

    float G[DK / 8][4];
    get_state<DK>(G, x.d.dS_T ? x.d.dS_T + state_at : nullptr, dv, column);

    auto copy_chunk =
        [&](int s, int token,
            int64_t chunk) { /* all but Q, into half s */
                             const int n = end - token < C ? end - token : (int)C;
                             const uint16_t *k = (const uint16_t *)c.k + (int64_t)token * ldk + qk_head * DK;
                             const uint16_t *dO =
                                 x.d.dO ? (const uint16_t *)x.d.dO + (int64_t)token * ldv + head * dv + first_column
                                        : k;
                             pn_copy_tile<DK, THREADS>(base + (uint32_t)(in::K + s * in::tile), k, ldk, n, DK,
                                                       thread());
                             copy_packed<in::packed>(base + (uint32_t)(in::P + s * in::packed), x.w.packed + chunk);
                             pn_copy_tile<COLUMNS, THREADS>(base + (uint32_t)(in::V + s * in::value), dO, ldv, n,
                                                            x.d.dO ? dv - first_column : 0, thread());
        };
    auto copy_queries = [&](int token) {
        const int n = end - token < C ? end - token : (int)C;
        pn_copy_tile<DK, THREADS>(base + in::Q, (const uint16_t *)c.q + (int64_t)token * ldk + qk_head * DK, ldk, n, DK,
                                  thread());
    };

    int token = begin + (end - begin + C - 1) / C * C - C;              /* before `begin` when there is none */
    int64_t chunk = (int64_t)(c.chunk[doc + 1] - 1) * c.v_heads + head; /* among all chunks and heads */
    if (token >= begin) copy_chunk(0, token, chunk);
    pn_copies_commit();
    if (token >= begin) copy_queries(token);
    pn_copies_commit();

    for (int s = 0; token >= begin; s ^= 1, token -= C, chunk -= c.v_heads) {
        const uint32_t K = base + (uint32_t)(in::K + s * in::tile);
        const uint32_t packed = base + (uint32_t)(in::P + s * in::packed);
        const uint32_t value = base + (uint32_t)(in::V + s * in::value);
        const uint32_t X = packed + (uint32_t)offsetof(pn_delta_packed_grad, X);
        const uint32_t P = packed + (uint32_t)offsetof(pn_delta_packed_grad, P);
        const uint32_t pair = 8 * (uint32_t)(lane() % 4); /* of this lane's columns of an accumulator, in floats */
        const uint32_t read = packed + (uint32_t)offsetof(pn_delta_packed_grad, in) + pair;
        const uint32_t out = packed + (uint32_t)offsetof(pn_delta_packed_grad, out) + pair;
        const uint32_t beta = packed + (uint32_t)offsetof(pn_delta_packed_grad, beta) + pair;
        const int n = end - token < C ? end - token : (int)C;
        const bool more = token - C >= begin;
        wait_for_copies<1>(); /* this chunk is there for all, but for Q, and no one is in the one after */
        if (more) copy_chunk(s ^ 1, token - C, chunk - c.v_heads);
        pn_copies_commit();

        uint32_t left_O[4][4];
        {
            const lane_rows<false> own(value);
#pragma unroll
            for (int i = 0; i < 4; i++) pn_load4_transposed(left_O[i], own.at(16 * i, 2 * warp));
        }
        uint16_t *to = x.w.G + chunk * DK * dv + (columns > 0 ? column : 0);
#pragma unroll
        for (int i = 0; i < DK / 8; i += 8)
            put_rows(DK / 8 - i < 8 ? DK / 8 - i : 8, G + i, to + 8 * i * dv, dv, C, columns, value, warp);
        float e[8][4] = {};
        {
            uint32_t left_G[DK / 16][4];
#pragma unroll
            for (int i = 0; i < DK / 16; i++) pn_left_operand(left_G[i], G[2 * i], G[2 * i + 1]);
            times_tile<DK, 0, 4>(e, left_G, K);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) scale_tokens(e + 2 * i, out + (uint32_t)(64 * i), 1);
        times_lower(e, left_O, P);
        uint32_t left[4][4], rest[4][4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            scale_tokens(e + 2 * i, beta + (uint32_t)(64 * i), 1);
            pn_left_operand(left[i], e[2 * i], e[2 * i + 1]);
        }
        times_lower(e, left, X);
        put_rows(8, e, x.w.dR + (int64_t)token * ldv + value_at, ldv, n, columns, value, warp);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            scale_tokens(e + 2 * i, read + (uint32_t)(64 * i), -1);
            pn_left_operand(left[i], e[2 * i], e[2 * i + 1]);
            left_rest(rest[i], left[i], e[2 * i], e[2 * i + 1]);
#pragma unroll
            for (int y = 0; y < 4; y++) {
                float2 f = pn_shared_pair(read + (uint32_t)(64 * i + 32 * (y / 2)));
                left_O[i][y] = pn_bf16_pair(c.scale * f.x * pn_bf16_first(left_O[i][y]),
                                            c.scale * f.y * pn_bf16_second(left_O[i][y]));
            }
        }
        const float through = pn_shared_float(packed + (uint32_t)offsetof(pn_delta_packed_grad, in) + 4 * (C - 1));
#pragma unroll
        for (int i = 0; i < DK / 8; i++)
#pragma unroll
            for (int y = 0; y < 4; y++) G[i][y] *= through;
        add_keys<DK>(G, left, rest, K);
        wait_for_copies<1>(); /* Q */
        add_tile<DK>(G, left_O, base + in::Q);
        __syncthreads(); /* all are through with Q */
        if (more) copy_queries(token - C);
        pn_copies_commit();
    }
    if (x.d.dS0) add_state<DK>(x.d.dS0 + state_at, x.d.fresh & PN_FRESH_DS0, G, dv, column);
}

template <int DK> cudaError_t launch(const call *x, int64_t blocks, cudaStream_t stream) {
    cudaError_t status =
        cudaFuncSetAttribute(delta_reverse<DK>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared<DK>::bytes);
    if (status == cudaSuccess) /* room for every block that fits, not the driver's guess */
        status = cudaFuncSetAttribute(delta_reverse<DK>, cudaFuncAttributePreferredSharedMemoryCarveout,
                                      cudaSharedmemCarveoutMaxShared);
    if (status != cudaSuccess) return status;
    delta_reverse<DK><<<(unsigned)blocks, THREADS, shared<DK>::bytes, stream>>>(*x);
    return cudaGetLastError();
}

} // namespace

int pn_delta_grad_sweep_shared(int dk) {
    int bytes = 0;
    pn_delta_for_width(dk, [&](auto width) {
        bytes = shared<decltype(width)::value>::bytes;
        return cudaSuccess;
    });
    return bytes;
}

cudaError_t pn_delta_grad_sweep_launch(const pn_gated_delta_cuda *c, const pn_gated_delta_cuda_grads *d,
                                       const pn_delta_grad_work *w, cudaStream_t stream) {
    const int64_t blocks = c->docs * c->v_heads * ((c->dv + COLUMNS - 1) / COLUMNS);
    if (blocks == 0) return cudaSuccess;
    const call x = { *c, *d, *w };
    return pn_delta_for_width(c->dk, [&](auto width) { return launch<decltype(width)::value>(&x, blocks, stream); });
}
