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
    const int64_t token = (int64_t)tile * PN_DCONV_TILE + at.row;
    int s[2] = {};
    if (Near) s[0] = pn_dconv_position(v.docs, token), s[1] = pn_dconv_position(v.docs, token + 1);
    float sum[C / 16][2][4];
#pragma unroll
    for (int u = 0; u < C / 16; u++) {
        const int channel = 16 * u + 4 * at.t;
        float4 b[4];
        float x[2][PN_DCONV_WIDTH][4];
#pragma unroll
        for (int i = 0; i < 4; i++) b[i] = ((const float4 *)bias)[channel + i];
        walk.template windows<Near>(token, at.row, channel, s, x);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float K[4][PN_DCONV_WIDTH];
            pn_dconv_taps_of(y, u, r, b, K);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float z = pn_dconv_sum_of(K[i], x[r], i);
                sum[u][r][i] = z * pn_quick_sigmoid(z);
            }
        }
    }
    /* Only now: what is stored cannot be told from what is loaded, and loads would wait. */
#pragma unroll
    for (int u = 0; u < C / 16; u++) {
        const int64_t channel = walk.channel0 + 16 * u + 4 * at.t;
#pragma unroll
        for (int r = 0; r < 2; r++)
            if (channel < v.channels && token + r < v.docs.tokens)
                pn_channels_put<pn_bf16, 4>(out + (token + r) * v.channels + channel, sum[u][r]);
    }
}

#endif

/* Blocks: along x the channels, C each; along y shares of the tokens. */
template <int C>
__global__ void __launch_bounds__(PN_DCONV_BOUNDS, 1)
    pn_dconv_convolve(const __grid_constant__ pn_dconv_cuda v, const __grid_constant__ pn_dconv_maps maps,
                      pn_bf16 *out) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) unsigned char memory[];
    const int64_t channel0 = (int64_t)blockIdx.x * C;
    const int tiles = (int)((v.docs.tokens + PN_DCONV_TILE - 1) / PN_DCONV_TILE);
    pn_dconv_tiles own = { {}, {}, (int)gridDim.y * PN_DCONV_GROUPS };
#pragma unroll
    for (int g = 0; g < PN_DCONV_GROUPS; g++) {
        own.first[g] = (int)blockIdx.y * PN_DCONV_GROUPS + g;
        own.count[g] = own.first[g] < tiles ? (tiles - own.first[g] + own.step - 1) / own.step : 0;
    }
    pn_dconv_begin<C>(v, memory);
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        pn_dconv_copy<C>(v, maps, own, memory, channel0);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        pn_dconv_walk<C> walk(v, own, memory, channel0);
        float *bias = (float *)(memory + pn_dconv_shared<C>{ walk.steps }.bias_at());
        const pn_dconv_place at(walk.id);
        float y[C / 2][4];
        walk.open(bias);
        for (int k = 0; k < own.rounds(); k++) {
            if (k >= own.of(walk.group)) {
                walk.skip();
                continue;
            }
            const int64_t token = (int64_t)walk.tile(k) * PN_DCONV_TILE + at.row;
            const int2 first = walk.ask_documents(token), second = walk.ask_documents(token + 1);
            walk.taps(k, y);
            walk.wait_values(k);
            if (__any_sync(~0u, walk.near(first) | walk.near(second)))
                pn_dconv_put_values<C, true>(walk, at, walk.tile(k), y, bias, out);
            else
                pn_dconv_put_values<C, false>(walk, at, walk.tile(k), y, bias, out);
            walk.release_values();
        }
        walk.finish();
    }
    pn_dconv_end();
#endif
}

#endif
