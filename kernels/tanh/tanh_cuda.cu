#include "cuda/map.cuh"

#include "tanh.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "tanh/cuda";

struct value {
    __device__ float operator()(float x) const { return tanhf(x); }
};
struct gradient { /* from the output */
    __device__ float operator()(float y, float dy) const { return dy * (1 - y * y); }
};

template <class T> pn_status forward_of(const pn_op_call *c) {
    return pn_cuda_map<false>(name, pn_values<T>(c->out[0]), pn_tensor_elems(c->out[0]), value{},
                              pn_values<T>(c->in[0]));
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    return pn_cuda_map_gradient<T>(name, c, 0, gradient{}, pn_values<T>(c->out[0]), pn_values<T>(c->dout[0]));
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->out[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return pn_cuda_zero_fresh(c);
    return c->din[0] ? PN_CUDA_TYPED(c->dout[0], backward_of, c) : PN_OK;
}

static const pn_op_impl impl = { .name = name, .bf16 = true, .fresh = true, .forward = forward, .backward = backward };
PN_CUDA_OP(tanh, &impl)
