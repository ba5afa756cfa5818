/* x is of the call's type, g is F32. */
#include "cuda/map.cuh"

#include "log_sigmoid.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "log_sigmoid/cuda";

/* scale logsigmoid(x), before the minimum. */
__device__ float unclamped(float x, float scale) {
    return scale * (fminf(x, 0) - log1pf(expf(-fabsf(x))));
}

struct value {
    float scale, min;
    __device__ float operator()(float x) const { return fmaxf(unclamped(x, scale), min); }
};
struct gradient {
    float scale, min;
    __device__ float operator()(float x, float dg) const {
        return unclamped(x, scale) >= min ? dg * scale * pn_cuda_sigmoid(-x) : 0;
    }
};

template <class T> pn_status forward_of(const pn_op_call *c) {
    const pn_log_sigmoid_attr *attr = (const pn_log_sigmoid_attr *)c->attr;
    return pn_cuda_map<false>(name, pn_f32(c->out[0]), pn_tensor_elems(c->out[0]),
                              value{ (float)attr->scale, (float)attr->min }, pn_values<T>(c->in[0]));
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    const pn_log_sigmoid_attr *attr = (const pn_log_sigmoid_attr *)c->attr;
    return pn_cuda_map_gradient<T>(name, c, 0, gradient{ (float)attr->scale, (float)attr->min }, pn_values<T>(c->in[0]),
                                   pn_f32(c->dout[0]));
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return pn_cuda_zero_fresh(c);
    return c->din[0] ? PN_CUDA_TYPED(c->in[0], backward_of, c) : PN_OK;
}

static const pn_op_impl impl = { .name = name, .bf16 = true, .fresh = true, .forward = forward, .backward = backward };
PN_CUDA_OP(log_sigmoid, &impl)
