#include "cuda/step_size.cuh"

#include "decay_gate.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "decay_gate/cuda";

const float min_step = 0, max_step = INFINITY; /* nothing is clamped */

template <class T> pn_status forward_of(const pn_op_call *c) {
    return pn_cuda_steps<T>(name, c, min_step, max_step, NULL, pn_f32(c->out[0]));
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    return pn_cuda_steps_backward<T>(name, c, min_step, max_step, c->out[0], NULL, pn_f32(c->dout[0]));
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->dout[0] ? PN_CUDA_TYPED(c->in[0], backward_of, c) : pn_cuda_zero_fresh(c);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    return backward_pass ? pn_steps_scratch(c) : 0;
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(decay_gate, &impl)
