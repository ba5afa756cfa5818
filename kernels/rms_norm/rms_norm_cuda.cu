#include "cuda/rows.cuh"

#include "rms_norm.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "rms_norm/cuda";

enum { MOST = 4 }; /* pieces of an operand that a thread keeps */
enum { OPERANDS = 3 };

template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>)
    normalise(pn_rows r, const T *x, const float *w, float eps, T *y, float *rstd) {
    const float share = 1 / (float)r.d;
    pn_row<float, W, K> ws(w + blockIdx.x % (unsigned)r.groups * r.d);
    pn_pieces<W, K>(r.d, [&](int j, int64_t i) { ws.load(j, i); });
    auto load = [&](int64_t n, int64_t d) {
        pn_row<T, W, K> row(x + n * r.d);
        pn_pieces<W, K>(d, [&](int j, int64_t i) { row.load(j, i); });
        return row;
    };
    pn_each_row_ahead(r, load, [&](int64_t n, int64_t d, const pn_row<T, W, K> &row) {
        float sum[1] = {};
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.get(j, i);
#pragma unroll
            for (int k = 0; k < W; k++) sum[0] += v.x[k] * v.x[k];
        });
        pn_team_sum(sum);
        float s = rsqrtf(sum[0] * share + eps);
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.get(j, i), u = ws.get(j, i);
#pragma unroll
            for (int k = 0; k < W; k++) v.x[k] *= u.x[k] * s;
            pn_lanes_put(y + n * r.d + i, v);
        });
        if (d && threadIdx.x == 0) rstd[n] = s;
    });
}

/* dx: what it holds before. */
template <class T, int W, int K> struct operands { pn_staged_row<T, W, K, OPERANDS> x, dy, dx; };

/* dx += r (c - x r^2 mean(c * x)) with c = w * dy; dw += dy * x r. w is NULL where dx is not wanted. */
template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>)
    add_gradients(pn_rows r, const T *x, const float *w, const T *dy, const float *rstd, pn_gradient<T> dx,
                  float *part) {
    const float share = 1 / (float)r.d;
    pn_row<float, W, K> ws(w + blockIdx.x % (unsigned)r.groups * r.d);
    pn_row_sums<W, K> dw(part, r.d);
    if (dx.to) pn_pieces<W, K>(r.d, [&](int j, int64_t i) { ws.load(j, i); });
    auto row_at = [&](int64_t n, int stage) {
        const int64_t at = n * r.d;
        return operands<T, W, K>{ { x + at, stage, 0 }, { dy + at, stage, 1 }, { dx.to + at, stage, 2 } };
    };
    auto load = [&](int64_t n, int64_t d, int stage) {
        const operands<T, W, K> row = row_at(n, stage);
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            row.x.load(j, i), row.dy.load(j, i);
            if (dx.to && !dx.fresh) row.dx.load(j, i);
        });
        return rstd[n];
    };
    pn_each_staged_row<K>(r, load, [&](int64_t n, int64_t d, int stage, float s) {
        const operands<T, W, K> row = row_at(n, stage);
        float dot[1] = {};
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.x.get(j, i), g = row.dy.get(j, i), u = dx.to ? ws.get(j, i) : pn_lanes<W>{};
#pragma unroll
            for (int k = 0; k < W; k++) {
                v.x[k] *= g.x[k];
                dot[0] += u.x[k] * v.x[k];
                v.x[k] *= s;
            }
            if (part) dw.add(j, i, v);
        });
        if (!dx.to) return;
        pn_team_sum(dot);
        float mean = s * s * dot[0] * share;
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.x.get(j, i), g = row.dy.get(j, i), u = ws.get(j, i);
#pragma unroll
            for (int k = 0; k < W; k++) v.x[k] = s * (u.x[k] * g.x[k] - v.x[k] * mean);
            if (!dx.fresh) v = pn_lanes_sum<T>(row.dx.get(j, i), v);
            pn_lanes_put(dx.to + n * r.d + i, v);
        });
    });
    dw.finish(r.d, (float *)pn_staged);
}

pn_rows rows_of(const pn_op_call *c) {
    int64_t groups = ((const pn_rms_norm_attr *)c->attr)->groups;
    return { c->in[0]->shape[0], groups, c->in[0]->shape[1] / groups, 1 };
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    constexpr int V = pn_vector<T>::n;
    const float *w = pn_f32(c->in[1]), eps = (float)((const pn_rms_norm_attr *)c->attr)->eps;
    const T *x = pn_values<T>(c->in[0]);
    T *y = pn_values<T>(c->out[0]);
    float *rstd = pn_f32(c->out[1]);
    const auto team = pn_cuda_team<T, MOST>(rows_of(c).d, pn_cuda_in_pieces<V>(x, w, y));
    const pn_rows r = pn_cuda_rows(rows_of(c), team, PN_ROWS_AHEAD);
    if (r.tokens == 0) return PN_OK;
    return pn_cuda_with_team(name, team, [&](auto kind) {
        normalise<T, kind.W, kind.K><<<pn_rows_blocks(r), team.threads, 0, pn_cuda_stream()>>>(r, x, w, eps, y, rstd);
    });
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    constexpr int V = pn_vector<T>::n;
    const T *x = pn_values<T>(c->in[0]), *dy = pn_values<T>(c->dout[0]);
    const float *w = c->din[0] ? pn_f32(c->in[1]) : NULL, *rstd = pn_f32(c->out[1]);
    const pn_gradient<T> dx = pn_cuda_gradient<T>(c, 0);
    float *part = c->din[1] ? (float *)c->scratch : NULL;
    const pn_rows r = pn_cuda_rows_to_sum(rows_of(c));
    const auto team = pn_cuda_staged_team<T, MOST>(r.d, pn_cuda_in_pieces<V>(x, w, dy, dx.to), OPERANDS);
    if (r.tokens > 0 && (dx.to || part))
        PN_TRY(pn_cuda_with_team(name, team, [&](auto kind) {
            const size_t bytes = pn_stages_bytes(team, OPERANDS);
            auto kernel = add_gradients<T, kind.W, kind.K>;
            pn_cuda_allow_shared(kernel, bytes);
            kernel<<<pn_rows_blocks(r), team.threads, bytes, pn_cuda_stream()>>>(r, x, w, dy, rstd, dx, part);
        }));
    return pn_cuda_row_sums_finish(name, c, 1, r, r.d, part);
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->dout[0] ? PN_CUDA_TYPED(c->in[0], backward_of, c) : pn_cuda_zero_fresh(c);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    const pn_rows r = pn_cuda_rows_to_sum(rows_of(c));
    return backward_pass && c->wants[1] ? (size_t)pn_row_sums_elems(r, r.d) * sizeof(float) : 0;
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(rms_norm, &impl)
