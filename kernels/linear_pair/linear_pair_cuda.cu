#include "cuda/op_cuda.cuh"

extern "C" {
#include "linear_pair_cuda.h"
#include "linear_pair_each.h"
}

/* A product over nothing has no plan. */
static bool takes(const pn_op_call *c) {
    return c->in[1]->shape[0] >= 1 && c->in[2]->shape[0] >= 1 && c->in[0]->shape[1] >= 1;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    return pn_linear_pair_scratch(c, PN_CUDA, backward_pass);
}

static pn_status forward(const pn_op_call *c) {
    return pn_linear_pair_forward(c, PN_CUDA);
}

static pn_status backward(const pn_op_call *c) {
    return pn_linear_pair_backward(c, PN_CUDA);
}

static const pn_op_impl impl = { .name = "linear_pair/cuda",
                                 .bf16 = true,
                                 .fresh = true,
                                 .takes = takes,
                                 .scratch_bytes = scratch_bytes,
                                 .forward = forward,
                                 .backward = backward };
PN_CUDA_OP(linear_pair, &pn_linear_pair_cuda_narrow, &impl)
