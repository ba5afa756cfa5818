/* What the CUDA implementations share: where the documents of a call are, and which keys a query sees. */
#ifndef PN_KERNELS_ATTENTION_CUDA_CUH
#define PN_KERNELS_ATTENTION_CUDA_CUH

#include "cuda/element.cuh"

extern "C" {
#include "attention_cuda.h"
#include "cuda/staged_cuda.h"
}

/* Passed to kernels by value. Query head h is head h % group of those that read key/value head h / group. */
struct pn_attention_call {
    int heads, kv_heads, group, d;
    int window; /* 0: none */
    float scale;
    int docs, tokens, chunks;
    int64_t key_rows;                   /* of k and v */
    const int32_t *offset;              /* [docs + 1] */
    const int32_t *key_start, *key_len; /* [docs]; NULL: a document's keys are its own tokens */
    const int32_t *chunk_doc, *chunk_begin;
    const int32_t *doc; /* [tokens] */
};

pn_status pn_attention_call_of(const pn_op_call *c, pn_attention_call *out);

struct pn_attention_part { /* a document: its rows in q and in k, v */
    int64_t query0, key0;
    int queries, keys;
};
__device__ static inline pn_attention_part pn_attention_part_at(const pn_attention_call &c, int doc) {
    int begin = c.offset[doc], n = c.offset[doc + 1] - begin;
    if (!c.key_start) return { begin, begin, n, n };
    return { begin, c.key_start[doc], n, c.key_len[doc] };
}
/* The first key that a query standing at key `position` sees. */
__device__ static inline int pn_attention_first(const pn_attention_call &c, int position) {
    return c.window && position >= c.window ? position - c.window + 1 : 0;
}

/* 2^x, to 2 units in the last place; 0 for minus infinity. Powers of e have log2(e) in their scale. */
__device__ static inline float pn_power_of_2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
static constexpr float PN_LOG2_E = 1.4426950408889634f, PN_LN_2 = 0.6931471805599453f;

/* Scratch of backward: delta [tokens, heads] = <do, o> of every query head, which all of its gradients need. */
size_t pn_attention_delta_bytes(const pn_op_call *c);

/* Of the tiles: shared memory of a block, scratch of forward. */
size_t pn_attention_tiles_shared_bytes(const pn_op_call *c);
size_t pn_attention_tiles_forward_bytes(const pn_op_call *c);

#endif
