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

/* A tile, of which dc[u][r][i] is what its own warp knows of the gradients of the values. ours: else it is here for
 * what it owes to the tile before only. */
template <int C, bool Near>
static __device__ __forceinline__ void
pn_dconv_put_p(const pn_dconv_walk<C> &walk, const pn_dconv_place &at, int tile, const float (*y)[4], const float *bias,
               const pn_dconv_gradients &g, bool ours, const pn_channels<pn_bf16, 4> (*dv)[2], float *owed_before,
               float (*dc)[2][4]) {
    const pn_dconv_cuda &v = walk.v;
    const int64_t token = (int64_t)tile * PN_DCONV_TILE + at.row;
    int s[2] = {};
    if (Near) s[0] = pn_dconv_position(v.docs, token), s[1] = pn_dconv_position(v.docs, token + 8);
#pragma unroll
    for (int u = 0; u < C / 16; u++) {
        const int channel = 16 * u + 4 * at.t;
        const bool inside = walk.channel0 + channel < v.channels;
        float4 b[4];
        float owed[2][4][PN_DCONV_WIDTH]; /* p K: to the value of tap w's token */
#pragma unroll
        for (int i = 0; i < 4; i++) b[i] = ((const float4 *)bias)[channel + i];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float x[PN_DCONV_WIDTH][4], K[4][PN_DCONV_WIDTH], p[4];
            walk.template window<Near>(tile, at.row + 8 * r, channel, s[r], x);
            pn_dconv_taps_of(y, u, r, b, K);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float sum = pn_dconv_sum_of(K[i], x, i), sig = pn_quick_sigmoid(sum);
                p[i] = dv[u][r][i] * sig * (1 + sum * (1 - sig));
#pragma unroll
                for (int w = 0; w < PN_DCONV_WIDTH; w++)
                    owed[r][i][w] = !Near || s[r] + w >= PN_DCONV_BACK ? p[i] * K[i][w] : 0;
            }
            if (inside && token + 8 * r < v.docs.tokens && ours && g.p)
                pn_channels_put<pn_bf16, 4>(g.p + (token + 8 * r) * v.channels + walk.channel0 + channel, p);
        }
        /* Token l + 8 r of the warp gets from the k-th after it what that owes by tap 3 - k; from one past the warp's
         * last, which is at hand as the warp's own first ones, those before the warp get it. */
        float before[4] = {};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            dc[u][0][i] = owed[0][i][PN_DCONV_BACK];
            dc[u][1][i] = owed[1][i][PN_DCONV_BACK];
#pragma unroll
            for (int k = 1; k < PN_DCONV_WIDTH; k++) {
                const float first = owed[0][i][PN_DCONV_BACK - k], second = owed[1][i][PN_DCONV_BACK - k];
                const int from = (at.lane + 4 * k) % 32;
                dc[u][0][i] += __shfl_sync(~0u, at.l < k ? second : first, from);
                const float beyond = __shfl_sync(~0u, at.l < k ? first : second, from);
                dc[u][1][i] += at.l + k < 8 ? beyond : 0;
                before[i] += at.l + k < 8 ? 0 : beyond;
            }
        }
        if (at.l >= 8 - PN_DCONV_BACK)
            *(float4 *)(owed_before + (at.l - (8 - PN_DCONV_BACK)) * C + channel) =
                make_float4(before[0], before[1], before[2], before[3]);
    }
}

/* dc of the tile's tokens: those of this thread, and what the warp after owes. */
template <int C>
static __device__ __forceinline__ void pn_dconv_put_dc(const pn_dconv_walk<C> &walk, const pn_dconv_place &at, int tile,
                                                       const pn_dconv_gradients &g, const float *owed_after,
                                                       float (*dc)[2][4]) {
    const pn_dconv_cuda &v = walk.v;
    const int64_t token = (int64_t)tile * PN_DCONV_TILE + at.row;
#pragma unroll
    for (int u = 0; u < C / 16; u++) {
        const int channel = 16 * u + 4 * at.t;
        if (at.l >= 8 - PN_DCONV_BACK) {
            const float4 owed = *(const float4 *)(owed_after + (at.l - (8 - PN_DCONV_BACK)) * C + channel);
            dc[u][1][0] += owed.x, dc[u][1][1] += owed.y, dc[u][1][2] += owed.z, dc[u][1][3] += owed.w;
        }
        if (walk.channel0 + channel >= v.channels) continue;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (token + 8 * r >= v.docs.tokens) continue;
            pn_bf16 *to = g.dc + (token + 8 * r) * v.channels + walk.channel0 + channel;
            if (g.adds) {
                const pn_channels<pn_bf16, 4> had = pn_channels_at<pn_bf16, 4>(to);
#pragma unroll
                for (int i = 0; i < 4; i++) dc[u][r][i] = __fadd_rn(had[i], dc[u][r][i]);
            }
            pn_channels_put<pn_bf16, 4>(to, dc[u][r]);
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
            const int2 first = walk.ask_documents(token), second = walk.ask_documents(token + 8);
            pn_channels<pn_bf16, 4> dv[C / 16][2]; /* read ahead too */
#pragma unroll
            for (int u = 0; u < C / 16; u++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const int64_t channel = channel0 + 16 * u + 4 * at.t;
                    dv[u][r] = pn_channels_zero<pn_bf16, 4>();
                    if (channel < v.channels && token + 8 * r < v.docs.tokens)
                        dv[u][r] = pn_channels_at<pn_bf16, 4>(g.dv + (token + 8 * r) * v.channels + channel);
                }
            walk.taps(k, y);
            walk.wait_values(k);
            const int slot = at.warp ? at.warp : tile % 2 ? 4 : 0, next = at.warp < 3 ? at.warp + 1 : tile % 2 ? 0 : 4;
            float dc[C / 16][2][4], *owed = halo + slot * PN_DCONV_BACK * C;
            if (__any_sync(~0u, walk.near(first) | walk.near(second)))
                pn_dconv_put_p<C, true>(walk, at, tile, y, bias, g, ours, dv, owed, dc);
            else
                pn_dconv_put_p<C, false>(walk, at, tile, y, bias, g, ours, dv, owed, dc);
            walk.release_values();
            pn_dconv_sync(walk.group);
            if (g.dc && ours) pn_dconv_put_dc<C>(walk, at, tile, g, halo + next * PN_DCONV_BACK * C, dc);
        }
        walk.finish();
    }
    pn_dconv_end();
#endif
}

#endif
