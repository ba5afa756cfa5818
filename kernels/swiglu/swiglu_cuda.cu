/* gate and up may be one tensor, and so may their gradients: a thread adds one, then the other. */
#include "cuda/map.cuh"

#include "swiglu.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "swiglu/cuda";

struct value {
    __device__ float operator()(float gate, float up) const { return pn_cuda_silu(gate) * up; }
};

/* up is read for the gradient of gate only. */
template <class T> struct operands {
    const T *gate, *up, *dy;
    pn_gradient<T> dgate, dup;
};

template <int W, class T> __device__ void add_gradients(const operands<T> &o, int64_t i) {
    pn_lanes<W> gate = pn_lanes_at<W>(o.gate + i), dy = pn_lanes_at<W>(o.dy + i), dgate = {}, dup;
    if (o.dgate.to) dgate = pn_lanes_at<W>(o.up + i);
#pragma unroll
    for (int k = 0; k < W; k++) {
        float s = pn_cuda_sigmoid(gate.x[k]);
        dgate.x[k] *= dy.x[k] * s * (1 + gate.x[k] * (1 - s));
        dup.x[k] = dy.x[k] * gate.x[k] * s;
    }
    if (o.dgate.to) o.dgate.put(i, dgate);
    if (o.dup.to) o.dup.put(i, dup);
}

/* Pieces of W elements, then the n % W that make none. */
template <int W, class T>
__global__ void __launch_bounds__(PN_MAP_THREADS) add_all_gradients(operands<T> o, int64_t n) {
    const int64_t pieces = n / W, items = pieces + n % W, step = (int64_t)gridDim.x * PN_MAP_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * PN_MAP_THREADS + threadIdx.x; i < items; i += step)
        if (i < pieces)
            add_gradients<W>(o, i * W);
        else
            add_gradients<1>(o, pieces * W + (i - pieces));
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    return pn_cuda_map<false>(name, pn_values<T>(c->out[0]), pn_tensor_elems(c->out[0]), value{},
                              pn_values<T>(c->in[0]), pn_values<T>(c->in[1]));
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    constexpr int W = pn_map_width<T>;
    const int64_t n = pn_tensor_elems(c->dout[0]);
    if (n == 0 || (!c->din[0] && !c->din[1])) return PN_OK;
    operands<T> o = { pn_values<T>(c->in[0]), c->din[0] ? pn_values<T>(c->in[1]) : NULL, pn_values<T>(c->dout[0]),
                      pn_cuda_gradient<T>(c, 0), pn_cuda_gradient<T>(c, 1) };
    if (pn_cuda_in_pieces<W>(o.gate, o.up, o.dy, o.dgate.to, o.dup.to))
        add_all_gradients<W><<<pn_map_grid(n / W + n % W), PN_MAP_THREADS, 0, pn_cuda_stream()>>>(o, n);
    else
        add_all_gradients<1><<<pn_map_grid(n), PN_MAP_THREADS, 0, pn_cuda_stream()>>>(o, n);
    return pn_cuda_launched(name);
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->out[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->dout[0] ? PN_CUDA_TYPED(c->dout[0], backward_of, c) : pn_cuda_zero_fresh(c);
}

static const pn_op_impl impl = { .name = name, .bf16 = true, .fresh = true, .forward = forward, .backward = backward };
PN_CUDA_OP(swiglu, &impl)
