#include "cuda/map.cuh"

#include "silu.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "silu/cuda";

struct value {
    __device__ float operator()(float x) const { return x * pn_cuda_sigmoid(x); }
};

struct gradient {
    __device__ float operator()(float x, float dy) const {
        float s = pn_cuda_sigmoid(x);
        return dy * s * (1 + x * (1 - s));
    }
};

} // namespace

static pn_status forward(const pn_op_call *c) {
    return pn_cuda_map<false>(name, pn_f32(c->out[0]), pn_tensor_elems(c->out[0]), value{}, pn_f32(c->in[0]));
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    return pn_cuda_map<true>(name, pn_f32(c->din[0]), pn_tensor_elems(c->dout[0]), gradient{}, pn_f32(c->in[0]),
                             pn_f32(c->dout[0]));
}

static const pn_op_impl impl = { .name = name, .forward = forward, .backward = backward };
PN_CUDA_OP(silu, &impl)
