/* Element by element: y[i] = f(x[i], ...), or y[i] += f(x[i], ...) for gradients.
 *
 * f is a value with a __device__ operator() of floats. It is limited by memory, so a thread takes 16 bytes of each
 * operand at a time where all of them are aligned to that (every tensor but a view of rows is). */
#ifndef PN_KERNELS_CUDA_MAP_CUH
#define PN_KERNELS_CUDA_MAP_CUH

#include "op_cuda.cuh"

enum { PN_MAP_THREADS = 256, PN_MAP_WIDTH = 4 };

/* The value is rounded before it is added, so that a gradient has the same bits when it is made apart (recompute). */
template <bool ADD> __device__ float pn_map_put(float y, float value) {
    return ADD ? __fadd_rn(y, value) : value;
}

template <bool ADD, class F, class... X>
__global__ void __launch_bounds__(PN_MAP_THREADS) pn_map_vectors(float4 *y, int64_t n, F f, const X *...x) {
    int64_t step = (int64_t)gridDim.x * PN_MAP_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * PN_MAP_THREADS + threadIdx.x; i < n; i += step) {
        auto four = [&](auto... v) {
            float4 to = ADD ? y[i] : float4{};
            y[i] = float4{ pn_map_put<ADD>(to.x, f(v.x...)), pn_map_put<ADD>(to.y, f(v.y...)),
                           pn_map_put<ADD>(to.z, f(v.z...)), pn_map_put<ADD>(to.w, f(v.w...)) };
        };
        four(x[i]...);
    }
}

template <bool ADD, class F, class... X>
__global__ void __launch_bounds__(PN_MAP_THREADS) pn_map_elements(float *y, int64_t n, F f, const X *...x) {
    int64_t step = (int64_t)gridDim.x * PN_MAP_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * PN_MAP_THREADS + threadIdx.x; i < n; i += step)
        y[i] = pn_map_put<ADD>(ADD ? y[i] : 0.0f, f(x[i]...));
}

/* Enough blocks to fill the GPU; the rest goes round. */
static inline unsigned pn_map_grid(int64_t n) {
    unsigned most = 32u * (unsigned)pn_cuda_multiprocessors(), needed = pn_cuda_blocks(n, PN_MAP_THREADS);
    return needed < most ? needed : most;
}

/* n elements; name: the implementation's, for messages. */
template <bool ADD, class F, class... X>
pn_status pn_cuda_map(const char *name, float *y, int64_t n, F f, const X *...x) {
    if (n == 0) return PN_OK;
    uintptr_t bits = (uintptr_t)y;
    ((bits |= (uintptr_t)x), ...);
    int64_t whole = bits % sizeof(float4) == 0 ? n / PN_MAP_WIDTH : 0, rest = n - whole * PN_MAP_WIDTH;
    if (whole) {
        pn_map_vectors<ADD>
            <<<pn_map_grid(whole), PN_MAP_THREADS, 0, pn_cuda_stream()>>>((float4 *)y, whole, f, (const float4 *)x...);
        PN_TRY(pn_cuda_launched(name));
    }
    if (rest) {
        int64_t at = n - rest;
        pn_map_elements<ADD><<<pn_map_grid(rest), PN_MAP_THREADS, 0, pn_cuda_stream()>>>(y + at, rest, f, (x + at)...);
        PN_TRY(pn_cuda_launched(name));
    }
    return PN_OK;
}

struct pn_identity {
    __device__ float operator()(float x) const { return x; }
};

/* Accurate to a few units in the last place at any x: expf overflows to infinity where 1 / (1 + e) is 0 anyway. */
__device__ static inline float pn_cuda_sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

#endif
