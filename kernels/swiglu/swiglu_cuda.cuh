/* SwiGLU on the GPU, for ops that have it inside. */
#ifndef PN_KERNELS_SWIGLU_CUDA_CUH
#define PN_KERNELS_SWIGLU_CUDA_CUH

#include "cuda/map.cuh"

struct pn_swiglu_value {
    __device__ float operator()(float gate, float up) const { return pn_cuda_silu(gate) * up; }
};

/* y = silu(gate) * up, n elements; name: the implementation's, for messages. */
template <class T> pn_status pn_cuda_swiglu(const char *name, T *y, const T *gate, const T *up, int64_t n) {
    return pn_cuda_map<false>(name, y, n, pn_swiglu_value{}, gate, up);
}

/* up is read for dgate and h only. gate and up may be one tensor, and so may their gradients: a thread adds one, then
 * the other. */
template <class T> struct pn_swiglu_operands {
    const T *gate, *up, *dy;
    pn_gradient<T> dgate, dup;
    T *h; /* silu(gate) * up is written there; it may be dy; NULL: it is not */
};

template <int W, class T> __device__ void pn_swiglu_gradients_at(const pn_swiglu_operands<T> &o, int64_t i) {
    const pn_lanes<W> gate = pn_lanes_at<W>(o.gate + i), dy = pn_lanes_at<W>(o.dy + i);
    pn_lanes<W> up = {}, dgate, dup, h;
    if (o.dgate.to || o.h) up = pn_lanes_at<W>(o.up + i);
#pragma unroll
    for (int k = 0; k < W; k++) {
        const float s = pn_cuda_sigmoid(gate.x[k]);
        dgate.x[k] = up.x[k] * (dy.x[k] * s * (1 + gate.x[k] * (1 - s)));
        dup.x[k] = dy.x[k] * gate.x[k] * s;
        h.x[k] = gate.x[k] * s * up.x[k];
    }
    if (o.dgate.to) o.dgate.put(i, dgate);
    if (o.dup.to) o.dup.put(i, dup);
    if (o.h) pn_lanes_put(o.h + i, h);
}

/* Pieces of W elements, then the n % W that make none. */
template <int W, class T>
__global__ void __launch_bounds__(PN_MAP_THREADS) pn_swiglu_all_gradients(pn_swiglu_operands<T> o, int64_t n) {
    const int64_t pieces = n / W, items = pieces + n % W, step = (int64_t)gridDim.x * PN_MAP_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * PN_MAP_THREADS + threadIdx.x; i < items; i += step)
        if (i < pieces)
            pn_swiglu_gradients_at<W>(o, i * W);
        else
            pn_swiglu_gradients_at<1>(o, pieces * W + (i - pieces));
}

/* What is wanted of dgate, dup and h, of n elements. */
template <class T> pn_status pn_cuda_swiglu_gradients(const char *name, const pn_swiglu_operands<T> &o, int64_t n) {
    constexpr int W = pn_map_width<T>;
    if (n == 0 || (!o.dgate.to && !o.dup.to && !o.h)) return PN_OK;
    if (pn_cuda_in_pieces<W>(o.gate, o.up, o.dy, o.dgate.to, o.dup.to, o.h))
        pn_swiglu_all_gradients<W><<<pn_map_grid(n / W + n % W), PN_MAP_THREADS, 0, pn_cuda_stream()>>>(o, n);
    else
        pn_swiglu_all_gradients<1><<<pn_map_grid(n), PN_MAP_THREADS, 0, pn_cuda_stream()>>>(o, n);
    return pn_cuda_launched(name);
}

#endif
