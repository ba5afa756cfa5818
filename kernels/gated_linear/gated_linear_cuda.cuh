/* What the CUDA implementations of gated_linear share: sizes and places of a call, and their names. */
#ifndef PN_KERNELS_GATED_LINEAR_CUDA_CUH
#define PN_KERNELS_GATED_LINEAR_CUDA_CUH

#include "cuda/element.cuh"

extern "C" {
#include "cuda/staged_cuda.h"
#include "gated_linear.h"
}

enum { PN_GLIN_CHUNK = PN_CHUNK };

/* A kernel's parameter: by value. */
struct pn_glin_sizes {
    pn_cuda_docs docs;
    int heads, q_share, k_share, v_share, g_share; /* heads, and heads per head of q, k, v, g */
    int dk, dv;
    int g_step; /* from key channel to key channel in g: 1, or 0 for a scalar gate */
    int64_t ldq, ldk, ldv, ldg, ldo;
    float scale;

    __host__ __device__ bool vector() const { return g_step != 0; }
    __host__ __device__ int64_t size() const { return (int64_t)dk * dv; } /* of a state */
    __device__ int64_t q_at(int64_t t, int j) const { return t * ldq + j / q_share * dk; }
    __device__ int64_t k_at(int64_t t, int j) const { return t * ldk + j / k_share * dk; }
    __device__ int64_t v_at(int64_t t, int j) const { return t * ldv + j / v_share * dv; }
    __device__ int64_t g_at(int64_t t, int j) const { return t * ldg + j / g_share * (g_step ? dk : 1); }
    __device__ int64_t o_at(int64_t t, int j) const { return t * ldo + (int64_t)j * dv; }
    /* The state of head j in a list of them by documents or chunks. */
    __device__ int64_t state_at(int64_t i, int j) const { return (i * heads + j) * size(); }
};

static inline pn_status pn_glin_sizes_of(const pn_op_call *c, pn_glin_sizes *out) {
    const pn_gated_linear_attr *a = (const pn_gated_linear_attr *)c->attr;
    int g_heads = c->in[3] ? a->g_heads : a->heads;
    bool vector = c->in[3] && a->vector_gate;
    *out = pn_glin_sizes{};
    out->heads = a->heads;
    out->q_share = a->heads / a->q_heads, out->k_share = a->heads / a->k_heads;
    out->v_share = a->heads / a->v_heads, out->g_share = a->heads / g_heads;
    out->dk = a->dk, out->dv = a->dv, out->g_step = vector;
    out->ldq = (int64_t)a->q_heads * a->dk, out->ldk = (int64_t)a->k_heads * a->dk;
    out->ldv = (int64_t)a->v_heads * a->dv, out->ldo = (int64_t)a->heads * a->dv;
    out->ldg = (int64_t)g_heads * (vector ? a->dk : 1);
    out->scale = (float)a->scale;
    return pn_cuda_docs_stage(&a->docs, &out->docs);
}

/* One chunk of one head: block number -> chunk * heads + head. */
struct pn_glin_place {
    int64_t chunk, first; /* its first token */
    int head, doc, n;     /* n: its tokens; 0 past the last chunk */
};
__device__ static inline pn_glin_place pn_glin_place_of(const pn_glin_sizes &s, int64_t block) {
    pn_glin_place p;
    p.chunk = block / s.heads, p.head = (int)(block % s.heads);
    p.doc = s.docs.chunk_doc[p.chunk], p.first = s.docs.chunk_begin[p.chunk];
    int64_t left = s.docs.offset[p.doc + 1] - p.first;
    p.n = left < PN_GLIN_CHUNK ? (int)left : (int)PN_GLIN_CHUNK;
    return p;
}

/* Forward token by token, any shape: gated_linear_cuda_step.cu. */
size_t pn_glin_cuda_step_scratch(const pn_op_call *c, bool backward);
pn_status pn_glin_cuda_step_forward(const pn_op_call *c);
/* Backward by chunks in float, any shape: gated_linear_cuda_backward.cu. */
size_t pn_glin_cuda_backward_scratch(const pn_op_call *c);
pn_status pn_glin_cuda_backward(const pn_op_call *c);
/* Both by chunks on tensor cores, in BF16: gated_linear_cuda_tensor.cu. */
extern const pn_op_impl pn_gated_linear_cuda_tensor;

/* y[i, x] = or += sum over r < share of part[i, r, x], x < width, in this order: what heads that share an input give
 * it. */
template <class P, class Y>
__global__ void __launch_bounds__(256)
    pn_glin_add_shared(const P *part, int64_t rows, int share, int width, bool add, Y *y) {
    int64_t step = (int64_t)gridDim.x * 256, n = rows * width;
    for (int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x; i < n; i += step) {
        int64_t row = i / width, x = i % width;
        float sum = 0;
        for (int r = 0; r < share; r++) sum += pn_load(part + (row * share + r) * width + x);
        pn_store(y + i, add ? __fadd_rn(pn_load(y + i), sum) : sum);
    }
}

#endif
