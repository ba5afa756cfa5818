/* dplr on CUDA: how a call becomes kernels (dplr_cuda.cuh). */
#include "dplr_cuda_chunk.cuh"

static size_t whole_pieces(size_t bytes) {
    return (bytes + 15) / 16 * 16;
}

/* Backward's p, dp and G, in this order, then the states that do not fit registers. */
typedef struct scratch_parts {
    size_t values, states, memory; /* bytes */
} scratch_parts;

static scratch_parts parts_of(const pn_op_call *c, bool backward) {
    const pn_dplr_attr *attr = (const pn_dplr_attr *)c->attr;
    const size_t width = pn_dtype_bytes(c->dtype), size = (size_t)attr->heads * attr->dk * attr->dv;
    const size_t chunks = (size_t)pn_docs_chunks(&attr->docs, attr->docs.n), docs = (size_t)attr->docs.n;
    scratch_parts p = {};
    if (!backward) return p;
    p.values = whole_pieces(width * (size_t)c->in[2]->shape[0] * attr->heads * attr->dv);
    p.states = whole_pieces(width * chunks * size);
    if (attr->dk > PN_DPLR_CUDA_ROWS) p.memory = sizeof(float) * size * (chunks > docs ? chunks : docs);
    return p;
}
static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    const scratch_parts p = parts_of(c, backward);
    return 2 * p.values + p.states + p.memory;
}

template <class T> static pn_status call_of(const pn_op_call *c, pn_dplr_cuda<T> *out) {
    const pn_dplr_attr *attr = (const pn_dplr_attr *)c->attr;
    *out = {};
    PN_TRY(pn_cuda_docs_stage(&attr->docs, &out->docs));
    out->heads = attr->heads;
    out->dk = attr->dk;
    out->dv = attr->dv;
    out->scale = (float)attr->scale;
    out->k = pn_values<T>(c->in[1]);
    out->v = pn_values<T>(c->in[2]);
    out->a = pn_values<T>(c->in[3]);
    out->b = pn_values<T>(c->in[4]);
    out->q = pn_values<T>(c->in[0]);
    out->g = pn_f32(c->in[5]);
    if (pn_tensor_elems(c->out[2]) > 0) out->states = pn_values<T>(c->out[2]);
    return PN_OK;
}

template <class T> static pn_status forward_as(const pn_op_call *c) {
    pn_dplr_cuda<T> x;
    PN_TRY(call_of(c, &x));
    x.S0 = pn_f32_or_null(c->in[6]);
    x.o = pn_values<T>(c->out[0]);
    x.S_T = pn_f32(c->out[1]);
    return pn_dplr_cuda_forward(&x);
}

static pn_status gradient(const pn_dplr_cuda<float> *x) {
    return pn_dplr_cuda_gradient(x);
}
static pn_status gradient(const pn_dplr_cuda<pn_bf16> *x) {
    return pn_dplr_cuda_tensor_takes(x->dk, x->dv) ? pn_dplr_cuda_gradient_tensor(x) : pn_dplr_cuda_gradient(x);
}

/* Takes the parts of scratch from *at on. */
template <class T> static pn_status backward_call_of(const pn_op_call *c, char **at, pn_dplr_cuda<T> *x) {
    PN_TRY(call_of(c, x));
    const scratch_parts parts = parts_of(c, true);
    x->dout = pn_values_or_null<T>(c->dout[0]);
    x->dS_T = pn_f32_or_null(c->dout[1]);
    x->dq = pn_values_or_null<T>(c->din[0]);
    x->d_k = pn_values_or_null<T>(c->din[1]);
    x->d_v = pn_values_or_null<T>(c->din[2]);
    x->da = pn_values_or_null<T>(c->din[3]);
    x->db = pn_values_or_null<T>(c->din[4]);
    x->dg = pn_f32_or_null(c->din[5]);
    x->dS0 = pn_f32_or_null(c->din[6]);
    x->p = (T *)*at, *at += parts.values;
    x->dp = (T *)*at, *at += parts.values;
    x->G = (T *)*at, *at += parts.states;
    x->memory = (float *)*at, *at += parts.memory;
    return PN_OK;
}
template <class T> static bool wants_gradient(const pn_dplr_cuda<T> *x) {
    return x->dq || x->d_k || x->da || x->db || x->dg;
}
template <class T> static pn_status backward_as(const pn_op_call *c) {
    pn_dplr_cuda<T> x;
    char *at = (char *)c->scratch;
    PN_TRY(backward_call_of(c, &at, &x));
    PN_TRY(pn_dplr_cuda_reverse(&x));
    if (!wants_gradient(&x)) return PN_OK;
    PN_TRY(pn_dplr_cuda_answers(&x));
    return gradient(&x);
}

/* Forward by chunks: scratch is what its kernels leave for each other, and the states where nobody keeps them. */
static size_t maps_bytes(const pn_op_call *c) {
    const pn_dplr_attr *attr = (const pn_dplr_attr *)c->attr;
    const size_t each = attr->dk == 64 ? sizeof(pn_dplr_maps<64>) : sizeof(pn_dplr_maps<128>);
    return each * (size_t)pn_docs_chunks(&attr->docs, attr->docs.n) * (size_t)attr->heads;
}
static size_t chunk_scratch_bytes(const pn_op_call *c, bool backward) {
    const pn_dplr_attr *attr = (const pn_dplr_attr *)c->attr;
    if (backward) return scratch_bytes(c, true) + maps_bytes(c);
    const int64_t states = pn_docs_chunks(&attr->docs, attr->docs.n) * attr->heads * attr->dk * attr->dv;
    return maps_bytes(c) + (pn_op_wants(c) ? 0 : (size_t)states * sizeof(pn_bf16));
}
static pn_status chunk_forward(const pn_op_call *c) {
    pn_dplr_cuda<pn_bf16> x;
    PN_TRY(call_of(c, &x));
    x.S0 = pn_f32_or_null(c->in[6]);
    x.o = pn_values<pn_bf16>(c->out[0]);
    x.S_T = pn_f32(c->out[1]);
    x.maps = c->scratch;
    if (!x.states) x.states = (pn_bf16 *)((char *)c->scratch + maps_bytes(c));
    PN_TRY(pn_dplr_cuda_maps(&x, false));
    PN_TRY(pn_dplr_cuda_scan(&x, false));
    return pn_dplr_cuda_apply(&x);
}
static pn_status chunk_backward(const pn_op_call *c) {
    if (!pn_op_has_din(c) || (!c->dout[0] && !c->dout[1])) return PN_OK;
    pn_dplr_cuda<pn_bf16> x;
    char *at = (char *)c->scratch;
    PN_TRY(backward_call_of(c, &at, &x));
    x.maps = at;
    PN_TRY(pn_dplr_cuda_maps(&x, true));
    PN_TRY(pn_dplr_cuda_scan(&x, true));
    PN_TRY(pn_dplr_cuda_inside(&x));
    return wants_gradient(&x) ? gradient(&x) : PN_OK;
}
/* A chunk costs the same however few tokens it has: many short documents are faster token by token. */
static bool chunk_takes(const pn_op_call *c) {
    const pn_dplr_attr *attr = (const pn_dplr_attr *)c->attr;
    return c->dtype == PN_BF16 && pn_dplr_cuda_chunk_takes(attr->dk, attr->dv) &&
           3 * pn_docs_tokens(&attr->docs) >= PN_CHUNK * pn_docs_chunks(&attr->docs, attr->docs.n);
}

static bool is_bf16(const pn_op_call *c) {
    return c->dtype == PN_BF16;
}
static pn_status forward(const pn_op_call *c) {
    return is_bf16(c) ? forward_as<pn_bf16>(c) : forward_as<float>(c);
}
static pn_status backward(const pn_op_call *c) {
    if (!pn_op_has_din(c) || (!c->dout[0] && !c->dout[1])) return PN_OK;
    return is_bf16(c) ? backward_as<pn_bf16>(c) : backward_as<float>(c);
}

static const pn_op_impl walk = {
    .name = "dplr/cuda-walk", .bf16 = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
static const pn_op_impl chunk = { .name = "dplr/cuda-chunk",
                                  .bf16 = true,
                                  .takes = chunk_takes,
                                  .scratch_bytes = chunk_scratch_bytes,
                                  .forward = chunk_forward,
                                  .backward = chunk_backward };
PN_CUDA_OP(dplr, &chunk, &walk)
