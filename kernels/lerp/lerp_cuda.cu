/* Inputs may be one tensor, and so may their gradients: each gradient is a pass of its own. */
#include "cuda/map.cuh"

#include "lerp.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "lerp/cuda";

enum { A, B, W };

struct value {
    __device__ float operator()(float a, float b, float w) const { return a + w * (b - a); }
};
struct da {
    __device__ float operator()(float w, float dy) const { return (1 - w) * dy; }
};
struct db {
    __device__ float operator()(float w, float dy) const { return w * dy; }
};
struct dw {
    __device__ float operator()(float a, float b, float dy) const { return (b - a) * dy; }
};

} // namespace

static pn_status forward(const pn_op_call *c) {
    return pn_cuda_map<false>(name, pn_f32(c->out[0]), pn_tensor_elems(c->out[0]), value{}, pn_f32(c->in[A]),
                              pn_f32(c->in[B]), pn_f32(c->in[W]));
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const float *dy = pn_f32(c->dout[0]);
    int64_t n = pn_tensor_elems(c->dout[0]);
    if (c->din[A]) PN_TRY(pn_cuda_map<true>(name, pn_f32(c->din[A]), n, da{}, pn_f32(c->in[W]), dy));
    if (c->din[B]) PN_TRY(pn_cuda_map<true>(name, pn_f32(c->din[B]), n, db{}, pn_f32(c->in[W]), dy));
    if (c->din[W]) PN_TRY(pn_cuda_map<true>(name, pn_f32(c->din[W]), n, dw{}, pn_f32(c->in[A]), pn_f32(c->in[B]), dy));
    return PN_OK;
}

static const pn_op_impl impl = { .name = name, .forward = forward, .backward = backward };
PN_CUDA_OP(lerp, &impl)
