#include "cuda/map.cuh"

#include "split.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "split/cuda";

/* Part k is the columns first[k] .. first[k + 1] - 1 of the C of the whole. */
struct columns {
    int64_t N, C, first[PN_OP_OUT + 1];
    int parts;
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

/* Pieces of the whole in order. W divides every width; INDEX holds the number of pieces: dividing is most of the work.
 */
template <int W, class INDEX, class M> __global__ void __launch_bounds__(PN_MAP_THREADS) move_all(columns c, M m) {
    const INDEX width = (INDEX)(c.C / W);
    const int64_t n = c.N * width, step = (int64_t)gridDim.x * PN_MAP_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * PN_MAP_THREADS + threadIdx.x; i < n; i += step) {
        const int64_t row = (INDEX)i / width, column = (i - row * width) * W;
        int64_t first = 0, end = c.first[1];
        int k = 0;
#pragma unroll
        for (int part = 1; part < PN_OP_OUT; part++)
            if (part < c.parts && column >= c.first[part]) k = part, first = c.first[part], end = c.first[part + 1];
        m.template move<W>(k, i * W, row * (end - first) + column - first);
    }
}

/* pieces: all of the memory can be moved in pieces. */
template <class T, class M> pn_status launch(const pn_op_call *c, int64_t N, bool pieces, const M &m) {
    constexpr int W = pn_map_width<T>;
    const pn_split_attr *attr = (const pn_split_attr *)c->attr;
    columns at = {};
    at.N = N;
    at.parts = (int)attr->n;
    for (int k = 0; k < at.parts; k++) {
        at.C += attr->width[k];
        at.first[k + 1] = at.C;
        pieces = pieces && attr->width[k] % W == 0;
    }
    if (N == 0) return PN_OK;
    const int64_t n = N * at.C / (pieces ? W : 1);
    const unsigned blocks = pn_map_grid(n);
    if (n > UINT32_MAX)
        move_all<1, int64_t><<<blocks, PN_MAP_THREADS, 0, pn_cuda_stream()>>>(at, m);
    else if (pieces)
        move_all<W, uint32_t><<<blocks, PN_MAP_THREADS, 0, pn_cuda_stream()>>>(at, m);
    else
        move_all<1, uint32_t><<<blocks, PN_MAP_THREADS, 0, pn_cuda_stream()>>>(at, m);
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
