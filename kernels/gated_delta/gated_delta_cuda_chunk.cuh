/* The two halves of forward on the device, and what one leaves for the other.
 *
 * In the notation of gated_delta_cpu.c, with A and P scaled by columns (beta) and P also by `scale`:
 *
 *     system, parallel over chunks and heads     X = (I + A)^-1 - I,  P,  e^L,  beta e^{L_C - L}
 *     sweep, one chunk after the other           R = V - e^L K S,  e = R + X R,  O = scale e^L Q S + P e,
 *                                                S = e^{L_C} S + (beta e^{L_C - L} K)^T e
 *
 * The ones on the inverse's diagonal are left out so that R enters e unrounded: rounding to bf16 then touches only what
 * tokens take from each other. X and P are lower triangular: of their 4 x 4 blocks of 16 x 16 elements the 10 on and
 * below the diagonal are kept, column after column of blocks, each as its four 8 x 8 matrices, row after row: what one
 * pn_load4() reads as a right operand, and wgmma with equal strides. A chunk shorter than 64 tokens is one whose
 * missing tokens have q, k, v, beta and g of zero. */
#ifndef PN_KERNELS_GATED_DELTA_CUDA_CHUNK_CUH
#define PN_KERNELS_GATED_DELTA_CUDA_CHUNK_CUH

#include "gated_delta_cuda.h"

enum { PN_DELTA_CHUNK = 64, PN_DELTA_BLOCKS = 10 };

struct pn_delta_packed {
    unsigned char X[PN_DELTA_BLOCKS][512], P[PN_DELTA_BLOCKS][512];
    float in[PN_DELTA_CHUNK];    /* e^{L_i} */
    float write[PN_DELTA_CHUNK]; /* beta_i e^{L_C - L_i} */
};

/* What backward's system leaves: A and P without beta, which its gradient needs apart. The reverse walk reads the first
 * part, the gradients of keys and scores all but X. */
struct pn_delta_packed_grad {
    unsigned char X[PN_DELTA_BLOCKS][512], P[PN_DELTA_BLOCKS][512];
    float in[PN_DELTA_CHUNK];   /* e^{L_i} */
    float out[PN_DELTA_CHUNK];  /* e^{L_C - L_i} */
    float beta[PN_DELTA_CHUNK]; /* 0 for missing tokens */
    unsigned char A[PN_DELTA_BLOCKS][512];
    float high[PN_DELTA_CHUNK], low[PN_DELTA_CHUNK]; /* L_i log2(e), in two floats */
};

/* Which block (i, j) is, j <= i. */
__host__ __device__ constexpr int pn_delta_block(int i, int j) {
    return j * (9 - j) / 2 + i - j;
}

/* Calls launch(integral constant dk) for the dk that kernels are built for. */
template <int Value> struct pn_constant { static constexpr int value = Value; };
template <class Launch> cudaError_t pn_delta_for_width(int dk, Launch launch) {
    switch (dk) {
    case 64: return launch(pn_constant<64>{});
    case 96: return launch(pn_constant<96>{});
    case 128: return launch(pn_constant<128>{});
    case 192: return launch(pn_constant<192>{});
    case 256: return launch(pn_constant<256>{});
    default: return cudaErrorInvalidValue;
    }
}

cudaError_t pn_delta_system_launch(const pn_gated_delta_cuda *c, cudaStream_t stream);
cudaError_t pn_delta_sweep_launch(const pn_gated_delta_cuda *c, cudaStream_t stream);

/* Bytes of shared memory that a block of the walks and of the gradients of keys needs (one of the system less). */
int pn_delta_sweep_shared(int dk);
int pn_delta_grad_sweep_shared(int dk);
int pn_delta_grad_keys_shared(int dk);

/* Backward's scratch and its three parts. */
struct pn_delta_grad_work {
    pn_delta_packed_grad *packed; /* [chunks, v_heads] */
    uint16_t *G;                  /* bf16, as states: the gradient of the state at each chunk's end */
    uint16_t *dR;                 /* bf16, as v: dL/dR = dL/dV */
    size_t bytes;
};
pn_delta_grad_work pn_delta_grad_work_at(void *scratch, int64_t tokens, int64_t chunks, int v_heads, int dk, int dv);
cudaError_t pn_delta_grad_system_launch(const pn_gated_delta_cuda *c, const pn_delta_grad_work *w, cudaStream_t stream);
cudaError_t pn_delta_grad_sweep_launch(const pn_gated_delta_cuda *c, const pn_gated_delta_cuda_grads *d,
                                       const pn_delta_grad_work *w, cudaStream_t stream);
cudaError_t pn_delta_grad_keys_launch(const pn_gated_delta_cuda *c, const pn_gated_delta_cuda_grads *d,
                                      const pn_delta_grad_work *w, cudaStream_t stream);

#endif
