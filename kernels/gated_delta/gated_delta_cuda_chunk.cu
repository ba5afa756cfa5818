#include "gated_delta_cuda_chunk.cuh"

bool pn_gated_delta_cuda_takes(int dk, int dv) {
    return dv >= 8 && dv % 8 == 0 && pn_delta_for_width(dk, [](auto) { return cudaSuccess; }) == cudaSuccess;
}

size_t pn_gated_delta_cuda_scratch(int64_t chunks, int v_heads) {
    return sizeof(pn_delta_packed) * (size_t)chunks * (size_t)v_heads;
}

cudaError_t pn_gated_delta_cuda_forward(const pn_gated_delta_cuda *c, cudaStream_t stream) {
    if (c->f32 || !pn_gated_delta_cuda_takes(c->dk, c->dv) || c->heads < 1 || c->v_heads % c->heads != 0)
        return cudaErrorInvalidValue;
    cudaError_t status = pn_delta_system_launch(c, stream);
    return status == cudaSuccess ? pn_delta_sweep_launch(c, stream) : status;
}
