/* A term may come twice, and so may its gradient: each has a kernel of its own. */
#include "cuda/map.cuh"
#include "cuda/reduce.cuh"

#include "mix.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "mix/cuda";

template <class T> struct mixture {
    const float *p;
    const T *x[PN_MIX_MAX]; /* NULL: a term of zero */
    int n;
};

template <int W, class T> __device__ void add_up_piece(T *y, const mixture<T> &m, int64_t i) {
    pn_lanes<W> sum = {};
    for (int c = 0; c < m.n; c++) {
        if (!m.x[c]) continue;
        pn_lanes<W> v = pn_lanes_at<W>(m.x[c] + i);
#pragma unroll
        for (int k = 0; k < W; k++) sum.x[k] += m.p[c] * v.x[k];
    }
    pn_lanes_put(y + i, sum);
}

/* Pieces of W elements, then the n % W that make none. */
template <int W, class T> __global__ void __launch_bounds__(PN_MAP_THREADS) add_up(T *y, int64_t n, mixture<T> m) {
    const int64_t pieces = n / W, items = pieces + n % W, step = (int64_t)gridDim.x * PN_MAP_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * PN_MAP_THREADS + threadIdx.x; i < items; i += step)
        if (i < pieces)
            add_up_piece<W>(y, m, i * W);
        else
            add_up_piece<1>(y, m, pieces * W + (i - pieces));
}

/* dx += p dy of one term, and its part of <dy, x>. What is not wanted is NULL, and so are x and p where they are not
 * needed. */
template <class T> struct term {
    const T *dy, *x;
    const float *p;
    pn_gradient<T> dx;
};

template <int W, class T> __device__ float add_term_piece(const term<T> &t, int64_t i) {
    pn_lanes<W> v = pn_lanes_at<W>(t.dy + i);
    float dot = 0;
    if (t.x) {
        pn_lanes<W> u = pn_lanes_at<W>(t.x + i);
#pragma unroll
        for (int k = 0; k < W; k++) dot += v.x[k] * u.x[k];
    }
    if (t.dx.to) {
#pragma unroll
        for (int k = 0; k < W; k++) v.x[k] *= *t.p;
        t.dx.put(i, v);
    }
    return dot;
}

/* The grid is pn_cuda_sum_parts(n): the sums depend on it. */
template <int W, class T>
__global__ void __launch_bounds__(PN_SUM_THREADS) add_term(double *part, int64_t n, term<T> t) {
    const int64_t pieces = n / W, items = pieces + n % W, step = (int64_t)gridDim.x * PN_SUM_THREADS;
    double sum = 0;
    for (int64_t i = (int64_t)blockIdx.x * PN_SUM_THREADS + threadIdx.x; i < items; i += step)
        sum += i < pieces ? add_term_piece<W>(t, i * W) : add_term_piece<1>(t, pieces * W + (i - pieces));
    if (!t.x) return;
    sum = pn_block_sum<PN_SUM_THREADS>(sum);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

struct add_first {
    float *to;
    __device__ void operator()(const double sum[1]) const { *to += (float)sum[0]; }
};

template <class T> pn_status forward_of(const pn_op_call *c) {
    const pn_mix_attr *attr = (const pn_mix_attr *)c->attr;
    constexpr int W = pn_map_width<T>;
    const int64_t n = pn_tensor_elems(c->out[0]);
    T *y = pn_values<T>(c->out[0]);
    mixture<T> m = {};
    m.p = pn_f32(c->in[0]) + attr->row * c->in[0]->shape[1];
    m.n = c->n_in - 1;
    bool pieces = pn_cuda_in_pieces<W>(y);
    for (int k = 0; k < m.n; k++) {
        m.x[k] = pn_values_or_null<T>(c->in[1 + k]);
        pieces = pieces && pn_cuda_in_pieces<W>(m.x[k]);
    }
    if (n == 0) return PN_OK;
    if (pieces)
        add_up<W><<<pn_map_grid(n / W + n % W), PN_MAP_THREADS, 0, pn_cuda_stream()>>>(y, n, m);
    else
        add_up<1><<<pn_map_grid(n), PN_MAP_THREADS, 0, pn_cuda_stream()>>>(y, n, m);
    return pn_cuda_launched(name);
}

template <class T> pn_status add_one(const pn_op_call *c, int k, int64_t weight) {
    constexpr int W = pn_map_width<T>;
    const int64_t n = pn_tensor_elems(c->dout[0]), parts = pn_cuda_sum_parts(n);
    double *part = (double *)c->scratch;
    term<T> t = {};
    t.dy = pn_values<T>(c->dout[0]);
    t.x = c->din[0] ? pn_values<T>(c->in[k]) : NULL;
    t.p = c->din[k] ? pn_f32(c->in[0]) + weight : NULL;
    t.dx = pn_cuda_gradient<T>(c, k);
    if (!t.x && !t.dx.to) return PN_OK;
    if (pn_cuda_in_pieces<W>(t.dy, t.x, t.dx.to))
        add_term<W><<<(unsigned)parts, PN_SUM_THREADS, 0, pn_cuda_stream()>>>(part, n, t);
    else
        add_term<1><<<(unsigned)parts, PN_SUM_THREADS, 0, pn_cuda_stream()>>>(part, n, t);
    PN_TRY(pn_cuda_launched(name));
    if (!t.x) return PN_OK;
    pn_sum_finish<1><<<1, PN_SUM_THREADS, 0, pn_cuda_stream()>>>(part, parts, add_first{ pn_f32(c->din[0]) + weight });
    return pn_cuda_launched(name);
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    const int64_t row = ((const pn_mix_attr *)c->attr)->row * c->in[0]->shape[1];
    const pn_gradient<float> dp = pn_cuda_gradient<float>(c, 0);
    if (dp.to && dp.fresh) /* the other rows, and absent terms */
        PN_TRY(pn_cuda_status(cudaMemsetAsync(dp.to, 0, pn_tensor_bytes(c->din[0]), pn_cuda_stream()), name));
    for (int k = 1; k < c->n_in; k++)
        if (c->in[k]) PN_TRY(add_one<T>(c, k, row + k - 1));
    return PN_OK;
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->out[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->dout[0] ? PN_CUDA_TYPED(c->dout[0], backward_of, c) : pn_cuda_zero_fresh(c);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    return backward_pass && c->wants[0] ? pn_cuda_sums_scratch(pn_tensor_elems(c->out[0]), 1) : 0;
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(mix, &impl)
