#include "cuda/map.cuh"

#include "split.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "split/cuda";

/* Part k is `width` of the C columns, from `first` on. */
struct columns {
    int64_t N, C, width[PN_OP_OUT], first[PN_OP_OUT];
};
template <class T> struct forward_move {
    const T *whole;
    T *part[PN_OP_OUT];
    template <int W> __device__ void move(int k, int64_t in_whole, int64_t in_part) const {
        pn_lanes_put(part[k] + in_part, pn_lanes_at<W>(whole + in_whole));
    }
};
template <class T> struct backward_move {
    pn_gradient<T> whole;
    const T *part[PN_OP_OUT]; /* NULL: zeros */
    template <int W> __device__ void move(int k, int64_t in_whole, int64_t in_part) const {
        if (part[k])
            whole.put(in_whole, pn_lanes_at<W>(part[k] + in_part));
        else if (whole.fresh)
            pn_lanes_put(whole.to + in_whole, pn_lanes<W>{});
    }
};

/* A part to the blocks of one y. W divides every width. */
template <int W, class M> __global__ void __launch_bounds__(PN_MAP_THREADS) move_all(columns c, M m) {
    const int k = (int)blockIdx.y;
    const int64_t pieces = c.width[k] / W, n = c.N * pieces, step = (int64_t)gridDim.x * PN_MAP_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * PN_MAP_THREADS + threadIdx.x; i < n; i += step)
        m.template move<W>(k, i / pieces * c.C + c.first[k] + i % pieces * W, i * W);
}

/* pieces: all of the memory can be moved in pieces. */
template <class T, class M> pn_status launch(const pn_op_call *c, int64_t N, bool pieces, const M &m) {
    constexpr int W = pn_map_width<T>;
    const pn_split_attr *attr = (const pn_split_attr *)c->attr;
    columns at = {};
    int64_t widest = 0;
    at.N = N;
    for (int k = 0; k < attr->n; k++) {
        at.width[k] = attr->width[k];
        at.first[k] = at.C;
        at.C += at.width[k];
        widest = widest > at.width[k] ? widest : at.width[k];
        pieces = pieces && at.width[k] % W == 0;
    }
    if (N == 0) return PN_OK;
    const int64_t n = N * widest / (pieces ? W : 1);
    const dim3 blocks(pn_map_grid(n), (unsigned)attr->n);
    if (pieces)
        move_all<W><<<blocks, PN_MAP_THREADS, 0, pn_cuda_stream()>>>(at, m);
    else
        move_all<1><<<blocks, PN_MAP_THREADS, 0, pn_cuda_stream()>>>(at, m);
    return pn_cuda_launched(name);
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    constexpr int W = pn_map_width<T>;
    forward_move<T> m = {};
    m.whole = pn_values<T>(c->in[0]);
    bool pieces = pn_cuda_in_pieces<W>(m.whole);
    for (int k = 0; k < c->n_out; k++) {
        m.part[k] = pn_values<T>(c->out[k]);
        pieces = pieces && pn_cuda_in_pieces<W>(m.part[k]);
    }
    return launch<T>(c, c->in[0]->shape[0], pieces, m);
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    constexpr int W = pn_map_width<T>;
    backward_move<T> m = {};
    m.whole = pn_cuda_gradient<T>(c, 0);
    bool pieces = pn_cuda_in_pieces<W>(m.whole.to);
    for (int k = 0; k < c->n_out; k++) {
        m.part[k] = pn_values_or_null<T>(c->dout[k]);
        pieces = pieces && pn_cuda_in_pieces<W>(m.part[k]);
    }
    return launch<T>(c, c->din[0]->shape[0], pieces, m);
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->din[0] ? PN_CUDA_TYPED(c->din[0], backward_of, c) : PN_OK;
}

static const pn_op_impl impl = { .name = name, .bf16 = true, .fresh = true, .forward = forward, .backward = backward };
PN_CUDA_OP(split, &impl)
