/* Taps that never leave the registers of those who use them (dynamic_conv_cuda_taps.cuh).
 *
 * Forward is then bound by the product with w2 alone. Backward makes the taps again and writes their gradients, for a
 * run of tokens at a time, from which cuBLASLt makes dw2 and dh. Tiles are walked from the last to the first, so that
 * what a tile's first three tokens owe to the values before them is at hand when those are next; a walk that does not
 * begin at the end of all tokens begins with the tile after its own for that. */
#include "cuda/channels.cuh"
#include "cuda/reduce.cuh"
#include "cuda/window.cuh"
#include "dynamic_conv_cuda_taps.cuh"

extern "C" {
#include "cuda/matmul_cuda.h"
#include "cuda/tensor_map_cuda.h"
#include "dynamic_conv_cuda.h"
}

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "dynamic_conv/cuda-fused";

enum { VALUES, HIDDEN, W2, B2, STATE };
enum {
    WIDTH = PN_DCONV_WIDTH,
    BACK = PN_DCONV_BACK,
    TILE = PN_DCONV_TILE,
    /* A kernel without the instructions it needs says so here, which takes() asks. */
    THREADS = PN_HAVE_WARPGROUP ? PN_DCONV_THREADS : 32,
    BLOCKS = 132,            /* that run at once on an H100: sums are cut by it on any GPU */
    MOST_SHARED = 227 << 10, /* bytes that a block may have */
    MOST_TOKENS = 8192,      /* of a run of backward, and */
    MOST_TAPS = 104 << 20    /* numbers of one */
};

/* Blocks that share out the tokens of the same channels: as many as keep most of the GPU busy, the fewer the better,
 * since each begins with its rows of w2. */
int parts_of(int64_t columns, int64_t tiles) {
    int best = 1;
    double most = 0;
    for (int parts = 1; parts <= 16 && parts * PN_DCONV_GROUPS <= tiles; parts++) {
        const int64_t blocks = columns * parts, rounds = (blocks + BLOCKS - 1) / BLOCKS;
        const double busy = (double)blocks / (double)(rounds * BLOCKS);
        if (busy > most + 0.04) best = parts, most = busy;
    }
    return best;
}

int64_t tiles_of(int64_t tokens) {
    return (tokens + TILE - 1) / TILE;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ __forceinline__ float sigmoid(float x) {
    return __fdividef(1, 1 + __expf(-x)); /* 0 where the exponential is infinite */
}

template <int C> __device__ void copy_biases(const pn_dconv_cuda &v, const pn_dconv_walk<C> &walk, float *bias) {
    for (int i = (int)threadIdx.x; i < C * WIDTH; i += PN_DCONV_THREADS) {
        const int64_t at = walk.channel0 * WIDTH + i;
        bias[i] = at < v.channels * WIDTH ? v.b2[at] : 0;
    }
}

/* K[channel i of 4][tap] of row 8 r + .. of the accumulators, for channels 16 u + 4 t + i. */
__device__ __forceinline__ void taps_of(const float (*y)[4], int u, int r, const float4 b[4], float K[4][WIDTH]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float *first = y[8 * u + 2 * i] + 2 * r, *second = y[8 * u + 2 * i + 1] + 2 * r;
        K[i][0] = first[0] + b[i].x, K[i][1] = first[1] + b[i].y;
        K[i][2] = second[0] + b[i].z, K[i][3] = second[1] + b[i].w;
    }
}
/* Lanes 2 N apart: each keeps N of the sums of their 2 N values. */
template <int N> __device__ __forceinline__ void sum_halves(float x[16], int lane) {
#pragma unroll
    for (int k = 0; k < N; k++) {
        const float send = lane & 2 * N ? x[k] : x[k + N], keep = lane & 2 * N ? x[k + N] : x[k];
        x[k] = keep + __shfl_xor_sync(~0u, send, 2 * N);
    }
}
/* Sums over the warp's eight rows of 16 values in each of their lanes: row l gets numbers 2 l and 2 l + 1. */
__device__ __forceinline__ void sum_rows(float x[16], int lane) {
    sum_halves<8>(x, lane);
    sum_halves<4>(x, lane);
    sum_halves<2>(x, lane);
}
__device__ __forceinline__ float sum_of(const float K[WIDTH], const float x[WIDTH][4], int i) {
    return K[0] * x[0][i] + K[1] * x[1][i] + K[2] * x[2][i] + K[3] * x[3][i];
}

#endif

template <int C>
__global__ void __launch_bounds__(THREADS, 1)
    convolve(const __grid_constant__ pn_dconv_cuda v, const __grid_constant__ CUtensorMap h, pn_bf16 *out) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) unsigned char memory[];
    pn_dconv_walk<C> walk(v, &h, pn_shared(memory), (int64_t)blockIdx.x * C, 0);
    float *bias = (float *)(memory + pn_dconv_shared<C>{ walk.steps }.bias_at());
    copy_biases(v, walk, bias);
    walk.open();
    const int walks = (int)gridDim.y * PN_DCONV_GROUPS, own = (int)blockIdx.y * PN_DCONV_GROUPS + walk.group;
    const int tiles = (int)((v.docs.tokens + TILE - 1) / TILE);
    const int lane = walk.id % 32, row = walk.id / 32 * 16 + lane / 4, t = lane % 4;
    float y[C / 2][4];
    walk.start(own, walks, own < tiles ? (tiles - own + walks - 1) / walks : 0);
    for (int tile = own; tile - walk.group < tiles; tile += walks) { /* as often in both warpgroups */
        if (tile >= tiles) {
            walk.skip();
            continue;
        }
        const int64_t token = walk.token_of(tile) + row;
        const int s[2] = { walk.position(token), walk.position(token + 8) };
        walk.taps(tile, y);
#pragma unroll
        for (int u = 0; u < C / 16; u++) {
            const int channel = 16 * u + 4 * t;
            if (walk.channel0 + channel >= v.channels) continue;
            float4 b[4];
#pragma unroll
            for (int i = 0; i < 4; i++) b[i] = ((const float4 *)bias)[channel + i];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                float x[WIDTH][4], K[4][WIDTH], sum[4];
                walk.window(tile, row + 8 * r, channel, s[r], x);
                taps_of(y, u, r, b, K);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    sum[i] = sum_of(K[i], x, i);
                    sum[i] *= sigmoid(sum[i]);
                }
                if (token + 8 * r < v.docs.tokens)
                    pn_channels_put<pn_bf16, 4>(out + (token + 8 * r) * v.channels + walk.channel0 + channel, sum);
            }
        }
    }
    walk.finish();
#endif
}

/* What backward makes of a run of tokens; NULL where it is not wanted. */
struct gradients {
    const pn_bf16 *dv;
    pn_bf16 *dc;
    pn_bf16 *dtaps; /* [tokens of the run, V, WIDTH] */
    float *part;    /* [walks, 4, V, WIDTH]: sums over tokens of what dtaps has, by warp */
    int64_t token0;
    int tiles;
    bool adds; /* to dc; else it holds nothing yet */
};

template <int C>
__global__ void __launch_bounds__(THREADS, 1)
    add_gradients(const __grid_constant__ pn_dconv_cuda v, const __grid_constant__ CUtensorMap h,
                  const __grid_constant__ gradients g) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) unsigned char memory[];
    pn_dconv_walk<C> walk(v, &h, pn_shared(memory), (int64_t)blockIdx.x * C, g.token0);
    const pn_dconv_shared<C> shared = { walk.steps };
    float *bias = (float *)(memory + shared.bias_at());
    /* What tokens owe to the three before a warp's: of warps 1, 2, 3; of warp 0 of this tile and of the one after. */
    float *halo = (float *)(memory + shared.halo_at() + walk.group * 5 * shared.halo);
    for (int i = walk.id; i < 5 * BACK * C; i += 128) halo[i] = 0;
    copy_biases(v, walk, bias);
    walk.open();
    const int walks = (int)gridDim.y * PN_DCONV_GROUPS, own = (int)blockIdx.y * PN_DCONV_GROUPS + walk.group;
    const int each = (g.tiles + walks - 1) / walks, low = min(own * each, g.tiles), high = min(low + each, g.tiles);
    const int lane = walk.id % 32, warp = walk.id / 32, row = warp * 16 + lane / 4, t = lane % 4, l = lane / 4;
    const bool after = low < high && walk.token_of(high) < v.docs.tokens;
    float y[C / 2][4], db2[C / 16][2] = {};
    const int top = after ? high : high - 1;
    walk.start(top, -1, top + 1 - low);
    for (int tile = top; tile >= top - each; tile--) { /* as often in both warpgroups */
        if (tile < low) {
            walk.skip();
            continue;
        }
        const int64_t token = walk.token_of(tile) + row;
        const int s[2] = { walk.position(token), walk.position(token + 8) };
        const bool ours = tile < high;
        float dc[C / 16][2][4];
        pn_channels<pn_bf16, 4> dv[C / 16][2];
#pragma unroll
        for (int u = 0; u < C / 16; u++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const int64_t channel = walk.channel0 + 16 * u + 4 * t;
                const bool there = channel < v.channels && token + 8 * r < v.docs.tokens;
                dv[u][r] = there ? pn_channels_at<pn_bf16, 4>(g.dv + (token + 8 * r) * v.channels + channel)
                                 : pn_channels_zero<pn_bf16, 4>();
            }
        walk.taps(tile, y);
#pragma unroll
        for (int u = 0; u < C / 16; u++) {
            const int channel = 16 * u + 4 * t;
            const bool inside = walk.channel0 + channel < v.channels;
            float4 b[4];
            float owed[2][4][WIDTH]; /* p K: to the value of tap w's token */
            float dK[2][4 * WIDTH];
#pragma unroll
            for (int i = 0; i < 4; i++) b[i] = ((const float4 *)bias)[channel + i];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const bool there = inside && token + 8 * r < v.docs.tokens;
                const int64_t at = (token + 8 * r) * v.channels + walk.channel0 + channel;
                float x[WIDTH][4], K[4][WIDTH];
                walk.window(tile, row + 8 * r, channel, s[r], x);
                taps_of(y, u, r, b, K);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float sum = sum_of(K[i], x, i), sig = sigmoid(sum);
                    const float p = dv[u][r][i] * sig * (1 + sum * (1 - sig));
#pragma unroll
                    for (int w = 0; w < WIDTH; w++) {
                        owed[r][i][w] = s[r] + w >= BACK ? p * K[i][w] : 0;
                        dK[r][i * WIDTH + w] = p * x[w][i];
                    }
                }
                if (!there || !ours || !g.dtaps) continue;
                pn_bf16 *to = g.dtaps + (at - g.token0 * v.channels) * WIDTH;
                pn_channels_put<pn_bf16, 8>(to, dK[r]);
                pn_channels_put<pn_bf16, 8>(to + 8, dK[r] + 8);
            }
            if (g.part && ours) {
#pragma unroll
                for (int k = 0; k < 4 * WIDTH; k++) dK[0][k] += dK[1][k];
                sum_rows(dK[0], lane);
                db2[u][0] += dK[0][0], db2[u][1] += dK[0][1];
            }
            /* Token l + 8 r of the warp gets from the k-th after it what that owes by tap 3 - k; from one past the
             * warp's last, which is at hand as the warp's own first ones, those before the warp get it. */
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float before = 0;
                dc[u][0][i] = owed[0][i][BACK];
                dc[u][1][i] = owed[1][i][BACK];
#pragma unroll
                for (int k = 1; k < WIDTH; k++) {
                    const float first = owed[0][i][BACK - k], second = owed[1][i][BACK - k];
                    const int from = (lane + 4 * k) % 32;
                    dc[u][0][i] += __shfl_sync(~0u, l < k ? second : first, from);
                    const float beyond = __shfl_sync(~0u, l < k ? first : second, from);
                    if (l + k < 8)
                        dc[u][1][i] += beyond;
                    else
                        before += beyond;
                }
                if (l >= 8 - BACK)
                    halo[((warp ? warp : tile % 2 ? 4 : 0) * BACK + l - (8 - BACK)) * C + channel + i] = before;
            }
        }
        pn_dconv_sync(walk.group);
        if (!g.dc || !ours) continue;
        const int next = warp < 3 ? warp + 1 : tile % 2 ? 0 : 4;
#pragma unroll
        for (int u = 0; u < C / 16; u++) {
            const int channel = 16 * u + 4 * t;
            if (walk.channel0 + channel >= v.channels) continue;
#pragma unroll
            for (int r = 0; r < 2; r++) {
                if (token + 8 * r >= v.docs.tokens) continue;
                pn_bf16 *to = g.dc + (token + 8 * r) * v.channels + walk.channel0 + channel;
                const pn_channels<pn_bf16, 4> had =
                    g.adds ? pn_channels_at<pn_bf16, 4>(to) : pn_channels_zero<pn_bf16, 4>();
                float sum[4];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float all = dc[u][r][i];
                    if (r == 1 && l >= 8 - BACK) all += halo[(next * BACK + l - (8 - BACK)) * C + channel + i];
                    sum[i] = g.adds ? __fadd_rn(had[i], all) : all;
                }
                pn_channels_put<pn_bf16, 4>(to, sum);
            }
        }
    }
    walk.finish();
    if (!g.part) return;
    float *part = g.part + ((int64_t)own * 4 + warp) * v.channels * WIDTH + walk.channel0 * WIDTH;
#pragma unroll
    for (int u = 0; u < C / 16; u++) {
        const int channel = 16 * u + 4 * t + l / 2;
        if (walk.channel0 + channel < v.channels) pn_floats_put<2>(part + channel * WIDTH + 2 * (l % 2), db2[u]);
    }
#endif
}

pn_status call_of(const pn_op_call *c, pn_dconv_cuda *v, CUtensorMap *h) {
    PN_TRY(pn_window_docs(&((const pn_dynamic_conv_attr *)c->attr)->docs, &v->docs));
    v->c = pn_values<pn_bf16>(c->in[VALUES]);
    v->h = pn_values<pn_bf16>(c->in[HIDDEN]);
    v->w2 = pn_values<pn_bf16>(c->in[W2]);
    v->state = pn_values_or_null<pn_bf16>(c->in[STATE]);
    v->b2 = pn_f32(c->in[B2]);
    v->channels = c->in[VALUES]->shape[1];
    v->rank = c->in[HIDDEN]->shape[1];
    return pn_tensor_map(name, v->h, v->docs.tokens, v->rank, TILE, h);
}

/* Channels of a block: 48, or 32 where the rows of w2 are long; 0: they are too long for either. */
int block_channels(int64_t rank) {
    const int steps = (int)((rank + PN_DCONV_STEP - 1) / PN_DCONV_STEP);
    if (rank > 4096) return 0;
    if (pn_dconv_shared<48>{ steps }.bytes(true) <= MOST_SHARED) return 48;
    return pn_dconv_shared<32>{ steps }.bytes(true) <= MOST_SHARED ? 32 : 0;
}

template <class... P> pn_status allow(void (*kernel)(P...), int bytes) {
    return pn_cuda_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), name);
}

template <int C> pn_status convolve_by(const pn_op_call *c, const pn_dconv_cuda &v, const CUtensorMap &h) {
    const int bytes = pn_dconv_shared<C>{ (int)((v.rank + PN_DCONV_STEP - 1) / PN_DCONV_STEP) }.bytes(false);
    const int64_t columns = (v.channels + C - 1) / C;
    const dim3 blocks((unsigned)columns, (unsigned)parts_of(columns, tiles_of(v.docs.tokens)));
    PN_TRY(allow(convolve<C>, bytes));
    convolve<C><<<blocks, PN_DCONV_THREADS, bytes, pn_cuda_stream()>>>(v, h, pn_values<pn_bf16>(c->out[0]));
    return pn_cuda_launched(name);
}

pn_status forward(const pn_op_call *c) {
    pn_dconv_cuda v;
    CUtensorMap h;
    PN_TRY(call_of(c, &v, &h));
    PN_TRY(block_channels(v.rank) == 48 ? convolve_by<48>(c, v, h) : convolve_by<32>(c, v, h));
    return pn_cuda_window_new_state(name, pn_window<pn_bf16>{ v.docs, v.c, v.state, v.channels, WIDTH },
                                    pn_values<pn_bf16>(c->out[1]));
}

/* Scratch of backward: the products' workspace, the taps' gradients, the sums of db2. */
struct layout {
    int64_t run, runs, columns, rows; /* tokens of a run; blocks across; rows of sums of a run */
    int parts;
    size_t dtaps, part, end;
};

layout layout_of(const pn_op_call *c) {
    const int64_t tokens = c->in[VALUES]->shape[0], channels = c->in[VALUES]->shape[1];
    const int each = block_channels(c->in[HIDDEN]->shape[1]);
    layout l = {};
    l.run = MOST_TAPS / (channels * WIDTH) / TILE * TILE;
    l.run = l.run < TILE ? TILE : l.run > MOST_TOKENS ? MOST_TOKENS : l.run;
    l.runs = (tokens + l.run - 1) / l.run;
    l.columns = (channels + each - 1) / each;
    l.parts = parts_of(l.columns, tiles_of(tokens < l.run ? tokens : l.run));
    l.rows = (int64_t)l.parts * PN_DCONV_GROUPS * 4;
    const int64_t stored = tokens < l.run ? tokens : l.run;
    l.dtaps = PN_MATMUL_WORKSPACE;
    l.part = l.dtaps + ((size_t)(stored * channels * WIDTH) * sizeof(pn_bf16) / 256 + 1) * 256;
    l.end = l.part + (size_t)(l.runs * l.rows * channels * WIDTH) * sizeof(float);
    return l;
}

template <int C> pn_status add_by(const pn_dconv_cuda &v, const CUtensorMap &h, const gradients &g, const layout &l) {
    const int bytes = pn_dconv_shared<C>{ (int)((v.rank + PN_DCONV_STEP - 1) / PN_DCONV_STEP) }.bytes(true);
    PN_TRY(allow(add_gradients<C>, bytes));
    add_gradients<C>
        <<<dim3((unsigned)l.columns, (unsigned)l.parts), PN_DCONV_THREADS, bytes, pn_cuda_stream()>>>(v, h, g);
    return pn_cuda_launched(name);
}

/* dh += dK w2 and dw2 += dK^T h, of n tokens from token0 on. */
pn_status add_products(const pn_op_call *c, const pn_dconv_cuda &v, const pn_bf16 *dtaps, int64_t token0, int64_t n) {
    pn_matmul m = {};
    m.name = name;
    m.a = dtaps;
    m.a_type = m.b_type = PN_BF16;
    if (c->din[HIDDEN]) {
        m.add = pn_op_adds(c, HIDDEN);
        m.m = n, m.n = v.rank, m.k = v.channels * WIDTH;
        m.b = v.w2;
        m.c = pn_values<pn_bf16>(c->din[HIDDEN]) + token0 * v.rank, m.c_type = PN_BF16;
        PN_TRY(pn_cuda_matmul(&m, c->scratch));
    }
    if (!c->din[W2]) return PN_OK;
    m.add = pn_op_adds(c, W2) || token0 > 0;
    m.m = v.channels * WIDTH, m.n = v.rank, m.k = n;
    m.a_turned = true;
    m.b = v.h + token0 * v.rank;
    m.c = pn_f32(c->din[W2]), m.c_type = PN_F32;
    return pn_cuda_matmul(&m, c->scratch);
}

pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !pn_op_has_din(c)) return PN_OK;
    if (c->din[STATE]) return pn_dynamic_conv_cuda_backward(c); /* never in training */
    pn_dconv_cuda v;
    CUtensorMap h;
    PN_TRY(call_of(c, &v, &h));
    const layout l = layout_of(c);
    const bool products = c->din[HIDDEN] || c->din[W2];
    const int each = block_channels(v.rank);
    char *scratch = (char *)c->scratch;
    gradients g = {};
    g.dv = pn_values<pn_bf16>(c->dout[0]);
    g.dc = pn_values_or_null<pn_bf16>(c->din[VALUES]);
    g.dtaps = products ? (pn_bf16 *)(scratch + l.dtaps) : NULL;
    g.adds = pn_op_adds(c, VALUES);
    PN_TRY(pn_cuda_zero_fresh(c, B2));
    for (int64_t run = 0; run < l.runs; run++) {
        const int64_t left = v.docs.tokens - run * l.run, n = left < l.run ? left : l.run;
        g.token0 = run * l.run;
        g.tiles = (int)tiles_of(n);
        if (c->din[B2]) g.part = (float *)(scratch + l.part) + run * l.rows * v.channels * WIDTH;
        PN_TRY(each == 48 ? add_by<48>(v, h, g, l) : add_by<32>(v, h, g, l));
        if (products) PN_TRY(add_products(c, v, g.dtaps, g.token0, n));
    }
    if (!c->din[B2]) return PN_OK;
    return pn_cuda_runs_sum(name, (const float *)(scratch + l.part), l.runs * l.rows, v.channels * WIDTH,
                            pn_add_to{ pn_f32(c->din[B2]) });
}

size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (!backward_pass) return 0;
    const size_t any = c->wants[STATE] ? pn_dynamic_conv_cuda_scratch(c, true) : 0, own = layout_of(c).end;
    return any > own ? any : own;
}

/* Whether the GPU at hand has the kernels. */
bool have_kernels(void) {
    static int have = -1; /* not asked yet */
    cudaFuncAttributes a;
    if (have < 0) {
        have = cudaFuncGetAttributes(&a, convolve<48>) == cudaSuccess && a.maxThreadsPerBlock >= PN_DCONV_THREADS;
        (void)cudaGetLastError();
    }
    return have;
}

/* Storage begins at a multiple of 64 bytes. */
bool aligned(const pn_tensor *t) {
    return !t || (size_t)t->offset * pn_dtype_bytes(t->dtype) % 16 == 0;
}

bool takes(const pn_op_call *c) {
    const int64_t tokens = c->in[VALUES]->shape[0], channels = c->in[VALUES]->shape[1];
    const int64_t rank = c->in[HIDDEN]->shape[1];
    for (int i = 0; i < c->n_in; i++)
        if (!aligned(c->in[i])) return false;
    return c->dtype == PN_BF16 && ((const pn_dynamic_conv_attr *)c->attr)->width == WIDTH && channels % 8 == 0 &&
           rank % 8 == 0 && tokens > 0 && block_channels(rank) && have_kernels();
}

} // namespace

extern "C" const pn_op_impl pn_dynamic_conv_cuda_fused = { .name = name,
                                                           .bf16 = true,
                                                           .fresh = true,
                                                           .takes = takes,
                                                           .scratch_bytes = scratch_bytes,
                                                           .forward = forward,
                                                           .backward = backward };
