#include "cuda/map.cuh"
#include "cuda/rows.cuh"

#include "l2_norm.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "l2_norm/cuda";

/* Pieces of an operand that a thread keeps: in backward, 3 of BF16 take registers from half of the threads. */
enum { MOST = 3 };
template <class T> constexpr int most_back = sizeof(T) == 2 ? 2 : MOST;

/* sig(x), or 1 without silu: s = x sig(x). */
template <bool SILU, int W> __device__ pn_lanes<W> open(const pn_lanes<W> &x) {
    pn_lanes<W> sig;
#pragma unroll
    for (int k = 0; k < W; k++) sig.x[k] = SILU ? pn_cuda_sigmoid(x.x[k]) : 1;
    return sig;
}

template <bool SILU, class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>) normalise(pn_rows r, float eps, const T *x, T *y) {
    auto load = [&](int64_t n, int64_t d) {
        pn_row<T, W, K> row(x + n * r.d);
        pn_pieces<W, K>(d, [&](int j, int64_t i) { row.load(j, i); });
        return row;
    };
    pn_each_row(r, load, [&](int64_t n, int64_t d, const pn_row<T, W, K> &row) {
        pn_lanes<W> sig[K > 0 ? K : 1];
        float sum[1] = {};
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.get(j, i);
            sig[j] = open<SILU>(v);
#pragma unroll
            for (int k = 0; k < W; k++) sum[0] += v.x[k] * sig[j].x[k] * (v.x[k] * sig[j].x[k]);
        });
        pn_team_sum(sum);
        float scale = 1 / sqrtf(sum[0] + eps);
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.get(j, i);
            if (K == 0) sig[j] = open<SILU>(v);
#pragma unroll
            for (int k = 0; k < W; k++) v.x[k] *= sig[j].x[k] * scale;
            pn_lanes_put(y + n * r.d + i, v);
        });
    });
}

/* dx: what it holds before. */
template <class T, int W, int K> struct operands { pn_row<T, W, K> x, dy, dx; };

/* ds = r (dy - s r^2 <dy, s>); dx += ds silu'(x) */
template <bool SILU, class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>, 2)
    add_dx(pn_rows r, float eps, const T *x, const T *dy, pn_gradient<T> dx) {
    auto load = [&](int64_t n, int64_t d) {
        const int64_t at = n * r.d;
        operands<T, W, K> row = { x + at, dy + at, dx.to + at };
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            row.x.load(j, i), row.dy.load(j, i);
            if (!dx.fresh) row.dx.load(j, i);
        });
        return row;
    };
    pn_each_row(r, load, [&](int64_t n, int64_t d, const operands<T, W, K> &row) {
        pn_lanes<W> sig[K > 0 ? K : 1];
        float sum[2] = {}; /* of s^2 and dy * s */
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.x.get(j, i), g = row.dy.get(j, i);
            sig[j] = open<SILU>(v);
#pragma unroll
            for (int k = 0; k < W; k++) {
                float s = v.x[k] * sig[j].x[k];
                sum[0] += s * s;
                sum[1] += g.x[k] * s;
            }
        });
        pn_team_sum(sum);
        float square = sum[0] + eps, scale = 1 / sqrtf(square), share = sum[1] / square;
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.x.get(j, i), g = row.dy.get(j, i);
            if (K == 0) sig[j] = open<SILU>(v);
#pragma unroll
            for (int k = 0; k < W; k++) {
                float s = sig[j].x[k], slope = s * (1 + v.x[k] * (1 - s));
                g.x[k] = scale * (g.x[k] - v.x[k] * s * share) * slope;
            }
            if (!dx.fresh) g = pn_lanes_sum<T>(row.dx.get(j, i), g);
            pn_lanes_put(dx.to + n * r.d + i, g);
        });
    });
}

pn_rows rows_of(const pn_op_call *c) {
    int64_t d = ((const pn_l2_norm_attr *)c->attr)->head_dim;
    return { pn_tensor_elems(c->in[0]) / d, 1, d, 1 };
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    const pn_l2_norm_attr *attr = (const pn_l2_norm_attr *)c->attr;
    const float eps = (float)attr->eps;
    const T *x = pn_values<T>(c->in[0]);
    T *y = pn_values<T>(c->out[0]);
    const auto team = pn_cuda_team<T, MOST>(rows_of(c).d, pn_cuda_in_pieces<pn_vector<T>::n>(x, y));
    const pn_rows r = pn_cuda_rows(rows_of(c), team, false);
    if (r.tokens == 0) return PN_OK;
    return pn_cuda_with_team(name, team, [&](auto kind) {
        auto kernel = attr->silu ? normalise<true, T, kind.W, kind.K> : normalise<false, T, kind.W, kind.K>;
        kernel<<<pn_rows_blocks(r), team.threads, 0, pn_cuda_stream()>>>(r, eps, x, y);
    });
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    const pn_l2_norm_attr *attr = (const pn_l2_norm_attr *)c->attr;
    const float eps = (float)attr->eps;
    const T *x = pn_values<T>(c->in[0]), *dy = pn_values<T>(c->dout[0]);
    const pn_gradient<T> dx = pn_cuda_gradient<T>(c, 0);
    const auto team = pn_cuda_team<T, most_back<T>>(rows_of(c).d, pn_cuda_in_pieces<pn_vector<T>::n>(x, dy, dx.to));
    const pn_rows r = pn_cuda_rows(rows_of(c), team, false);
    if (r.tokens == 0) return PN_OK;
    return pn_cuda_with_team(name, team, [&](auto kind) {
        auto kernel = attr->silu ? add_dx<true, T, kind.W, kind.K> : add_dx<false, T, kind.W, kind.K>;
        kernel<<<pn_rows_blocks(r), team.threads, 0, pn_cuda_stream()>>>(r, eps, x, dy, dx);
    });
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return pn_cuda_zero_fresh(c);
    return c->din[0] ? PN_CUDA_TYPED(c->in[0], backward_of, c) : PN_OK;
}

static const pn_op_impl impl = { .name = name, .bf16 = true, .fresh = true, .forward = forward, .backward = backward };
PN_CUDA_OP(l2_norm, &impl)
