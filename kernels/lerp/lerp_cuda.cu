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

template <class T> pn_status forward_of(const pn_op_call *c) {
    return pn_cuda_map<false>(name, pn_values<T>(c->out[0]), pn_tensor_elems(c->out[0]), value{},
                              pn_values<T>(c->in[A]), pn_values<T>(c->in[B]), pn_values<T>(c->in[W]));
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    const T *dy = pn_values<T>(c->dout[0]);
    int64_t n = pn_tensor_elems(c->dout[0]);
    if (c->din[A]) PN_TRY(pn_cuda_map<true>(name, pn_values<T>(c->din[A]), n, da{}, pn_values<T>(c->in[W]), dy));
    if (c->din[B]) PN_TRY(pn_cuda_map<true>(name, pn_values<T>(c->din[B]), n, db{}, pn_values<T>(c->in[W]), dy));
    if (c->din[W])
        PN_TRY(pn_cuda_map<true>(name, pn_values<T>(c->din[W]), n, dw{}, pn_values<T>(c->in[A]),
                                 pn_values<T>(c->in[B]), dy));
    return PN_OK;
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->out[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->dout[0] ? PN_CUDA_TYPED(c->dout[0], backward_of, c) : PN_OK;
}

static const pn_op_impl impl = { .name = name, .forward = forward, .backward = backward };
PN_CUDA_OP(lerp, &impl)
