/* Backward as far as the values and p = dv silu'(y), from which the gradients of taps are one product each.
 *
 * Tiles are walked from the last to the first, so that what a tile's first three tokens owe to the values before them
 * is at hand when those are next; a walk that does not begin at the end of all tokens begins with the tile after its
 * own for that. */
#ifndef PN_KERNELS_DYNAMIC_CONV_CUDA_GRADIENTS_CUH
#define PN_KERNELS_DYNAMIC_CONV_CUDA_GRADIENTS_CUH

#include "cuda/channels.cuh"
#include "dynamic_conv_cuda_taps.cuh"

/* What it makes; NULL where it is not wanted. */
struct pn_dconv_gradients {
    const pn_bf16 *dv;
    pn_bf16 *dc;
    pn_bf16 *p; /* [tokens, V] */
    bool adds;  /* to dc; else it holds nothing yet */
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* What a thread knows of its tokens and channels of a tile. */
template <int C> struct pn_dconv_found {
    float p[C / 16][2][4], dc[C / 16][2][4]; /* the latter from the tokens of its warp only */
    /* The last two of a warp's eight threads: what the warp's tokens owe to the three before. The last one the second
     * and the third, the one before it the first in `second`. */
    float first[C / 16][4], second[C / 16][4];
};

template <int C, bool Near>
static __device__ __forceinline__ void
pn_dconv_find_gradients(const pn_dconv_walk<C> &walk, const pn_dconv_place &at, int tile, const float (*y)[4],
                        const float *bias, const pn_channels<pn_bf16, 4> (*dv)[2], pn_dconv_found<C> *found) {
    const int64_t token = (int64_t)tile * PN_DCONV_TILE + at.row;
    int s[2] = {};
    if (Near) s[0] = pn_dconv_position(walk.v.docs, token), s[1] = pn_dconv_position(walk.v.docs, token + 1);
#pragma unroll
    for (int u = 0; u < C / 16; u++) {
        const int channel = 16 * u + 4 * at.t;
        float4 b[4];
        float x[2][PN_DCONV_WIDTH][4], K[2][4][PN_DCONV_WIDTH];
#pragma unroll
        for (int i = 0; i < 4; i++) b[i] = ((const float4 *)bias)[channel + i];
        walk.template windows<Near>(token, at.row, channel, s, x);
        pn_dconv_taps_of(y, u, 0, b, K[0]);
        pn_dconv_taps_of(y, u, 1, b, K[1]);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float owed[2][PN_DCONV_WIDTH]; /* p K: to the value of tap w's token */
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const float sum = pn_dconv_sum_of(K[r][i], x[r], i), sig = pn_quick_sigmoid(sum);
                const float p = dv[u][r][i] * sig * (1 + sum * (1 - sig));
                found->p[u][r][i] = p;
#pragma unroll
                for (int w = 0; w < PN_DCONV_WIDTH; w++)
                    owed[r][w] = !Near || s[r] + w >= PN_DCONV_BACK ? p * K[r][i][w] : 0;
            }
            /* From the next thread's tokens, and from the first of the one after; from past the warp's end come what
             * its first ones owe to those before. */
            const float one = __shfl_sync(~0u, owed[0][1] + owed[1][0], (at.lane + 4) % 32);
            const float two = __shfl_sync(~0u, owed[0][2] + owed[1][1], (at.lane + 4) % 32);
            const float far = __shfl_sync(~0u, owed[0][0], (at.lane + 8) % 32);
            found->dc[u][0][i] = owed[0][3] + owed[1][2] + (at.l < 7 ? one : 0);
            found->dc[u][1][i] = owed[1][3] + (at.l < 7 ? two : 0) + (at.l < 6 ? far : 0);
            found->first[u][i] = one;
            found->second[u][i] = at.l < 7 ? far : two + far;
        }
    }
}

/* Four channels of a token. */
static __device__ __forceinline__ void pn_dconv_put_dc(pn_bf16 *to, float x[4], bool adds) {
    if (adds) {
        const pn_channels<pn_bf16, 4> had = pn_channels_at<pn_bf16, 4>(to);
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = __fadd_rn(had[i], x[i]);
    }
    pn_channels_put<pn_bf16, 4>(to, x);
}

/* p and dc of the tile. owed_before, owed_after: three tokens of what a warp's and the next one's owe. ours: else it is
 * here for what it owes to the tile before only. */
template <int C>
static __device__ __forceinline__ void
pn_dconv_put_gradients(const pn_dconv_walk<C> &walk, const pn_dconv_place &at, int tile, const pn_dconv_gradients &g,
                       bool ours, float *owed_before, const float *owed_after, pn_dconv_found<C> *found) {
    const pn_dconv_cuda &v = walk.v;
    const int64_t token = (int64_t)tile * PN_DCONV_TILE + at.row;
#pragma unroll
    for (int u = 0; u < C / 16; u++) {
        const int channel = 16 * u + 4 * at.t;
        const float *first = found->first[u], *second = found->second[u];
        if (at.l == 7) *(float4 *)(owed_before + C + channel) = make_float4(first[0], first[1], first[2], first[3]);
        if (at.l >= 6)
            *(float4 *)(owed_before + (at.l == 7 ? 2 * C : 0) + channel) =
                make_float4(second[0], second[1], second[2], second[3]);
    }
    pn_dconv_sync(walk.group);
    if (!ours) return;
#pragma unroll
    for (int u = 0; u < C / 16; u++) {
        const int channel = 16 * u + 4 * at.t;
        if (at.l >= 6) {
            float4 owed = *(const float4 *)(owed_after + (at.l == 7 ? 2 * C : 0) + channel);
            float *dc = found->dc[u][1];
            dc[0] += owed.x, dc[1] += owed.y, dc[2] += owed.z, dc[3] += owed.w;
            if (at.l == 7) {
                owed = *(const float4 *)(owed_after + C + channel);
                dc = found->dc[u][0];
                dc[0] += owed.x, dc[1] += owed.y, dc[2] += owed.z, dc[3] += owed.w;
            }
        }
        if (walk.channel0 + channel >= v.channels) continue;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (token + r >= v.docs.tokens) continue;
            const int64_t to = (token + r) * v.channels + walk.channel0 + channel;
            if (g.p) pn_channels_put<pn_bf16, 4>(g.p + to, found->p[u][r]);
            if (g.dc) pn_dconv_put_dc(g.dc + to, found->dc[u][r], g.adds);
        }
    }
}

#endif

template <int C>
__global__ void __launch_bounds__(PN_DCONV_BOUNDS, 1)
    pn_dconv_add_gradients(const __grid_constant__ pn_dconv_cuda v, const __grid_constant__ pn_dconv_maps maps,
                           const __grid_constant__ pn_dconv_gradients g) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) unsigned char memory[];
    const int64_t channel0 = (int64_t)blockIdx.x * C;
    const int tiles = (int)((v.docs.tokens + PN_DCONV_TILE - 1) / PN_DCONV_TILE);
    const int walks = (int)gridDim.y * PN_DCONV_GROUPS, each = (tiles + walks - 1) / walks;
    pn_dconv_tiles own = { {}, {}, -1 };
#pragma unroll
    for (int i = 0; i < PN_DCONV_GROUPS; i++) { /* from the one after their last, where there is one */
        const int low = min(((int)blockIdx.y * PN_DCONV_GROUPS + i) * each, tiles), high = min(low + each, tiles);
        own.first[i] = low < high && high < tiles ? high : high - 1;
        own.count[i] = own.first[i] + 1 - low;
    }
    pn_dconv_begin<C>(v, memory);
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        pn_dconv_copy<C>(v, maps, own, memory, channel0);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        pn_dconv_walk<C> walk(v, own, memory, channel0);
        const pn_dconv_shared<C> shared = { walk.steps };
        float *bias = (float *)(memory + shared.bias_at());
        /* What tokens owe to the three before a warp's: of warps 1, 2, 3; of warp 0 of this tile and of the one
         * after. */
        float *halo = (float *)(memory + shared.halo_at() + walk.group * 5 * shared.halo);
        for (int i = walk.id; i < 5 * PN_DCONV_BACK * C; i += 128) halo[i] = 0;
        const pn_dconv_place at(walk.id);
        float y[C / 2][4];
        walk.open(bias);
        for (int k = 0; k < own.rounds(); k++) {
            if (k >= own.of(walk.group)) {
                walk.skip();
                continue;
            }
            const int tile = walk.tile(k);
            const bool ours = k > 0 || own.of(walk.group) <= each;
            const int64_t token = (int64_t)tile * PN_DCONV_TILE + at.row;
            const int2 first = walk.ask_documents(token), second = walk.ask_documents(token + 1);
            pn_channels<pn_bf16, 4> dv[C / 16][2]; /* read ahead too */
#pragma unroll
            for (int u = 0; u < C / 16; u++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const int64_t channel = channel0 + 16 * u + 4 * at.t;
                    dv[u][r] = pn_channels_zero<pn_bf16, 4>();
                    if (channel < v.channels && token + r < v.docs.tokens)
                        dv[u][r] = pn_channels_at<pn_bf16, 4>(g.dv + (token + r) * v.channels + channel);
                }
            walk.taps(k, y);
            walk.wait_values(k);
            const int slot = at.warp ? at.warp : tile % 2 ? 4 : 0, next = at.warp < 3 ? at.warp + 1 : tile % 2 ? 0 : 4;
            pn_dconv_found<C> found;
            if (__any_sync(~0u, walk.near(first) | walk.near(second)))
                pn_dconv_find_gradients<C, true>(walk, at, tile, y, bias, dv, &found);
            else
                pn_dconv_find_gradients<C, false>(walk, at, tile, y, bias, dv, &found);
            walk.release_values();
            pn_dconv_put_gradients<C>(walk, at, tile, g, ours, halo + slot * PN_DCONV_BACK * C,
                                      halo + next * PN_DCONV_BACK * C, &found);
        }
        walk.finish();
    }
    pn_dconv_end();
#endif
}

#endif
