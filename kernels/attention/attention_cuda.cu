#include "attention_cuda_tile.cuh"
#include "attention_own.h"
#include "cuda/cudnn_cuda.h"

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

bool pn_attention_has_gradient(const pn_op_call *c) {
    return c->dout[0] && c->in[0]->shape[0] > 0 && pn_op_has_din(c);
}
pn_status pn_attention_no_gradient(const pn_op_call *c) {
    for (int i = 0; i < c->n_in; i++)
        if (c->din[i] && !pn_op_adds(c, i)) PN_TRY(pn_tensor_fill_zero(c->din[i]));
    return PN_OK;
}

size_t pn_attention_tiles_scratch(const pn_op_call *c, bool backward) {
    return backward ? pn_attention_delta_bytes(c) : pn_attention_tiles_forward_bytes(c);
}

/* On a GPU whose blocks may have the shared memory. The largest product must be the largest score. */
bool pn_attention_tiles_take(const pn_op_call *c) {
    const pn_attention_attr *a = (const pn_attention_attr *)c->attr;
    return a->head_dim <= 256 && (float)a->scale > 0 && pn_attention_tiles_shared_bytes(c) <= pn_cuda_shared_most();
}

static __global__ void __launch_bounds__(256)
    add_vectors(pn_vector<pn_bf16> *to, const pn_vector<pn_bf16> *from, int64_t n) {
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= n) return;
    pn_vector<pn_bf16> x = to[i], y = from[i];
    for (int k = 0; k < pn_vector<pn_bf16>::n; k++) pn_store(&x.x[k], pn_load(&x.x[k]) + pn_load(&y.x[k]));
    to[i] = x;
}

pn_status pn_attention_add(const char *name, void *to, const void *from, int64_t n) {
    typedef pn_vector<pn_bf16> vector;
    PN_ASSERT(n % vector::n == 0 && ((uintptr_t)to | (uintptr_t)from) % sizeof(vector) == 0);
    if (n == 0) return PN_OK;
    add_vectors<<<pn_cuda_blocks(n / vector::n, 256), 256, 0, pn_cuda_stream()>>>((vector *)to, (const vector *)from,
                                                                                  n / vector::n);
    return pn_cuda_launched(name);
}

#ifdef PN_HAVE_CUDNN
#define TILES_TAKE pn_attention_tiles_take
#else
/* First in the list, so it is asked about every call. */
static bool take_and_say(const pn_op_call *c) {
    pn_attention_own_say(c, pn_attention_own_reason(c, false));
    return pn_attention_tiles_take(c);
}
#define TILES_TAKE take_and_say
#endif

static const pn_op_impl tiles = { .name = "attention/cuda-tiles",
                                  .bf16 = true,
                                  .fresh = true,
                                  .takes = TILES_TAKE,
                                  .scratch_bytes = pn_attention_tiles_scratch,
                                  .forward = pn_attention_tiles_forward,
                                  .backward = pn_attention_tiles_backward };
#ifdef PN_HAVE_CUDNN
PN_CUDA_OP(attention, &pn_attention_cudnn, &tiles, &pn_attention_cuda_rows)
#else
PN_CUDA_OP(attention, &tiles, &pn_attention_cuda_rows)
#endif
