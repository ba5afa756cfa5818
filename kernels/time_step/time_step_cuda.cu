#include "cuda/step_size.cuh"

#include "time_step.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "time_step/cuda";

enum { DT, GATE };

template <class T> pn_status forward_of(const pn_op_call *c) {
    const pn_time_step_attr *attr = (const pn_time_step_attr *)c->attr;
    return pn_cuda_steps<T>(name, c, (float)attr->min, (float)attr->max, pn_f32(c->out[DT]), pn_f32(c->out[GATE]));
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    const pn_time_step_attr *attr = (const pn_time_step_attr *)c->attr;
    return pn_cuda_steps_backward<T>(name, c, (float)attr->min, (float)attr->max, c->out[GATE],
                                     pn_f32_or_null(c->dout[DT]), pn_f32_or_null(c->dout[GATE]));
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[0], backward_of, c);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    return backward_pass ? pn_steps_scratch(c) : 0;
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(time_step, &impl)
