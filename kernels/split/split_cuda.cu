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

enum { WARP = 32, ROWS = PN_MAP_THREADS / WARP };

/* A warp to a row. W divides every width. */
template <int W, class M> __global__ void __launch_bounds__(PN_MAP_THREADS) move_all(columns c, M m) {
    const int64_t step = (int64_t)gridDim.x * ROWS;
    for (int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.y; row < c.N; row += step)
#pragma unroll
        for (int k = 0; k < PN_OP_OUT; k++) {
            const int64_t first = c.first[k], width = k < c.parts ? c.first[k + 1] - first : 0;
#pragma unroll 4
            for (int64_t i = threadIdx.x * W; i < width; i += WARP * W)
                m.template move<W>(k, row * c.C + first + i, row * width + i);
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
    const dim3 threads(WARP, ROWS);
    const unsigned blocks = pn_map_grid(N * WARP);
    if (pieces)
        move_all<W><<<blocks, threads, 0, pn_cuda_stream()>>>(at, m);
    else
        move_all<1><<<blocks, threads, 0, pn_cuda_stream()>>>(at, m);
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
