/* The calls that tensor cores take, from first to last kernel. */
#include "gated_linear_cuda_keys.cuh"

#include "cuda/map.cuh"

static const char name[] = "gated_linear/cuda-tensor";

/* Rows are of whole 16-byte pieces throughout. */
static bool takes(const pn_op_call *c) {
    const pn_gated_linear_attr *a = (const pn_gated_linear_attr *)c->attr;
    return c->dtype == PN_BF16 && a->dk % 8 == 0 && a->dv % 8 == 0 && a->dk <= PN_GLIN_MOST_DK &&
           pn_cuda_shared_most() >= PN_GLIN_MOST_SHARED;
}

/* Bytes of scratch from its start. */
struct layout {
    size_t gates, Qpre, Ksuf, A, block, states, dq, dk, dv, dg, end;
};
static layout layout_of(const pn_op_call *c, bool backward) {
    const pn_gated_linear_attr *a = (const pn_gated_linear_attr *)c->attr;
    const bool vector = c->in[3] && a->vector_gate;
    const size_t tokens = (size_t)c->in[0]->shape[0], heads = (size_t)a->heads, dk = (size_t)a->dk, dv = (size_t)a->dv;
    const size_t blocks = (size_t)pn_docs_chunks(&a->docs, a->docs.n) * heads, C = PN_GLIN_CHUNK;
    layout l = {};
    auto take = [&](size_t n_bytes) {
        size_t at = l.end;
        l.end += (n_bytes + 255) / 256 * 256;
        return at;
    };
    l.gates = take(vector ? 0 : blocks * sizeof(pn_glin_gates));
    l.Qpre = take(vector ? 2 * blocks * C * dk : 0);
    l.Ksuf = take(vector ? 2 * blocks * C * dk : 0);
    l.A = take(vector ? 2 * blocks * C * C : 0);
    l.block = take(vector ? 4 * blocks * PN_GLIN_BLOCKS * dk : 0);
    if (backward || !pn_op_wants(c)) l.states = take(2 * blocks * dk * dv);
    if (!backward) return l;
    const int g_heads = c->in[3] ? a->g_heads : a->heads;
    l.dq = take(a->q_heads < a->heads ? 2 * tokens * heads * dk : 0);
    l.dk = take(a->k_heads < a->heads ? 2 * tokens * heads * dk : 0);
    l.dv = take(a->v_heads < a->heads ? 2 * tokens * heads * dv : 0);
    l.dg = take(!vector ? 4 * tokens * heads * (dk + 63) / 64 : g_heads < a->heads ? 4 * tokens * heads * dk : 0);
    return l;
}
static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    return layout_of(c, backward).end;
}

static pn_status call_of(const pn_op_call *c, const layout &l, pn_glin_tensor *x) {
    *x = pn_glin_tensor{};
    PN_TRY(pn_glin_sizes_of(c, &x->s));
    unsigned char *scratch = (unsigned char *)c->scratch;
    x->q = pn_values<pn_bf16>(c->in[0]), x->k = pn_values<pn_bf16>(c->in[1]), x->v = pn_values<pn_bf16>(c->in[2]);
    x->g = pn_f32_or_null(c->in[3]);
    pn_glin_tensor_split(x);
    x->gates = (pn_glin_gates *)(scratch + l.gates);
    x->Qpre = (pn_bf16 *)(scratch + l.Qpre), x->Ksuf = (pn_bf16 *)(scratch + l.Ksuf);
    x->A = (pn_bf16 *)(scratch + l.A);
    x->block = (float *)(scratch + l.block);
    return PN_OK;
}

static pn_status forward(const pn_op_call *c) {
    layout l = layout_of(c, false);
    pn_glin_tensor x;
    PN_TRY(call_of(c, l, &x));
    x.S0 = pn_f32_or_null(c->in[4]);
    x.o = pn_values<pn_bf16>(c->out[0]);
    x.S_T = pn_f32(c->out[1]);
    x.S = pn_op_wants(c) ? pn_values<pn_bf16>(c->out[2]) : (pn_bf16 *)((unsigned char *)c->scratch + l.states);
    PN_TRY(x.s.vector() ? pn_glin_tensor_prepare(x) : pn_glin_tensor_gates(x));
    PN_TRY(pn_glin_tensor_sweep(x, false));
    return pn_glin_tensor_output(x, false);
}

/* Where the gradients of heads go of which `share` share each head of input i, and the sum over these. */
static pn_glin_share share_of(const pn_op_call *c, int i, int share, int64_t ld, void *part) {
    if (!c->din[i]) return { nullptr, false, 0 };
    if (share == 1) return { pn_values<pn_bf16>(c->din[i]), pn_op_adds(c, i), ld };
    return { (pn_bf16 *)part, false, ld };
}
template <class T>
static pn_status add_shared(const pn_op_call *c, int i, const T *part, int64_t rows, int share, int width) {
    if (rows == 0) return PN_OK;
    pn_glin_add_shared<<<pn_map_grid(rows * width), 256, 0, pn_cuda_stream()>>>(
        part, rows, share, width, pn_op_adds(c, i), pn_values<T>(c->din[i]));
    return pn_cuda_launched(name);
}
static pn_status add_shared_heads(const pn_op_call *c, int i, const pn_glin_share &from, int heads, int share,
                                  int width) {
    if (!from.to || share == 1) return PN_OK;
    return add_shared(c, i, from.to, c->in[0]->shape[0] * (heads / share), share, width);
}

static pn_status backward(const pn_op_call *c) {
    if (!pn_op_has_din(c)) return PN_OK;
    layout l = layout_of(c, true);
    unsigned char *scratch = (unsigned char *)c->scratch;
    pn_glin_tensor x;
    PN_TRY(call_of(c, l, &x));
    const pn_glin_sizes &s = x.s;
    x.S = pn_values<pn_bf16>(c->out[2]);
    x.G = (pn_bf16 *)(scratch + l.states);
    x.dO = pn_values_or_null<pn_bf16>(c->dout[0]);
    x.dS_T = pn_f32_or_null(c->dout[1]);
    x.dS0 = pn_f32_or_null(c->din[4]), x.dS0_add = pn_op_adds(c, 4);
    const int groups = s.heads / x.group, q_share = s.q_share / x.group, k_share = s.k_share / x.group;
    x.dg_tiles = (s.dk + x.key_channels - 1) / x.key_channels;
    x.dq = share_of(c, 0, q_share, (int64_t)groups * s.dk, scratch + l.dq);
    x.dk = share_of(c, 1, k_share, (int64_t)groups * s.dk, scratch + l.dk);
    x.dv = share_of(c, 2, s.v_share, (int64_t)s.heads * s.dv, scratch + l.dv);
    const bool own_dg = s.vector() && s.g_share == 1; /* nothing is left to be added up */
    if (c->din[3]) x.dg = own_dg ? pn_f32(c->din[3]) : (float *)(scratch + l.dg);
    x.dg_add = own_dg && pn_op_adds(c, 3);

    PN_TRY(s.vector() ? pn_glin_tensor_prepare(x) : pn_glin_tensor_gates(x));
    PN_TRY(pn_glin_tensor_sweep(x, true));
    if (x.dv.to) PN_TRY(pn_glin_tensor_output(x, true));
    if (x.dq.to || x.dk.to || x.dg) PN_TRY(s.vector() ? pn_glin_tensor_keys_vector(x) : pn_glin_tensor_keys_scalar(x));
    PN_TRY(add_shared_heads(c, 0, x.dq, groups, q_share, s.dk));
    PN_TRY(add_shared_heads(c, 1, x.dk, groups, k_share, s.dk));
    PN_TRY(add_shared_heads(c, 2, x.dv, s.heads, s.v_share, s.dv));
    if (!x.dg || own_dg) return PN_OK;
    const int parts = s.vector() ? s.g_share : s.g_share * x.dg_tiles, width = s.vector() ? s.dk : 1;
    return add_shared(c, 3, x.dg, s.docs.tokens * (s.heads / s.g_share), parts, width);
}

extern const pn_op_impl pn_gated_linear_cuda_tensor = { .name = name,
                                                        .bf16 = true,
                                                        .fresh = true,
                                                        .takes = takes,
                                                        .scratch_bytes = scratch_bytes,
                                                        .forward = forward,
                                                        .backward = backward };
