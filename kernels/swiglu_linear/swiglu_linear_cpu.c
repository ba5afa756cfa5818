#include "cpu/gemm.h"
#include "swiglu/swiglu_cpu.h"
#include "swiglu_linear.h"

/* Scratch: h; in backward dh, then h over it. */
static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    return !backward || pn_op_wants(c) ? (size_t)pn_tensor_elems(c->in[0]) * sizeof(float) : 0;
}

static pn_status forward(const pn_op_call *c) {
    const int64_t N = c->in[0]->shape[0], K = c->in[0]->shape[1], M = c->in[2]->shape[0];
    float *h = c->scratch;
    pn_swiglu_of(h, pn_f32(c->in[0]), pn_f32(c->in[1]), N * K);
    pn_sgemm(false, true, N, M, K, h, K, pn_f32(c->in[2]), K, 0, pn_f32(c->out[0]), M);
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !pn_op_has_din(c)) return PN_OK;
    const int64_t N = c->in[0]->shape[0], K = c->in[0]->shape[1], M = c->dout[0]->shape[1];
    const float *dy = pn_f32(c->dout[0]), *gate = pn_f32(c->in[0]);
    const float *up = c->din[0] || c->din[2] ? pn_f32(c->in[1]) : NULL;
    float *dgate = pn_f32_or_null(c->din[0]), *dup = pn_f32_or_null(c->din[1]), *dw = pn_f32_or_null(c->din[2]);
    float *h = c->scratch;
    if (dgate || dup) pn_sgemm(false, false, N, K, M, dy, M, pn_f32(c->in[2]), K, 0, h, K);
    pn_swiglu_gradients(dgate, dup, dw ? h : NULL, gate, up, h, N * K);
    if (dw) pn_sgemm(true, false, M, K, N, dy, M, h, K, 1, dw, K);
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = "swiglu_linear/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const swiglu_linear_cpu[];
const pn_op_impl *const swiglu_linear_cpu[] = { &impl, NULL };
