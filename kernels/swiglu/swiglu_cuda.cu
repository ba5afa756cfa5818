/* gate and up may be one tensor, and so may their gradients: each gradient is a pass of its own. */
#include "cuda/map.cuh"

#include "swiglu.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "swiglu/cuda";

struct value {
    __device__ float operator()(float gate, float up) const { return gate * pn_cuda_sigmoid(gate) * up; }
};

struct gate_gradient {
    __device__ float operator()(float gate, float up, float dy) const {
        float s = pn_cuda_sigmoid(gate);
        return dy * up * s * (1 + gate * (1 - s));
    }
};

} // namespace

static pn_status forward(const pn_op_call *c) {
    return pn_cuda_map<false>(name, pn_f32(c->out[0]), pn_tensor_elems(c->out[0]), value{}, pn_f32(c->in[0]),
                              pn_f32(c->in[1]));
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const float *gate = pn_f32(c->in[0]), *dy = pn_f32(c->dout[0]);
    int64_t n = pn_tensor_elems(c->dout[0]);
    if (c->din[0]) PN_TRY(pn_cuda_map<true>(name, pn_f32(c->din[0]), n, gate_gradient{}, gate, pn_f32(c->in[1]), dy));
    if (c->din[1]) PN_TRY(pn_cuda_map<true>(name, pn_f32(c->din[1]), n, value{}, gate, dy));
    return PN_OK;
}

static const pn_op_impl impl = { .name = name, .forward = forward, .backward = backward };
PN_CUDA_OP(swiglu, &impl)
