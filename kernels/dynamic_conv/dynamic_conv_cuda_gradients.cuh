/* Backward as far as the values and p = dv silu'(y), from which the gradients of taps are one product each.
 *
 * Tiles are walked from the last to the first, so that what a tile's first three tokens owe to the values before them
 * is at hand when those are next: a warpgroup hands it over to the next one. A walk that does not begin at the end of
 * all tokens begins with the tile after its own for that. */
#ifndef PN_KERNELS_DYNAMIC_CONV_CUDA_GRADIENTS_CUH
#define PN_KERNELS_DYNAMIC_CONV_CUDA_GRADIENTS_CUH

#include "dynamic_conv_cuda_taps.cuh"

/* What it makes; NULL where it is not wanted. */
struct pn_dconv_gradients {
    const pn_bf16 *dv;
    pn_bf16 *dc;
    pn_bf16 *p; /* [tokens, V] */
    bool adds;  /* to dc; else it holds nothing yet */
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* What a thread knows of its tokens and channels of a tile; dc: from the tokens of its warp only. */
template <int C> struct pn_dconv_found {
    pn_channels<pn_bf16, 4> p[C / 16][2];
    float dc[C / 16][2][4];
};

static __device__ __forceinline__ void pn_dconv_put_owed(uint32_t at, const float x[4]) {
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(at), "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3]));
}

/* owed: of three tokens of C channels, what the warp's owe to those before. */
template <int C, bool Near>
static __device__ __forceinline__ void pn_dconv_find_gradients(const pn_dconv_walk<C> &walk, const pn_dconv_place &at,
                                                               int tile, const float (*y)[4], const float4 (*b)[4],
                                                               const pn_channels<pn_bf16, 4> (*dv)[2], uint32_t owed,
                                                               pn_dconv_found<C> *found) {
    const int token = tile * PN_DCONV_TILE + at.row;
    int s[2] = {};
    if (Near) s[0] = pn_dconv_position(walk.v.docs, token), s[1] = pn_dconv_position(walk.v.docs, token + 1);
#pragma unroll
    for (int u = 0; u < C / 16; u++) {
        const int channel = 16 * u + 4 * at.t;
        float x[2][PN_DCONV_WIDTH][4], K[2][4][PN_DCONV_WIDTH], p[2][4], first[4], second[4];
        walk.template windows<Near>(token, at.row, channel, s, x);
        pn_dconv_taps_of(y, u, 0, b[u], K[0]);
        pn_dconv_taps_of(y, u, 1, b[u], K[1]);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float from[2][PN_DCONV_WIDTH]; /* p K: to the value of tap w's token */
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const float sum = pn_dconv_sum_of(K[r][i], x[r], i), sig = pn_quick_sigmoid(sum);
                p[r][i] = dv[u][r][i] * sig * (1 + sum * (1 - sig));
#pragma unroll
                for (int w = 0; w < PN_DCONV_WIDTH; w++)
                    from[r][w] = !Near || s[r] + w >= PN_DCONV_BACK ? p[r][i] * K[r][i][w] : 0;
            }
            /* From the next thread's tokens, and from the first of the one after; from past the warp's end come what
             * its first ones owe to those before. */
            const float one = __shfl_sync(~0u, from[0][1] + from[1][0], (at.lane + 4) % 32);
            const float two = __shfl_sync(~0u, from[0][2] + from[1][1], (at.lane + 4) % 32);
            const float far = __shfl_sync(~0u, from[0][0], (at.lane + 8) % 32);
            found->dc[u][0][i] = from[0][3] + from[1][2] + (at.l < 7 ? one : 0);
            found->dc[u][1][i] = from[1][3] + (at.l < 7 ? two : 0) + (at.l < 6 ? far : 0);
            first[i] = one;                         /* to the second token before; */
            second[i] = at.l < 7 ? far : two + far; /* to the third, or the first */
        }
        found->p[u][0].set(p[0]);
        found->p[u][1].set(p[1]);
        if (at.l == 7) pn_dconv_put_owed(owed + (uint32_t)(C + channel) * 4, first);
        if (at.l >= 6) pn_dconv_put_owed(owed + (uint32_t)((at.l == 7 ? 2 * C : 0) + channel) * 4, second);
    }
}

/* Four channels of a token. */
static __device__ __forceinline__ void pn_dconv_put_dc(pn_bf16 *to, float x[4], bool adds) {
    if (adds) {
        const pn_channels<pn_bf16, 4> had = pn_channels_at<pn_bf16, 4>(to);
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = __fadd_rn(had[i], x[i]);
    }
    pn_channels<pn_bf16, 4> sum;
    sum.set(x);
    pn_dconv_put(to, sum);
}

/* p and dc of the tile. owed: what the next warp's tokens owe. */
template <int C>
static __device__ __forceinline__ void pn_dconv_put_gradients(const pn_dconv_walk<C> &walk, const pn_dconv_place &at,
                                                              int tile, const pn_dconv_gradients &g, const float *owed,
                                                              pn_dconv_found<C> *found) {
    const pn_dconv_cuda &v = walk.v;
    const int token = tile * PN_DCONV_TILE + at.row;
#pragma unroll
    for (int u = 0; u < C / 16; u++) {
        const int channel = 16 * u + 4 * at.t;
        if (at.l >= 6) {
            float4 more = *(const float4 *)(owed + (at.l == 7 ? 2 * C : 0) + channel);
            float *dc = found->dc[u][1];
            dc[0] += more.x, dc[1] += more.y, dc[2] += more.z, dc[3] += more.w;
            if (at.l == 7) {
                more = *(const float4 *)(owed + C + channel);
                dc = found->dc[u][0];
                dc[0] += more.x, dc[1] += more.y, dc[2] += more.z, dc[3] += more.w;
            }
        }
        if (walk.channel0 + channel >= v.channels) continue;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (token + r >= v.docs.tokens) continue;
            const int64_t to = (int64_t)(token + r) * v.channels + walk.channel0 + channel;
            if (g.p) pn_dconv_put(g.p + to, found->p[u][r]);
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
    const int channel0 = (int)blockIdx.x * C;
    const int tiles = (int)((v.docs.tokens + PN_DCONV_TILE - 1) / PN_DCONV_TILE);
    const int each = (tiles + (int)gridDim.y - 1) / (int)gridDim.y;
    const int low = min((int)blockIdx.y * each, tiles), high = min(low + each, tiles);
    const int first = low < high && high < tiles ? high : high - 1; /* the one after its own, where there is one */
    const pn_dconv_tiles own = { first, -1, first + 1 - low };
    pn_dconv_begin<C>(v, memory);
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        pn_dconv_copy<C>(v, maps, own, memory, channel0);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        pn_dconv_walk<C> walk(v, own, memory, channel0);
        const pn_dconv_shared<C> shared = { walk.steps };
        float4 bias[C / 16][4];
        /* What tokens owe to the three before a warp's: for every warpgroup, of warps 1, 2, 3, and of warp 0, which
         * the next one reads while this one may be about its next tile: twice. */
        constexpr int halo = PN_DCONV_BACK * C, halos = 5 * halo;
        float *all_owed = (float *)(memory + shared.halo_at()), *own_owed = all_owed + walk.group * halos;
        for (int i = walk.id; i < halos; i += 128) own_owed[i] = 0;
        const pn_dconv_place at(walk.id);
        float y[C / 2][4];
        walk.open(bias);
        for (int i = walk.group; i < own.count; i += PN_DCONV_GROUPS) {
            const int tile = own.tile(i), token = tile * PN_DCONV_TILE + at.row;
            const int2 documents = walk.ask_documents(token);
            pn_channels<pn_bf16, 4> dv[C / 16][2]; /* read ahead too */
#pragma unroll
            for (int u = 0; u < C / 16; u++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const int channel = channel0 + 16 * u + 4 * at.t;
                    dv[u][r] = pn_channels_zero<pn_bf16, 4>();
                    if (channel < v.channels && token + r < v.docs.tokens)
                        dv[u][r] = pn_channels_at<pn_bf16, 4>(g.dv + (int64_t)(token + r) * v.channels + channel);
                }
            walk.taps(i, y);
            walk.wait_values(i);
            const int odd = i / PN_DCONV_GROUPS % 2, odd_before = walk.group ? odd : 1 - odd;
            const uint32_t owed = pn_shared(own_owed + (at.warp ? at.warp : 4 * odd) * halo);
            pn_dconv_found<C> found;
            if (__any_sync(~0u, pn_dconv_differ(documents)))
                pn_dconv_find_gradients<C, true>(walk, at, tile, y, bias, dv, owed, &found);
            else
                pn_dconv_find_gradients<C, false>(walk, at, tile, y, bias, dv, owed, &found);
            walk.release_values();
            walk.hand_over(i);
            if (tile < high)
                pn_dconv_put_gradients<C>(walk, at, tile, g,
                                          at.warp < 3 ? own_owed + (at.warp + 1) * halo
                                                      : all_owed + walk.group_before() * halos + 4 * odd_before * halo,
                                          &found);
        }
    }
    pn_dconv_end();
#endif
}

#endif
