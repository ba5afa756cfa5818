#include "cuda/map.cuh"
#include "cuda/rows.cuh"

#include "l2_norm.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "l2_norm/cuda";

enum { MOST = 2 }; /* pieces of an operand that a thread keeps */

/* s = silu(x), or x. */
template <bool SILU, int W> __device__ pn_lanes<W> activate(pn_lanes<W> v) {
#pragma unroll
    for (int k = 0; SILU && k < W; k++) v.x[k] = pn_cuda_silu(v.x[k]);
    return v;
}

template <bool SILU, class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>) normalise(pn_rows r, float eps, const T *x, T *y) {
    pn_each_row(r, [=](int64_t n, int64_t d) {
        pn_row<T, W, K> xs(x + n * r.d);
        float sum[1] = {};
        pn_pieces<W, K>(d, [&](int j, int64_t i) { xs.load(j, i); });
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> s = activate<SILU>(xs.get(j, i));
#pragma unroll
            for (int k = 0; k < W; k++) sum[0] += s.x[k] * s.x[k];
        });
        pn_team_sum(sum);
        float scale = 1 / sqrtf(sum[0] + eps);
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> s = activate<SILU>(xs.get(j, i));
#pragma unroll
            for (int k = 0; k < W; k++) s.x[k] *= scale;
            pn_lanes_put(y + n * r.d + i, s);
        });
    });
}

/* ds = r (dy - s r^2 <dy, s>); dx += ds silu'(x) */
template <bool SILU, class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>)
    add_dx(pn_rows r, float eps, const T *x, const T *dy, pn_gradient<T> dx) {
    pn_each_row(r, [=](int64_t n, int64_t d) {
        pn_row<T, W, K> xs(x + n * r.d), dys(dy + n * r.d);
        float sum[2] = {}; /* of s^2 and dy * s */
        pn_pieces<W, K>(d, [&](int j, int64_t i) { xs.load(j, i), dys.load(j, i); });
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> s = activate<SILU>(xs.get(j, i)), g = dys.get(j, i);
#pragma unroll
            for (int k = 0; k < W; k++) {
                sum[0] += s.x[k] * s.x[k];
                sum[1] += g.x[k] * s.x[k];
            }
        });
        pn_team_sum(sum);
        float square = sum[0] + eps, scale = 1 / sqrtf(square), share = sum[1] / square;
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = xs.get(j, i), g = dys.get(j, i);
#pragma unroll
            for (int k = 0; k < W; k++)
                if (SILU) {
                    float sig = pn_cuda_sigmoid(v.x[k]), slope = sig * (1 + v.x[k] * (1 - sig));
                    g.x[k] = scale * (g.x[k] - v.x[k] * sig * share) * slope;
                } else {
                    g.x[k] = scale * (g.x[k] - v.x[k] * share);
                }
            dx.put(n * r.d + i, g);
        });
    });
}

pn_rows rows_of(const pn_op_call *c) {
    int64_t d = ((const pn_l2_norm_attr *)c->attr)->head_dim;
    return { pn_tensor_elems(c->in[0]) / d, 1, d };
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    const pn_l2_norm_attr *attr = (const pn_l2_norm_attr *)c->attr;
    const float eps = (float)attr->eps;
    const T *x = pn_values<T>(c->in[0]);
    T *y = pn_values<T>(c->out[0]);
    const pn_rows r = rows_of(c);
    const auto team = pn_cuda_team<T, MOST>(r.d, pn_cuda_in_pieces<pn_vector<T>::n>(x, y));
    if (r.tokens == 0) return PN_OK;
    return pn_cuda_with_team(name, team, [&](auto kind) {
        auto kernel = attr->silu ? normalise<true, T, kind.W, kind.K> : normalise<false, T, kind.W, kind.K>;
        kernel<<<pn_rows_grid(r, team), team.threads, 0, pn_cuda_stream()>>>(r, eps, x, y);
    });
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    const pn_l2_norm_attr *attr = (const pn_l2_norm_attr *)c->attr;
    const float eps = (float)attr->eps;
    const T *x = pn_values<T>(c->in[0]), *dy = pn_values<T>(c->dout[0]);
    const pn_gradient<T> dx = pn_cuda_gradient<T>(c, 0);
    const pn_rows r = rows_of(c);
    const auto team = pn_cuda_team<T, MOST>(r.d, pn_cuda_in_pieces<pn_vector<T>::n>(x, dy, dx.to));
    if (r.tokens == 0) return PN_OK;
    return pn_cuda_with_team(name, team, [&](auto kind) {
        auto kernel = attr->silu ? add_dx<true, T, kind.W, kind.K> : add_dx<false, T, kind.W, kind.K>;
        kernel<<<pn_rows_grid(r, team), team.threads, 0, pn_cuda_stream()>>>(r, eps, x, dy, dx);
    });
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->dout[0] && c->din[0] ? PN_CUDA_TYPED(c->in[0], backward_of, c) : PN_OK;
}

static const pn_op_impl impl = { .name = name, .bf16 = true, .fresh = true, .forward = forward, .backward = backward };
PN_CUDA_OP(l2_norm, &impl)
