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
    const T *a = c->din[W] ? pn_values<T>(c->in[A]) : NULL, *b = c->din[W] ? pn_values<T>(c->in[B]) : NULL;
    const T *w = c->din[A] || c->din[B] ? pn_values<T>(c->in[W]) : NULL;
    PN_TRY(pn_cuda_map_gradient<T>(name, c, A, da{}, w, dy));
    PN_TRY(pn_cuda_map_gradient<T>(name, c, B, db{}, w, dy));
    return pn_cuda_map_gradient<T>(name, c, W, dw{}, a, b, dy);
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->out[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->dout[0] ? PN_CUDA_TYPED(c->dout[0], backward_of, c) : pn_cuda_zero_fresh(c);
}

static const pn_op_impl impl = { .name = name, .bf16 = true, .fresh = true, .forward = forward, .backward = backward };
PN_CUDA_OP(lerp, &impl)
