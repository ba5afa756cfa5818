/* Forward by chunks in BF16 on tensor cores: what its three kernels leave for each other.
 *
 * In the notation of dplr_cpu.c a chunk solves (I - A B) P = (A K) V + (e^F A) S. The solution is a part that does not
 * know the state S at the chunk's start, U, and one that is a product with it, W S. So are the state at its end and its
 * outputs:
 *
 *     maps    parallel over chunks    W, U;  M = (e^{L_C - L} B)^T W            Y = (e^{L_C - L} K)^T V + (e^{L_C - L}
 * B)^T U Q' = scale (e^L Q + (Q B) W)       O = scale ((Q K) V + (Q B) U) scan    chunk after chunk       S <-
 * diag(e^{L_C}) S + M S + Y apply   parallel over chunks    O += Q' S
 *
 * Backward finds the gradient of the state at every chunk's end the same way, the other way round:
 *
 *     maps    M as above                Y = Q'^T dO
 *     scan    G <- diag(e^{L_C}) G + M^T G + Y
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

pn_status pn_dplr_cuda_maps(const pn_dplr_cuda<pn_bf16> *c, bool backward);
pn_status pn_dplr_cuda_scan(const pn_dplr_cuda<pn_bf16> *c, bool backward);
pn_status pn_dplr_cuda_apply(const pn_dplr_cuda<pn_bf16> *c);
/* dp and dv of every token from the G of its chunk, token by token. */
pn_status pn_dplr_cuda_reverse_chunks(const pn_dplr_cuda<pn_bf16> *c);

#endif
