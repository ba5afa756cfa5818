/* The op on the device: which kernels take a call, and the call as they see it (gated_delta_cuda.h). */
#include "gated_delta_cuda.h"

#include "cuda/element.cuh"

extern "C" {
#include "cuda/staged_cuda.h"
#include "gated_delta.h"
}

/* What is known without the documents' tables. */
static pn_gated_delta_cuda sizes_of(const pn_op_call *c) {
    const pn_gated_delta_attr *a = (const pn_gated_delta_attr *)c->attr;
    pn_gated_delta_cuda x = {};
    x.tokens = c->in[0]->shape[0];
    x.docs = a->docs.n;
    x.chunks = pn_docs_chunks(&a->docs, a->docs.n);
    x.heads = a->heads, x.v_heads = a->v_heads, x.dk = a->dk, x.dv = a->dv;
    x.scale = (float)a->scale;
    x.f32 = c->dtype == PN_F32;
    return x;
}

static const void *data_or_null(const pn_tensor *t) {
    return t && pn_tensor_elems(t) > 0 ? pn_data(t) : NULL;
}

static pn_status call_of(const pn_op_call *c, pn_gated_delta_cuda *x) {
    const pn_gated_delta_attr *a = (const pn_gated_delta_attr *)c->attr;
    pn_cuda_docs docs;
    PN_TRY(pn_cuda_docs_stage(&a->docs, &docs));
    *x = sizes_of(c);
    x->offset = docs.offset, x->chunk = docs.first_chunk;
    x->chunk_doc = docs.chunk_doc, x->chunk_begin = docs.chunk_begin;
    x->q = pn_data(c->in[0]), x->k = pn_data(c->in[1]);
    x->g = pn_values_or_null<float>(c->in[3]), x->beta = pn_values<float>(c->in[4]);
    x->scratch = c->scratch;
    return PN_OK;
}

typedef cudaError_t forward_of(const pn_gated_delta_cuda *x, cudaStream_t stream);
static pn_status forward(const pn_op_call *c, const char *name, forward_of *run) {
    pn_gated_delta_cuda x;
    PN_TRY(call_of(c, &x));
    x.v = pn_data(c->in[2]);
    x.S0 = c->n_in > 5 ? pn_values_or_null<float>(c->in[5]) : NULL;
    x.o = pn_data(c->out[0]);
    x.S_T = pn_values<float>(c->out[1]);
    x.states = (void *)data_or_null(c->out[2]);
    x.e = (void *)data_or_null(c->out[3]);
    return pn_cuda_status(run(&x, pn_cuda_stream()), name);
}

template <class T> static T *grad_or_null(const pn_op_call *c, int i) {
    return i < c->n_in && c->din[i] ? (T *)pn_data(c->din[i]) : NULL;
}

typedef cudaError_t backward_of(const pn_gated_delta_cuda *x, const pn_gated_delta_cuda_grads *d, cudaStream_t stream);
static pn_status backward(const pn_op_call *c, const char *name, backward_of *run) {
    if (!pn_op_has_din(c) || (!c->dout[0] && !c->dout[1] && !c->fresh)) return PN_OK;
    pn_gated_delta_cuda x;
    PN_TRY(call_of(c, &x));
    x.states = pn_data(c->out[2]);
    x.e = pn_data(c->out[3]);
    pn_gated_delta_cuda_grads d = {};
    d.dO = data_or_null(c->dout[0]);
    d.dS_T = pn_values_or_null<float>(c->dout[1]);
    d.dq = grad_or_null<void>(c, 0), d.dk = grad_or_null<void>(c, 1), d.dv = grad_or_null<void>(c, 2);
    d.fresh = c->fresh;
    d.dg = grad_or_null<float>(c, 3), d.dbeta = grad_or_null<float>(c, 4), d.dS0 = grad_or_null<float>(c, 5);
    return pn_cuda_status(run(&x, &d, pn_cuda_stream()), name);
}

/* ---- by chunks, on tensor cores ---- */

static const char chunk_name[] = "gated_delta/cuda-chunk";

static bool has_shared(int dk, bool backward_pass) {
    return (size_t)pn_gated_delta_cuda_shared(dk, backward_pass) <= pn_cuda_shared_most();
}
static bool chunk_takes(const pn_op_call *c) {
    const pn_gated_delta_attr *a = (const pn_gated_delta_attr *)c->attr;
    return c->dtype == PN_BF16 && pn_gated_delta_cuda_takes(a->dk, a->dv) && has_shared(a->dk, false);
}
static bool chunk_takes_backward(const pn_op_call *c) {
    const pn_gated_delta_attr *a = (const pn_gated_delta_attr *)c->attr;
    return has_shared(a->dk, true);
}
static size_t general_scratch(const pn_op_call *c, bool backward_pass) {
    const pn_gated_delta_cuda x = sizes_of(c);
    return backward_pass ? pn_gated_delta_cuda_general_scratch(x.tokens, x.chunks, x.v_heads, x.dk, x.dv) : 0;
}
static size_t chunk_scratch(const pn_op_call *c, bool backward_pass) {
    const pn_gated_delta_cuda x = sizes_of(c);
    if (!backward_pass) return pn_gated_delta_cuda_scratch(x.chunks, x.v_heads);
    if (!chunk_takes_backward(c)) return general_scratch(c, true);
    return pn_gated_delta_cuda_backward_scratch(x.tokens, x.chunks, x.v_heads, x.dk, x.dv);
}
static pn_status chunk_forward(const pn_op_call *c) {
    return forward(c, chunk_name, pn_gated_delta_cuda_forward);
}
static pn_status chunk_backward(const pn_op_call *c) {
    return backward(c, chunk_name,
                    chunk_takes_backward(c) ? pn_gated_delta_cuda_backward : pn_gated_delta_cuda_general_backward);
}
static const pn_op_impl chunk = { .name = chunk_name,
                                  .bf16 = true,
                                  .fresh = true,
                                  .takes = chunk_takes,
                                  .scratch_bytes = chunk_scratch,
                                  .forward = chunk_forward,
                                  .backward = chunk_backward };

/* ---- token by token, for any call; decoding ---- */

static const char step_name[] = "gated_delta/cuda-step", general_name[] = "gated_delta/cuda";

static bool step_takes(const pn_op_call *c) {
    const pn_gated_delta_attr *a = (const pn_gated_delta_attr *)c->attr;
    return !pn_op_wants(c) && pn_docs_one_each(&a->docs);
}
static pn_status step_forward(const pn_op_call *c) {
    return forward(c, step_name, pn_gated_delta_cuda_step);
}
static const pn_op_impl step = { .name = step_name,
                                 .bf16 = true,
                                 .renews = true,
                                 .renewed_in = 5,
                                 .renewed_out = 1,
                                 .takes = step_takes,
                                 .forward = step_forward };

static pn_status general_forward(const pn_op_call *c) {
    return forward(c, general_name, pn_gated_delta_cuda_step);
}
static pn_status general_backward(const pn_op_call *c) {
    return backward(c, general_name, pn_gated_delta_cuda_general_backward);
}
static const pn_op_impl general = { .name = general_name,
                                    .bf16 = true,
                                    .fresh = true,
                                    .scratch_bytes = general_scratch,
                                    .forward = general_forward,
                                    .backward = general_backward };

PN_CUDA_OP(gated_delta, &step, &chunk, &general)
