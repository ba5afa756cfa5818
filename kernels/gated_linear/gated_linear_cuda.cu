/* The CUDA implementations of gated_linear. */
#include "gated_linear_cuda.cuh"

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    return backward ? pn_glin_cuda_backward_scratch(c) : pn_glin_cuda_step_scratch(c, false);
}

static const pn_op_impl general = { .name = "gated_linear/cuda",
                                    .bf16 = true,
                                    .scratch_bytes = scratch_bytes,
                                    .forward = pn_glin_cuda_step_forward,
                                    .backward = pn_glin_cuda_backward };
PN_CUDA_OP(gated_linear, &general)
