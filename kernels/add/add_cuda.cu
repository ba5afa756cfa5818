#include "cuda/map.cuh"

#include "add.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "add/cuda";

struct sum {
    __device__ float operator()(float a, float b) const { return a + b; }
};

} // namespace

static pn_status forward(const pn_op_call *c) {
    return pn_cuda_map<false>(name, pn_f32(c->out[0]), pn_tensor_elems(c->out[0]), sum{}, pn_f32(c->in[0]),
                              pn_f32(c->in[1]));
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    for (int k = 0; k < 2; k++)
        if (c->din[k])
            PN_TRY(pn_cuda_map<true>(name, pn_f32(c->din[k]), pn_tensor_elems(c->dout[0]), pn_identity{},
                                     pn_f32(c->dout[0])));
    return PN_OK;
}

static const pn_op_impl impl = { .name = name, .forward = forward, .backward = backward };
PN_CUDA_OP(add, &impl)
