/* The gated delta rule on the device (contract: gated_delta.h): bf16 operands, fp32 gates and state.
 *
 * Everything a launch needs is a device pointer or a number, nothing is allocated and nothing synchronises, so a call
 * can be captured in a graph: a replay sees other documents when the offsets it points to have changed, as long as
 * there are no more documents and chunks than the call said. Results do not depend on the launch (bit equal). */
#ifndef PN_KERNELS_GATED_DELTA_CUDA_H
#define PN_KERNELS_GATED_DELTA_CUDA_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Device pointers, 16-byte aligned, tensors dense and laid out as gated_delta.h says. */
typedef struct pn_gated_delta_cuda {
    const void *q, *k, *v; /* bf16 */
    const float *g, *beta; /* g NULL: no decay */
    const float *S0;       /* NULL: zero */
    void *o;               /* bf16 */
    float *S_T;            /* may be S0; NULL: not wanted */
    void *states;          /* bf16: the state as the products of a chunk saw it; NULL: not wanted */
    void *e;               /* bf16; NULL: not wanted */
    void *scratch;         /* as many bytes as the function's own ..._scratch() says */
    const int32_t *offset; /* [docs + 1] as pn_docs */
    const int32_t *chunk;  /* [docs + 1] chunks of 64 tokens before each document, as pn_docs_chunks() */
    const int32_t *chunk_doc, *chunk_begin; /* [chunks] document and first token of each chunk */
    int64_t tokens, docs, chunks; /* at most this many; documents past the last are empty; chunks * v_heads < 2^31 */
    int heads, v_heads, dk, dv;
    float scale;
    bool f32; /* what is said to be bf16 is float: not for the chunkwise kernels */
} pn_gated_delta_cuda;

/* Of backward, which reads q, k, g, beta, states and e of a call. */
enum {
    PN_FRESH_DQ = 1,
    PN_FRESH_DK = 2,
    PN_FRESH_DV = 4,
    PN_FRESH_DG = 8,
    PN_FRESH_DBETA = 16,
    PN_FRESH_DS0 = 32 /* the op's inputs in their order, as pn_op_call.fresh */
};
typedef struct pn_gated_delta_cuda_grads {
    const void *dO;          /* bf16; NULL: zero */
    const float *dS_T;       /* NULL: zero */
    void *dq, *dk, *dv;      /* bf16, added to; NULL, here and below: not wanted */
    float *dg, *dbeta, *dS0; /* added to */
    uint32_t fresh;          /* PN_FRESH_...: undefined and to be written */
} pn_gated_delta_cuda_grads;

/* Whether the chunkwise kernels take these head widths: dk one of 64, 96, 128, 192, 256, dv a multiple of 8. (With
 * narrower keys tokens share more of them, and rounding to bf16 inside a chunk would pass the limits.) */
bool pn_gated_delta_cuda_takes(int dk, int dv);
/* Bytes of shared memory that the largest block of a direction needs, for widths that are taken. */
int pn_gated_delta_cuda_shared(int dk, bool backward);
size_t pn_gated_delta_cuda_scratch(int64_t chunks, int v_heads);
/* Forward by chunks. cudaErrorInvalidValue for widths that are not taken and for float; otherwise what the launches
 * said. */
cudaError_t pn_gated_delta_cuda_forward(const pn_gated_delta_cuda *c, cudaStream_t stream);
/* Forward token by token, state in registers: decoding, and widths that the chunkwise kernels do not take. 1 <= dk <=
 * 256, any dv >= 1. Needs no scratch, and `chunk` only for `states`. */
cudaError_t pn_gated_delta_cuda_step(const pn_gated_delta_cuda *c, cudaStream_t stream);

/* Backward by chunks, for the same widths. */
size_t pn_gated_delta_cuda_backward_scratch(int64_t tokens, int64_t chunks, int v_heads, int dk, int dv);
cudaError_t pn_gated_delta_cuda_backward(const pn_gated_delta_cuda *c, const pn_gated_delta_cuda_grads *d,
                                         cudaStream_t stream);
/* Backward in float for any width and both types: correct first, without tensor cores. */
size_t pn_gated_delta_cuda_general_scratch(int64_t tokens, int64_t chunks, int v_heads, int dk, int dv);
cudaError_t pn_gated_delta_cuda_general_backward(const pn_gated_delta_cuda *c, const pn_gated_delta_cuda_grads *d,
                                                 cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
