#include "cuda/map.cuh"

#include "add.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "add/cuda";

struct sum {
    __device__ float operator()(float a, float b) const { return a + b; }
};

template <class T> pn_status forward_of(const pn_op_call *c) {
    return pn_cuda_map<false>(name, pn_values<T>(c->out[0]), pn_tensor_elems(c->out[0]), sum{}, pn_values<T>(c->in[0]),
                              pn_values<T>(c->in[1]));
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    for (int k = 0; k < 2; k++) PN_TRY(pn_cuda_map_gradient<T>(name, c, k, pn_identity{}, pn_values<T>(c->dout[0])));
    return PN_OK;
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->out[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->dout[0] ? PN_CUDA_TYPED(c->dout[0], backward_of, c) : pn_cuda_zero_fresh(c);
}

static const pn_op_impl impl = { .name = name, .bf16 = true, .fresh = true, .forward = forward, .backward = backward };
PN_CUDA_OP(add, &impl)
