/* x is of the call's type, y too or F32 (attr: wide). */
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

template <class X, class Y> struct typed {
    static pn_status forward(const pn_op_call *c) {
        const pn_sigmoid_attr *attr = (const pn_sigmoid_attr *)c->attr;
        return pn_cuda_map<false>(name, pn_values<Y>(c->out[0]), pn_tensor_elems(c->out[0]),
                                  value{ (float)attr->scale }, pn_values<X>(c->in[0]));
    }
    static pn_status backward(const pn_op_call *c) {
        const pn_sigmoid_attr *attr = (const pn_sigmoid_attr *)c->attr;
        return pn_cuda_map_gradient<X>(name, c, 0, gradient{ (float)(1 / attr->scale) }, pn_values<Y>(c->out[0]),
                                       pn_values<Y>(c->dout[0]));
    }
};

} // namespace

static pn_status forward(const pn_op_call *c) {
    if (c->in[0]->dtype == PN_F32) return typed<float, float>::forward(c);
    return c->out[0]->dtype == PN_F32 ? typed<pn_bf16, float>::forward(c) : typed<pn_bf16, pn_bf16>::forward(c);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return pn_cuda_zero_fresh(c);
    if (!c->din[0]) return PN_OK;
    if (c->in[0]->dtype == PN_F32) return typed<float, float>::backward(c);
    return c->out[0]->dtype == PN_F32 ? typed<pn_bf16, float>::backward(c) : typed<pn_bf16, pn_bf16>::backward(c);
}

static const pn_op_impl impl = { .name = name, .bf16 = true, .fresh = true, .forward = forward, .backward = backward };
PN_CUDA_OP(sigmoid, &impl)
