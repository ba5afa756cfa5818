#include "gated_delta_cuda_chunk.cuh"

bool pn_gated_delta_cuda_takes(int dk, int dv) {
    return dv >= 8 && dv % 8 == 0 && pn_delta_for_width(dk, [](auto) { return cudaSuccess; }) == cudaSuccess;
}

size_t pn_gated_delta_cuda_scratch(int64_t chunks, int v_heads) {
    return sizeof(pn_delta_packed) * (size_t)chunks * (size_t)v_heads;
}

static bool fits(const pn_gated_delta_cuda *c) {
    return !c->f32 && pn_gated_delta_cuda_takes(c->dk, c->dv) && c->heads >= 1 && c->v_heads % c->heads == 0;
}

cudaError_t pn_gated_delta_cuda_forward(const pn_gated_delta_cuda *c, cudaStream_t stream) {
    if (!fits(c)) return cudaErrorInvalidValue;
    cudaError_t status = pn_delta_system_launch(c, stream);
    return status == cudaSuccess ? pn_delta_sweep_launch(c, stream) : status;
}

int pn_gated_delta_cuda_shared(int dk, bool backward) {
    if (!backward) return pn_delta_sweep_shared(dk);
    const int sweep = pn_delta_grad_sweep_shared(dk), keys = pn_delta_grad_keys_shared(dk);
    return sweep > keys ? sweep : keys;
}

pn_delta_grad_work pn_delta_grad_work_at(void *scratch, int64_t tokens, int64_t chunks, int v_heads, int dk, int dv) {
    const size_t z = (size_t)(chunks * v_heads), packed = z * sizeof(pn_delta_packed_grad);
    const size_t G = z * (size_t)dk * (size_t)dv * sizeof(uint16_t);
    const size_t dR = (size_t)(tokens * v_heads) * (size_t)dv * sizeof(uint16_t);
    char *at = (char *)scratch;
    return { (pn_delta_packed_grad *)at, (uint16_t *)(at + packed), (uint16_t *)(at + packed + G), packed + G + dR };
}
size_t pn_gated_delta_cuda_backward_scratch(int64_t tokens, int64_t chunks, int v_heads, int dk, int dv) {
    return pn_delta_grad_work_at(NULL, tokens, chunks, v_heads, dk, dv).bytes;
}

cudaError_t pn_gated_delta_cuda_backward(const pn_gated_delta_cuda *c, const pn_gated_delta_cuda_grads *d,
                                         cudaStream_t stream) {
    if (!fits(c)) return cudaErrorInvalidValue;
    pn_delta_grad_work w = pn_delta_grad_work_at(c->scratch, c->tokens, c->chunks, c->v_heads, c->dk, c->dv);
    pn_gated_delta_cuda_grads rest = *d;
    if (d->dv && d->fresh & PN_FRESH_DV) { /* dR is dV */
        w.dR = (uint16_t *)d->dv;
        rest.dv = NULL;
    }
    cudaError_t status = pn_delta_grad_system_launch(c, &w, stream);
    if (status == cudaSuccess) status = pn_delta_grad_sweep_launch(c, &rest, &w, stream);
    return status == cudaSuccess ? pn_delta_grad_keys_launch(c, &rest, &w, stream) : status;
}
