#include "cuda/map.cuh"

#include "sigmoid.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "sigmoid/cuda";

struct value {
    float scale;
    __device__ float operator()(float x) const { return scale * pn_cuda_sigmoid(x); }
};

struct gradient { /* from the output */
    float unscale;
    __device__ float operator()(float y, float dy) const { return dy * y * (1 - y * unscale); }
};

} // namespace

static pn_status forward(const pn_op_call *c) {
    const pn_sigmoid_attr *attr = (const pn_sigmoid_attr *)c->attr;
    return pn_cuda_map<false>(name, pn_f32(c->out[0]), pn_tensor_elems(c->out[0]), value{ (float)attr->scale },
                              pn_f32(c->in[0]));
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    const pn_sigmoid_attr *attr = (const pn_sigmoid_attr *)c->attr;
    return pn_cuda_map<true>(name, pn_f32(c->din[0]), pn_tensor_elems(c->dout[0]), gradient{ (float)(1 / attr->scale) },
                             pn_f32(c->out[0]), pn_f32(c->dout[0]));
}

static const pn_op_impl impl = { .name = name, .forward = forward, .backward = backward };
PN_CUDA_OP(sigmoid, &impl)
