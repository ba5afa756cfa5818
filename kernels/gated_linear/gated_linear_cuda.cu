/* The CUDA implementations of gated_linear, best first. */
#include "gated_linear_cuda.cuh"

static bool is_step(const pn_op_call *c) {
    const pn_gated_linear_attr *a = (const pn_gated_linear_attr *)c->attr;
    return !pn_op_wants(c) && pn_docs_one_each(&a->docs);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    return backward ? pn_glin_cuda_backward_scratch(c) : pn_glin_cuda_step_scratch(c, false);
}

static const pn_op_impl step = { .name = "gated_linear/cuda-step",
                                 .bf16 = true,
                                 .renews = true,
                                 .renewed_in = 4,
                                 .renewed_out = 1,
                                 .takes = is_step,
                                 .scratch_bytes = scratch_bytes,
                                 .forward = pn_glin_cuda_step_forward };
static const pn_op_impl general = { .name = "gated_linear/cuda",
                                    .bf16 = true,
                                    .fresh = true,
                                    .scratch_bytes = scratch_bytes,
                                    .forward = pn_glin_cuda_step_forward,
                                    .backward = pn_glin_cuda_backward };
PN_CUDA_OP(gated_linear, &step, &pn_gated_linear_cuda_tensor, &general)
