/* Forward: v = silu(sum over the window of taps and values), from taps in registers. */
#ifndef PN_KERNELS_DYNAMIC_CONV_CUDA_CONVOLVE_CUH
#define PN_KERNELS_DYNAMIC_CONV_CUDA_CONVOLVE_CUH

#include "dynamic_conv_cuda_taps.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <int C, bool Near>
static __device__ __forceinline__ void pn_dconv_put_values(const pn_dconv_walk<C> &walk, const pn_dconv_place &at,
                                                           int tile, const float (*y)[4], const float4 (*b)[4],
                                                           pn_bf16 *out) {
    const pn_dconv_cuda &v = walk.v;
    const int token = tile * PN_DCONV_TILE + at.row;
    int s[2] = {};
    if (Near) s[0] = pn_dconv_position(v.docs, token), s[1] = pn_dconv_position(v.docs, token + 1);
#pragma unroll
    for (int u = 0; u < C / 16; u++) {
        const int channel = 16 * u + 4 * at.t;
        float x[2][PN_DCONV_WIDTH][4];
        walk.template windows<Near>(token, at.row, channel, s, x);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float K[4][PN_DCONV_WIDTH], sum[4];
            pn_channels<pn_bf16, 4> values;
            pn_dconv_taps_of(y, u, r, b[u], K);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float z = pn_dconv_sum_of(K[i], x[r], i);
                sum[i] = z * pn_quick_sigmoid(z);
            }
            values.set(sum);
            if (walk.channel0 + channel < v.channels && token + r < v.docs.tokens)
                pn_dconv_put(out + (int64_t)(token + r) * v.channels + walk.channel0 + channel, values);
        }
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
    const int channel0 = (int)blockIdx.x * C;
    const int tiles = (int)((v.docs.tokens + PN_DCONV_TILE - 1) / PN_DCONV_TILE);
    const int first = (int)blockIdx.y, step = (int)gridDim.y;
    const pn_dconv_tiles own = { first, step, first < tiles ? (tiles - first + step - 1) / step : 0 };
    pn_dconv_begin<C>(v, memory);
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        pn_dconv_copy<C>(v, maps, own, memory, channel0);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        pn_dconv_walk<C> walk(v, own, memory, channel0);
        float4 bias[C / 16][4];
        const pn_dconv_place at(walk.id);
        float y[C / 2][4];
        walk.open(bias);
        for (int i = walk.group; i < own.count; i += PN_DCONV_GROUPS) {
            const int tile = own.tile(i);
            const int2 documents = walk.ask_documents(tile * PN_DCONV_TILE + at.row);
            walk.taps(i, y);
            walk.wait_values(i);
            if (__any_sync(~0u, pn_dconv_differ(documents)))
                pn_dconv_put_values<C, true>(walk, at, tile, y, bias, out);
            else
                pn_dconv_put_values<C, false>(walk, at, tile, y, bias, out);
            walk.release_values();
        }
    }
    pn_dconv_end();
#endif
}

#endif
