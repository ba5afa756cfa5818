#include "swiglu_cuda.cuh"

#include "swiglu.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "swiglu/cuda";

template <class T> pn_status forward_of(const pn_op_call *c) {
    return pn_cuda_swiglu(name, pn_values<T>(c->out[0]), pn_values<T>(c->in[0]), pn_values<T>(c->in[1]),
                          pn_tensor_elems(c->out[0]));
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    const pn_swiglu_operands<T> o = { pn_values<T>(c->in[0]),    c->din[0] ? pn_values<T>(c->in[1]) : NULL,
                                      pn_values<T>(c->dout[0]),  pn_cuda_gradient<T>(c, 0),
                                      pn_cuda_gradient<T>(c, 1), NULL };
    return pn_cuda_swiglu_gradients(name, o, pn_tensor_elems(c->dout[0]));
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->out[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->dout[0] ? PN_CUDA_TYPED(c->dout[0], backward_of, c) : pn_cuda_zero_fresh(c);
}

static const pn_op_impl impl = { .name = name, .bf16 = true, .fresh = true, .forward = forward, .backward = backward };
PN_CUDA_OP(swiglu, &impl)
