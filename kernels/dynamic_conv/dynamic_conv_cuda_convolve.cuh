/* Forward: v = silu(sum over the window of taps and values), from taps in registers. */
#ifndef PN_KERNELS_DYNAMIC_CONV_CUDA_CONVOLVE_CUH
#define PN_KERNELS_DYNAMIC_CONV_CUDA_CONVOLVE_CUH

#include "cuda/channels.cuh"
#include "dynamic_conv_cuda_taps.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <int C, bool Near>
static __device__ __forceinline__ void pn_dconv_put_values(const pn_dconv_walk<C> &walk, const pn_dconv_place &at,
                                                           int tile, const float (*y)[4], const float *bias,
                                                           pn_bf16 *out) {
    const pn_dconv_cuda &v = walk.v;
    const int64_t token = walk.token_of(tile) + at.row;
    int s[2] = {};
    if (Near) s[0] = walk.position(token), s[1] = walk.position(token + 8);
#pragma unroll
    for (int u = 0; u < C / 16; u++) {
        const int channel = 16 * u + 4 * at.t;
        const bool inside = walk.channel0 + channel < v.channels;
        float4 b[4];
#pragma unroll
        for (int i = 0; i < 4; i++) b[i] = ((const float4 *)bias)[channel + i];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float x[PN_DCONV_WIDTH][4], K[4][PN_DCONV_WIDTH], sum[4];
            walk.template window<Near>(tile, at.row + 8 * r, channel, s[r], x);
            pn_dconv_taps_of(y, u, r, b, K);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                sum[i] = pn_dconv_sum_of(K[i], x, i);
                sum[i] *= pn_quick_sigmoid(sum[i]);
            }
            if (inside && token + 8 * r < v.docs.tokens)
                pn_channels_put<pn_bf16, 4>(out + (token + 8 * r) * v.channels + walk.channel0 + channel, sum);
        }
    }
}

#endif

/* Blocks: along x the channels, C each; along y shares of the tokens. */
template <int C>
__global__ void __launch_bounds__(PN_DCONV_BOUNDS, 1)
    pn_dconv_convolve(const __grid_constant__ pn_dconv_cuda v, const __grid_constant__ CUtensorMap h, pn_bf16 *out) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) unsigned char memory[];
    pn_dconv_walk<C> walk(v, &h, memory, (int64_t)blockIdx.x * C, 0);
    float *bias = (float *)(memory + pn_dconv_shared<C>{ walk.steps }.bias_at());
    pn_dconv_copy_biases(v, walk, bias);
    walk.open();
    const int walks = (int)gridDim.y * PN_DCONV_GROUPS, own = (int)blockIdx.y * PN_DCONV_GROUPS + walk.group;
    const int tiles = (int)((v.docs.tokens + PN_DCONV_TILE - 1) / PN_DCONV_TILE);
    const pn_dconv_place at(walk.id);
    float y[C / 2][4];
    walk.start(own, walks, own < tiles ? (tiles - own + walks - 1) / walks : 0);
    for (int tile = own; tile - walk.group < tiles; tile += walks) { /* as often in both warpgroups */
        if (tile >= tiles) {
            walk.skip();
            continue;
        }
        const int64_t token = walk.token_of(tile) + at.row;
        const int2 first = walk.ask_documents(token), second = walk.ask_documents(token + 8);
        walk.taps(tile, y);
        if (__any_sync(~0u, walk.near(first) | walk.near(second)))
            pn_dconv_put_values<C, true>(walk, at, tile, y, bias, out);
        else
            pn_dconv_put_values<C, false>(walk, at, tile, y, bias, out);
    }
    walk.finish();
#endif
}

#endif
