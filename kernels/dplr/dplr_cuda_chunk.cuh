/* BF16 by chunks on tensor cores: what its kernels leave for each other.
 *
 * In the notation of dplr_cpu.c, with F = L - g and K', B' for e^{L_C - L} K, B, a chunk solves
 * (I - A B) P = (A K) V + (e^F A) S. The solution is a part that does not know the state S at the chunk's start, U, and
 * one that is a product with it, W S. So are the state at the chunk's end and its outputs:
 *
 *     maps    parallel over chunks    M = B'^T W                         Y = K'^T V + B'^T U
 *                                     Q' = scale (e^L Q + (Q B) W)       O = scale ((Q K) V + (Q B) U)
 *     scan    chunk after chunk       S <- diag(e^{L_C}) S + M S + Y
 *     apply   parallel over chunks    O += Q' S
 *
 * Backward finds the gradient G of the state at every chunk's end the same way, the other way round:
 *
 *     maps    parallel over chunks    M as above                         Y = Q'^T dO
 *     scan    chunk after chunk       G <- diag(e^{L_C}) G + M^T G + Y
 *     inside  parallel over chunks    P, dP, dV from S and G
 *
 * and goes on as without chunks (dplr_cuda_gradient_tensor.cu).
 *
 * Only the scan walks in time, with one product per chunk. Everything is transposed: a product's result is then the
 * left operand of the next as it lies in its registers.
 *
 * A matrix that is handed on as a right operand is kept as 16 x 16 blocks of bf16, row of blocks after row, each as its
 * four 8 x 8 matrices; one that is handed on as an accumulator, lane after lane. */
#ifndef PN_KERNELS_DPLR_DPLR_CUDA_CHUNK_CUH
#define PN_KERNELS_DPLR_DPLR_CUDA_CHUNK_CUH

#include "dplr_cuda.cuh"

enum { PN_DPLR_BLOCK = 512 }; /* bytes of a 16 x 16 block */

/* Of a chunk and head; D: dk and dv. */
template <int D> struct pn_dplr_maps {
    alignas(16) unsigned char M[D / 16][D / 16][PN_DPLR_BLOCK]; /* M^T: [column of M][row] */
    unsigned char Q[D / 16][PN_CHUNK / 16][PN_DPLR_BLOCK];      /* Q'^T: [key channel][token] */
    float4 Y[D / 16][D / 8][32];                                /* Y^T: 16 columns of values by 8 key channels */
    uint2 O[D / 16][PN_CHUNK / 8][32];                          /* O^T, bf16: 16 columns of values by 8 tokens */
    float through[D];                                           /* e^{L_C} */
};

/* Calls launch(integral constant D) for the widths that the kernels are built for: dk = dv = 64 or 128. */
template <int Value> struct pn_dplr_constant { static constexpr int value = Value; };
template <class Launch> pn_status pn_dplr_for_width(int d, Launch launch) {
    return d == 64 ? launch(pn_dplr_constant<64>{}) : launch(pn_dplr_constant<128>{});
}

bool pn_dplr_cuda_chunk_takes(int dk, int dv); /* with this GPU's shared memory */
pn_status pn_dplr_cuda_maps(const pn_dplr_cuda<pn_bf16> *c, bool backward);
pn_status pn_dplr_cuda_scan(const pn_dplr_cuda<pn_bf16> *c, bool backward);
pn_status pn_dplr_cuda_apply(const pn_dplr_cuda<pn_bf16> *c);
/* p, dp and dv of every token, from the states and G of its chunk. */
pn_status pn_dplr_cuda_inside(const pn_dplr_cuda<pn_bf16> *c);

#endif
