/* Softmax attention as graphs of cuDNN, which its fused engines take: BF16, heads of up to 256 channels. */
#ifndef PN_KERNELS_ATTENTION_GRAPH_CUDA_H
#define PN_KERNELS_ATTENTION_GRAPH_CUDA_H

#include "cuda/cudnn_cuda.h"

#ifdef PN_HAVE_CUDNN

/* What a plan depends on. Compared as bytes: made with memset first. */
typedef struct pn_attention_graph {
    int64_t docs, length; /* of each document; packed: of the longest, or more */
    int64_t heads, kv_heads, d;
    int64_t window; /* 0: none */
    bool packed;    /* documents differ in length and follow one another without a gap */
    bool backward;
    bool repeatable; /* backward: the same bits every time */
} pn_attention_graph;

/* The tensors of a graph, by which a run names them. [docs, heads, length, d] each, in the layouts of the op. Packed:
 * LENGTHS [docs] and the first element of every document, [docs + 1], in q and o, in k and v, and in lse. */
enum {
    PN_CUDNN_Q = 1,
    PN_CUDNN_K,
    PN_CUDNN_V,
    PN_CUDNN_O,
    PN_CUDNN_LSE,
    PN_CUDNN_DO,
    PN_CUDNN_DQ,
    PN_CUDNN_DK,
    PN_CUDNN_DV,
    PN_CUDNN_SCALE,  /* float of the host, as are those to WINDOW */
    PN_CUDNN_LOWEST, /* what no score is below */
    PN_CUDNN_ONE,
    PN_CUDNN_WINDOW, /* int32 */
    PN_CUDNN_LENGTHS,
    PN_CUDNN_Q_AT,
    PN_CUDNN_KV_AT,
    PN_CUDNN_LSE_AT,
    PN_CUDNN_DELTA,  /* float [docs, heads, length]: backward's own */
    PN_CUDNN_DQ_SUM, /* float, like dq: backward's own, unless repeatable */
};

/* *out: NULL where cuDNN has no plan, or is missing. */
pn_status pn_attention_cudnn_plan(const pn_attention_graph *x, size_t most_bytes, pn_cudnn_plan **out);
#endif

#endif
