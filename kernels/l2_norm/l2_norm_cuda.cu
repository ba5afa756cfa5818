#include "cuda/map.cuh"
#include "cuda/rows.cuh"

#include "l2_norm.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "l2_norm/cuda";

enum { MOST = 3 }; /* pieces of an operand that a thread keeps */
enum { OPERANDS = 2 };

/* sig(x), or 1 without silu: s = x sig(x). */
template <bool SILU, class T, int W> __device__ pn_lanes<W> open(const pn_lanes<W> &x) {
    pn_lanes<W> sig;
#pragma unroll
    for (int k = 0; k < W; k++) sig.x[k] = SILU ? pn_sigmoid_for<T>(x.x[k]) : 1;
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
            sig[j] = open<SILU, T>(v);
#pragma unroll
            for (int k = 0; k < W; k++) sum[0] += v.x[k] * sig[j].x[k] * (v.x[k] * sig[j].x[k]);
        });
        pn_team_sum(sum);
        float scale = rsqrtf(sum[0] + eps);
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.get(j, i);
            if (K == 0) sig[j] = open<SILU, T>(v);
#pragma unroll
            for (int k = 0; k < W; k++) v.x[k] *= sig[j].x[k] * scale;
            pn_lanes_put(y + n * r.d + i, v);
        });
    });
}

template <class T, int W, int K> struct operands { pn_staged_row<T, W, K, OPERANDS> x, dy; };

/* ds = r (dy - s r^2 <dy, s>); dx += ds silu'(x) */
template <bool SILU, class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>)
    add_dx(pn_rows r, float eps, const T *x, const T *dy, pn_gradient<T> dx) {
    auto row_at = [&](int64_t n, int stage) {
        return operands<T, W, K>{ { x + n * r.d, stage, 0 }, { dy + n * r.d, stage, 1 } };
    };
    auto load = [&](int64_t n, int64_t d, int stage) {
        const operands<T, W, K> row = row_at(n, stage);
        pn_pieces<W, K>(d, [&](int j, int64_t i) { row.x.load(j, i), row.dy.load(j, i); });
        return PN_NO_MORE;
    };
    pn_each_staged_row<K>(r, load, [&](int64_t n, int64_t d, int stage, pn_no_more) {
        const operands<T, W, K> row = row_at(n, stage);
        pn_lanes<W> sig[K > 0 ? K : 1];
        float sum[2] = {}; /* of s^2 and dy * s */
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.x.get(j, i), g = row.dy.get(j, i);
            sig[j] = open<SILU, T>(v);
#pragma unroll
            for (int k = 0; k < W; k++) {
                float s = v.x[k] * sig[j].x[k];
                sum[0] += s * s;
                sum[1] += g.x[k] * s;
            }
        });
        pn_team_sum(sum);
        float scale = rsqrtf(sum[0] + eps), share = sum[1] * scale * scale;
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.x.get(j, i), g = row.dy.get(j, i);
            if (K == 0) sig[j] = open<SILU, T>(v);
#pragma unroll
            for (int k = 0; k < W; k++) {
                float s = sig[j].x[k], slope = s * (1 + v.x[k] * (1 - s));
                g.x[k] = scale * (g.x[k] - v.x[k] * s * share) * slope;
            }
            dx.put(n * r.d + i, g);
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
    const pn_rows r = pn_cuda_rows(rows_of(c), team, 0);
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
    const bool whole = pn_cuda_in_pieces<pn_vector<T>::n>(x, dy, dx.to);
    const auto team = pn_cuda_staged_team<T, MOST>(rows_of(c).d, whole, OPERANDS);
    const pn_rows r = pn_cuda_rows(rows_of(c), team, PN_ROWS_STAGED);
    if (r.tokens == 0) return PN_OK;
    return pn_cuda_with_team(name, team, [&](auto kind) {
        const size_t bytes = pn_stages_bytes(team, OPERANDS);
        auto kernel = attr->silu ? add_dx<true, T, kind.W, kind.K> : add_dx<false, T, kind.W, kind.K>;
        pn_cuda_allow_shared(kernel, bytes);
        kernel<<<pn_rows_blocks(r), team.threads, bytes, pn_cuda_stream()>>>(r, eps, x, dy, dx);
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
