/* The parts of dplr on CUDA, for any widths and decays.
 *
 * The columns of a state do not interact, and a chunk's start state stands for everything before it. Forward walks each
 * document token by token with a tile of columns of its state in registers. Backward is three kernels:
 *
 *     answers      every p again, all chunks at once, each from its saved state
 *     reverse      the gradient of the state back through each document: dp and dv of every token, and what it is at
 *                  every chunk's end
 *     gradient     dq, dk, da, db, dg of a chunk and head from these: sums over columns, and over pairs of its tokens
 *
 * (In BF16, heads of 64 x 64 and 128 x 128 go another way for all but decoding: dplr_cuda_chunk.cuh.)
 *
 * Decays of more than one token are products of those of single tokens, never quotients, and so exact to rounding
 * however strong they are. */
#ifndef PN_KERNELS_DPLR_DPLR_CUDA_CUH
#define PN_KERNELS_DPLR_DPLR_CUDA_CUH

#include "cuda/element.cuh"
#include "cuda/op_cuda.cuh"

extern "C" {
#include "cuda/staged_cuda.h"
#include "dplr.h"
}

/* A call, on the GPU. NULL: absent or not wanted. */
template <class T> struct pn_dplr_cuda {
    pn_cuda_docs docs;
    int heads, dk, dv;
    float scale;
    const T *q, *k, *v, *a, *b;
    const float *g, *S0;
    T *o, *states;
    float *S_T;
    /* backward */
    const T *dout;
    const float *dS_T;
    T *dq, *d_k, *d_v, *da, *db;
    float *dg, *dS0;
    T *p, *dp;     /* [tokens, heads * dv] */
    T *G;          /* [chunks, heads, dk, dv]: at every chunk's end */
    void *maps;    /* [chunks, heads] of pn_dplr_maps (dplr_cuda_chunk.cuh) */
    float *memory; /* states [documents or chunks, heads, dk, dv] of heads too high for registers */
};

enum { PN_DPLR_CUDA_ROWS = 256 }; /* of a state in registers, at most */

template <class T> pn_status pn_dplr_cuda_forward(const pn_dplr_cuda<T> *c);
template <class T> pn_status pn_dplr_cuda_answers(const pn_dplr_cuda<T> *c);
template <class T> pn_status pn_dplr_cuda_reverse(const pn_dplr_cuda<T> *c);
template <class T> pn_status pn_dplr_cuda_gradient(const pn_dplr_cuda<T> *c);

/* Lets a kernel's blocks have so many bytes, and as many of them as fit a multiprocessor, not the driver's guess. */
template <class Kernel> pn_status pn_dplr_cuda_share(Kernel kernel, size_t shared_bytes, const char *name) {
    PN_TRY(pn_cuda_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes),
                          name));
    return pn_cuda_status(
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        name);
}

/* The same in BF16 on tensor cores, for the head widths that it takes. */
bool pn_dplr_cuda_tensor_takes(int dk, int dv);
pn_status pn_dplr_cuda_gradient_tensor(const pn_dplr_cuda<pn_bf16> *c);

/* Four neighbouring elements of which the first n exist. Whole: all or none, aligned to their size. */
template <bool Whole> static __device__ __forceinline__ float4 pn_get4(const float *from, int n) {
    float4 y = make_float4(0, 0, 0, 0);
    if (Whole) {
        if (n > 0) y = *(const float4 *)from;
    } else {
        float *x = &y.x;
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < n) x[i] = from[i];
    }
    return y;
}
template <bool Whole> static __device__ __forceinline__ float4 pn_get4(const pn_bf16 *from, int n) {
    float4 y = make_float4(0, 0, 0, 0);
    if (Whole) {
        if (n > 0) {
            uint2 x = *(const uint2 *)from;
            y.x = __uint_as_float(x.x << 16), y.y = __uint_as_float(x.x & 0xffff0000u);
            y.z = __uint_as_float(x.y << 16), y.w = __uint_as_float(x.y & 0xffff0000u);
        }
    } else {
        float *x = &y.x;
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < n) x[i] = pn_load(from + i);
    }
    return y;
}
template <bool Whole> static __device__ __forceinline__ void pn_put4(float *to, float4 x, int n) {
    if (Whole) {
        if (n > 0) *(float4 *)to = x;
    } else {
        const float *from = &x.x;
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < n) to[i] = from[i];
    }
}
template <bool Whole> static __device__ __forceinline__ void pn_put4(pn_bf16 *to, float4 x, int n) {
    if (Whole) {
        if (n > 0) {
            __nv_bfloat162 pairs[2] = { __floats2bfloat162_rn(x.x, x.y), __floats2bfloat162_rn(x.z, x.w) };
            *(uint2 *)to = *(const uint2 *)pairs;
        }
    } else {
        const float *from = &x.x;
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < n) pn_store(to + i, from[i]);
    }
}

#endif
