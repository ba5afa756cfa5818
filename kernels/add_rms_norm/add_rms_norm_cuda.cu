/* x and r may be one tensor, and so may their gradients: a thread adds to one, then to the other. */
#include "cuda/map.cuh"
#include "cuda/rows.cuh"

#include "add_rms_norm.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "add_rms_norm/cuda";

enum { MOST = 4 }; /* pieces of an operand that a thread keeps */
enum { OPERANDS = 3 };

enum { X, R, WEIGHT };
enum { S, Y, RSTD };

template <class T, int W, int K> struct inputs { pn_row<T, W, K> x, r; };

template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>)
    normalise(pn_rows rows, const T *x, const T *r, const float *w, float eps, T *s, T *y, float *rstd) {
    const float share = 1 / (float)rows.d;
    pn_row<float, W, K> ws(w);
    pn_pieces<W, K>(rows.d, [&](int j, int64_t i) { ws.load(j, i); });
    auto load = [&](int64_t n, int64_t d) {
        inputs<T, W, K> row = { x + n * rows.d, r + n * rows.d };
        pn_pieces<W, K>(d, [&](int j, int64_t i) { row.x.load(j, i), row.r.load(j, i); });
        return row;
    };
    pn_each_row_ahead(rows, load, [&](int64_t n, int64_t d, const inputs<T, W, K> &row) {
        pn_piece<T, W> sum[K > 0 ? K : 1];
        auto add = [&](int j, int64_t i) {
            pn_lanes<W> v = row.x.get(j, i), u = row.r.get(j, i);
#pragma unroll
            for (int k = 0; k < W; k++) v.x[k] += u.x[k];
            sum[j] = pn_lanes_piece<T>(v);
        };
        float squares[1] = {};
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            add(j, i);
            pn_move_piece((pn_piece<T, W> *)(s + n * rows.d + i), &sum[j]);
            pn_lanes<W> v = pn_piece_lanes(sum[j]);
#pragma unroll
            for (int k = 0; k < W; k++) squares[0] += v.x[k] * v.x[k];
        });
        pn_team_sum(squares);
        float q = rsqrtf(squares[0] * share + eps);
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            if (K == 0) add(j, i);
            pn_lanes<W> v = pn_piece_lanes(sum[j]), u = ws.get(j, i);
#pragma unroll
            for (int k = 0; k < W; k++) v.x[k] *= u.x[k] * q;
            pn_lanes_put(y + n * rows.d + i, v);
        });
        if (d && threadIdx.x == 0) rstd[n] = q;
    });
}

template <class T, int W, int K> struct operands { pn_staged_row<T, W, K, OPERANDS> s, dy, ds; };

/* w is NULL where neither of these is wanted. */
template <class T> struct gradients {
    const float *w;
    pn_gradient<T> dx, dr;
    float *part;
};

/* dx += ds + q (c - s q^2 mean(c * s)) with c = w * dy, and dr likewise; dw += dy * s q. ds may be NULL. */
template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>)
    add_gradients(pn_rows rows, const T *s, const T *ds, const T *dy, const float *rstd, gradients<T> g) {
    const float share = 1 / (float)rows.d;
    pn_row<float, W, K> ws(g.w);
    pn_row_sums<W, K> dw(g.part, rows.d);
    if (g.w) pn_pieces<W, K>(rows.d, [&](int j, int64_t i) { ws.load(j, i); });
    auto row_at = [&](int64_t n, int stage) {
        const int64_t at = n * rows.d;
        return operands<T, W, K>{ { s + at, stage, 0 }, { dy + at, stage, 1 }, { ds + (ds ? at : 0), stage, 2 } };
    };
    auto load = [&](int64_t n, int64_t d, int stage) {
        const operands<T, W, K> row = row_at(n, stage);
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            row.s.load(j, i), row.dy.load(j, i);
            if (ds && g.w) row.ds.load(j, i);
        });
        return rstd[n];
    };
    pn_each_staged_row<K>(rows, load, [&](int64_t n, int64_t d, int stage, float q) {
        const operands<T, W, K> row = row_at(n, stage);
        float dot[1] = {};
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.s.get(j, i), dyi = row.dy.get(j, i), u = g.w ? ws.get(j, i) : pn_lanes<W>{};
#pragma unroll
            for (int k = 0; k < W; k++) {
                v.x[k] *= dyi.x[k];
                dot[0] += u.x[k] * v.x[k];
                v.x[k] *= q;
            }
            if (g.part) dw.add(j, i, v);
        });
        if (!g.w) return;
        pn_team_sum(dot);
        float mean = q * q * dot[0] * share;
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.s.get(j, i), dyi = row.dy.get(j, i), u = ws.get(j, i);
            pn_lanes<W> sum = ds ? row.ds.get(j, i) : pn_lanes<W>{};
#pragma unroll
            for (int k = 0; k < W; k++) sum.x[k] += q * (u.x[k] * dyi.x[k] - v.x[k] * mean);
            if (g.dx.to) g.dx.put(n * rows.d + i, sum);
            if (g.dr.to) g.dr.put(n * rows.d + i, sum);
        });
    });
    dw.finish(rows.d, (float *)pn_staged);
}

pn_rows rows_of(const pn_op_call *c) {
    return { c->in[X]->shape[0], 1, c->in[X]->shape[1], 1 };
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    constexpr int V = pn_vector<T>::n;
    const T *x = pn_values<T>(c->in[X]), *r = pn_values<T>(c->in[R]);
    const float *w = pn_f32(c->in[WEIGHT]), eps = (float)((const pn_add_rms_norm_attr *)c->attr)->eps;
    T *s = pn_values<T>(c->out[S]), *y = pn_values<T>(c->out[Y]);
    float *rstd = pn_f32(c->out[RSTD]);
    const auto team = pn_cuda_team<T, MOST>(rows_of(c).d, pn_cuda_in_pieces<V>(x, r, w, s, y));
    const pn_rows rows = pn_cuda_rows(rows_of(c), team, PN_ROWS_AHEAD);
    if (rows.tokens == 0) return PN_OK;
    return pn_cuda_with_team(name, team, [&](auto kind) {
        normalise<T, kind.W, kind.K>
            <<<pn_rows_blocks(rows), team.threads, 0, pn_cuda_stream()>>>(rows, x, r, w, eps, s, y, rstd);
    });
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    constexpr int V = pn_vector<T>::n;
    const T *s = pn_values<T>(c->out[S]), *ds = pn_values_or_null<T>(c->dout[S]), *dy = pn_values<T>(c->dout[Y]);
    const float *rstd = pn_f32(c->out[RSTD]);
    gradients<T> g = {};
    g.dx = pn_cuda_gradient<T>(c, X);
    g.dr = pn_cuda_gradient<T>(c, R);
    g.w = g.dx.to || g.dr.to ? pn_f32(c->in[WEIGHT]) : NULL;
    g.part = c->din[WEIGHT] ? (float *)c->scratch : NULL;
    const pn_rows rows = pn_cuda_rows_to_sum(rows_of(c));
    const bool whole = pn_cuda_in_pieces<V>(s, ds, dy, g.w, g.dx.to, g.dr.to);
    const auto team = pn_cuda_staged_team<T, MOST>(rows.d, whole, OPERANDS);
    if (rows.tokens > 0 && (g.w || g.part))
        PN_TRY(pn_cuda_with_team(name, team, [&](auto kind) {
            const size_t bytes = pn_stages_bytes(team, OPERANDS);
            auto kernel = add_gradients<T, kind.W, kind.K>;
            pn_cuda_allow_shared(kernel, bytes);
            kernel<<<pn_rows_blocks(rows), team.threads, bytes, pn_cuda_stream()>>>(rows, s, ds, dy, rstd, g);
        }));
    return pn_cuda_row_sums_finish(name, c, WEIGHT, rows, rows.d, g.part);
}

/* y led nowhere. */
template <class T> pn_status backward_of_sum(const pn_op_call *c) {
    for (int k = X; k <= R; k++) PN_TRY(pn_cuda_map_gradient<T>(name, c, k, pn_identity{}, pn_values<T>(c->dout[S])));
    return c->din[WEIGHT] && !pn_op_adds(c, WEIGHT) ? pn_tensor_fill_zero(c->din[WEIGHT]) : PN_OK;
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[X], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    if (c->dout[Y]) return PN_CUDA_TYPED(c->dout[Y], backward_of, c);
    return c->dout[S] ? PN_CUDA_TYPED(c->dout[S], backward_of_sum, c) : pn_cuda_zero_fresh(c);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    const pn_rows rows = pn_cuda_rows_to_sum(rows_of(c));
    return backward_pass && c->wants[WEIGHT] ? (size_t)pn_row_sums_elems(rows, rows.d) * sizeof(float) : 0;
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(add_rms_norm, &impl)
