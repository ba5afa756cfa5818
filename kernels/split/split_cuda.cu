#include "cuda/map.cuh"

#include "split.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "split/cuda";

/* Part k of N rows of C columns: `width` columns from `first` on. */
template <class T> struct parts {
    int64_t N, C, width[PN_OP_OUT], first[PN_OP_OUT];
    T *whole, *part[PN_OP_OUT]; /* NULL: a gradient that did not come */
};

/* A part to the blocks of one y; W divides everything. */
template <bool BACK, int W, class T> __global__ void __launch_bounds__(PN_MAP_THREADS) move(parts<T> p) {
    const int64_t width = p.width[blockIdx.y], first = p.first[blockIdx.y], pieces = p.N * width / W;
    const int64_t step = (int64_t)gridDim.x * PN_MAP_THREADS;
    T *part = p.part[blockIdx.y];
    if (!part) return;
    for (int64_t i = (int64_t)blockIdx.x * PN_MAP_THREADS + threadIdx.x; i < pieces; i += step) {
        int64_t row = i * W / width;
        T *in_whole = p.whole + row * p.C + first + (i * W - row * width), *in_part = part + i * W;
        if (BACK)
            pn_lanes_add(in_whole, pn_lanes_at<W>(in_part));
        else
            pn_lanes_put(in_part, pn_lanes_at<W>(in_whole));
    }
}

template <bool BACK, class T> pn_status move_all(const pn_op_call *c, pn_tensor *whole, pn_tensor *const *part) {
    const pn_split_attr *attr = (const pn_split_attr *)c->attr;
    constexpr int W = pn_map_width<T>;
    parts<T> p = {};
    p.N = whole->shape[0];
    p.C = whole->shape[1];
    p.whole = pn_values<T>(whole);
    bool pieces = p.C % W == 0 && pn_cuda_in_pieces<W>(p.whole);
    int64_t first = 0, widest = 0;
    for (int k = 0; k < attr->n; k++) {
        p.width[k] = attr->width[k];
        p.first[k] = first;
        p.part[k] = pn_values_or_null<T>(part[k]);
        first += p.width[k];
        widest = widest > p.width[k] ? widest : p.width[k];
        pieces = pieces && p.width[k] % W == 0 && pn_cuda_in_pieces<W>(p.part[k]);
    }
    if (p.N == 0) return PN_OK;
    dim3 blocks(pn_map_grid(p.N * widest / (pieces ? W : 1)), (unsigned)attr->n);
    if (pieces)
        move<BACK, W><<<blocks, PN_MAP_THREADS, 0, pn_cuda_stream()>>>(p);
    else
        move<BACK, 1><<<blocks, PN_MAP_THREADS, 0, pn_cuda_stream()>>>(p);
    return pn_cuda_launched(name);
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    return move_all<false, T>(c, c->in[0], c->out);
}
template <class T> pn_status backward_of(const pn_op_call *c) {
    return move_all<true, T>(c, c->din[0], c->dout);
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->din[0] ? PN_CUDA_TYPED(c->din[0], backward_of, c) : PN_OK;
}

static const pn_op_impl impl = { .name = name, .forward = forward, .backward = backward };
PN_CUDA_OP(split, &impl)
