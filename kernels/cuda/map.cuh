/* Element by element: y[i] = f(x[i], ...), or y[i] += f(x[i], ...) for gradients.
 *
 * f is a value with a __device__ operator() of floats; y and each x are float or pn_bf16. It is limited by memory, so a
 * thread takes 16 bytes of an operand at a time, 8 of a BF16 one beside an F32 one, where all of them are aligned to
 * that (every tensor but a view of rows is). */
#ifndef PN_KERNELS_CUDA_MAP_CUH
#define PN_KERNELS_CUDA_MAP_CUH

#include "lanes.cuh"

enum { PN_MAP_THREADS = 256 };

/* Elements that a thread takes at once of operands of these types. */
template <class... T> constexpr int pn_map_width = ((sizeof(T) == 2) && ...) ? 8 : 4;

/* Each of x is pn_lanes<W>. */
template <bool ADD, int W, class Y, class F, class... X> __device__ void pn_map_piece(Y *y, const F &f, const X &...x) {
    pn_lanes<W> value;
#pragma unroll
    for (int k = 0; k < W; k++) value.x[k] = f(x.x[k]...);
    if (ADD)
        pn_lanes_add(y, value);
    else
        pn_lanes_put(y, value);
}

/* Pieces of W elements, then the n % W that make none. */
template <bool ADD, int W, class Y, class F, class... X>
__global__ void __launch_bounds__(PN_MAP_THREADS) pn_map_pieces(Y *y, int64_t n, F f, const X *...x) {
    const int64_t pieces = n / W, items = pieces + n % W, step = (int64_t)gridDim.x * PN_MAP_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * PN_MAP_THREADS + threadIdx.x; i < items; i += step)
        if (i < pieces)
            pn_map_piece<ADD, W>(y + i * W, f, pn_lanes_at<W>(x + i * W)...);
        else
            pn_map_piece<ADD, 1>(y + pieces * W + (i - pieces), f, pn_lanes_at<1>(x + pieces * W + (i - pieces))...);
}

/* A thread to each of n pieces of work, as far as a grid goes; the rest goes round. */
static inline unsigned pn_map_grid(int64_t n) {
    int64_t blocks = (n + PN_MAP_THREADS - 1) / PN_MAP_THREADS;
    return (unsigned)(blocks < 1 ? 1 : blocks < 1 << 30 ? blocks : 1 << 30);
}

/* n elements; name: the implementation's, for messages. */
template <bool ADD, class Y, class F, class... X>
pn_status pn_cuda_map(const char *name, Y *y, int64_t n, F f, const X *...x) {
    constexpr int W = pn_map_width<Y, X...>;
    if (n == 0) return PN_OK;
    if (pn_cuda_in_pieces<W>(y, x...))
        pn_map_pieces<ADD, W><<<pn_map_grid(n / W + n % W), PN_MAP_THREADS, 0, pn_cuda_stream()>>>(y, n, f, x...);
    else
        pn_map_pieces<ADD, 1><<<pn_map_grid(n), PN_MAP_THREADS, 0, pn_cuda_stream()>>>(y, n, f, x...);
    return pn_cuda_launched(name);
}

/* The gradient of an input whose type is Y, where it is wanted. */
template <class Y, class F, class... X>
pn_status pn_cuda_map_gradient(const char *name, const pn_op_call *c, int input, F f, const X *...x) {
    const pn_gradient<Y> d = pn_cuda_gradient<Y>(c, input);
    if (!d.to) return PN_OK;
    const int64_t n = pn_tensor_elems(c->din[input]);
    return d.fresh ? pn_cuda_map<false>(name, d.to, n, f, x...) : pn_cuda_map<true>(name, d.to, n, f, x...);
}

struct pn_identity {
    __device__ float operator()(float x) const { return x; }
};

/* Accurate to a few units in the last place at any x: expf overflows to infinity where 1 / (1 + e) is 0 anyway. The
 * division that rounds correctly would be most of the work. */
__device__ static inline float pn_cuda_sigmoid(float x) {
    return __fdividef(1.0f, 1.0f + expf(-x));
}
__device__ static inline float pn_cuda_silu(float x) {
    return x * pn_cuda_sigmoid(x);
}
/* For what is rounded to T. */
template <class T> __device__ float pn_sigmoid_for(float x) {
    return sizeof(T) == 2 ? pn_quick_sigmoid(x) : pn_cuda_sigmoid(x);
}
__device__ static inline float pn_cuda_silu_slope(float x) {
    float s = pn_cuda_sigmoid(x);
    return s * (1 + x * (1 - s));
}

#endif
