#include "attention_cuda_tile.cuh"

static pn_status integer(int64_t x, const char *what, int *out) {
    PN_CHECK(x <= INT32_MAX, PN_UNSUPPORTED, "attention: %lld %s: the GPU counts them in 31 bits", (long long)x, what);
    *out = (int)x;
    return PN_OK;
}

pn_status pn_attention_call_of(const pn_op_call *c, pn_attention_call *out) {
    const pn_attention_attr *a = (const pn_attention_attr *)c->attr;
    pn_cuda_docs docs;
    memset(out, 0, sizeof *out);
    PN_TRY(pn_cuda_docs_stage(&a->docs, &docs));
    PN_TRY(integer(docs.n, "documents", &out->docs));
    PN_TRY(integer(docs.tokens, "tokens", &out->tokens));
    PN_TRY(integer(docs.chunks, "chunks", &out->chunks));
    if (a->key_start) {
        PN_TRY(pn_cuda_staged_integers(a->key_start, docs.n, &out->key_start));
        PN_TRY(pn_cuda_staged_integers(a->key_len, docs.n, &out->key_len));
    }
    out->heads = a->heads;
    out->kv_heads = a->kv_heads;
    out->group = a->heads / a->kv_heads;
    out->d = a->head_dim;
    out->window = a->window <= INT32_MAX ? (int)a->window : 0; /* no document has as many keys */
    out->scale = (float)a->scale;
    out->key_rows = c->in[1]->shape[0];
    out->offset = docs.offset;
    out->chunk_doc = docs.chunk_doc;
    out->chunk_begin = docs.chunk_begin;
    out->doc = docs.doc;
    return PN_OK;
}

size_t pn_attention_scratch(const pn_op_call *c, bool backward) {
    const pn_attention_attr *a = (const pn_attention_attr *)c->attr;
    return backward ? sizeof(float) * (size_t)(c->in[0]->shape[0] * a->heads) : 0;
}

static size_t tiles_scratch(const pn_op_call *c, bool backward) {
    return backward ? pn_attention_scratch(c, backward) : pn_attention_tiles_forward_bytes(c);
}

/* Heads that have a tile, on a GPU whose blocks may have the shared memory for it. */
static bool tiles_take(const pn_op_call *c) {
    const pn_attention_attr *a = (const pn_attention_attr *)c->attr;
    int device, most;
    if (a->head_dim > 256 || cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess)
        return false;
    return pn_attention_tiles_shared_bytes(c) <= (size_t)most;
}

static const pn_op_impl tiles = { .name = "attention/cuda-tiles",
                                  .bf16 = true,
                                  .takes = tiles_take,
                                  .scratch_bytes = tiles_scratch,
                                  .forward = pn_attention_tiles_forward,
                                  .backward = pn_attention_tiles_backward };
PN_CUDA_OP(attention, &tiles, &pn_attention_cuda_rows)
