#include "cuda/rows.cuh"

#include "group_norm.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "group_norm/cuda";

enum { MOST = 2 }; /* pieces of an operand that a thread keeps */
enum { OPERANDS = 2 };

enum { X, SCALE, SHIFT };
enum { Y, MEAN, RSTD };

/* The mean goes first: a variance as mean(x^2) - mean^2 cancels. */
template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>)
    normalise(pn_rows r, float eps, const T *x, const float *w, const float *b, T *y, float *mean, float *rstd) {
    const float share = 1 / (float)r.d;
    const int64_t first = blockIdx.x % (unsigned)r.groups * r.d;
    pn_row<float, W, K> ws(w + first), bs(b + first);
    pn_pieces<W, K>(r.d, [&](int j, int64_t i) { ws.load(j, i), bs.load(j, i); });
    auto load = [&](int64_t n, int64_t d) {
        pn_row<T, W, K> row(x + n * r.d);
        pn_pieces<W, K>(d, [&](int j, int64_t i) { row.load(j, i); });
        return row;
    };
    pn_each_row_ahead(r, load, [&](int64_t n, int64_t d, const pn_row<T, W, K> &row) {
        float sum[1] = {}, square[1] = {};
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.get(j, i);
#pragma unroll
            for (int k = 0; k < W; k++) sum[0] += v.x[k];
        });
        pn_team_sum(sum);
        float m = sum[0] * share;
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.get(j, i);
#pragma unroll
            for (int k = 0; k < W; k++) square[0] += (v.x[k] - m) * (v.x[k] - m);
        });
        pn_team_sum(square);
        float s = rsqrtf(square[0] * share + eps);
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.get(j, i), u = ws.get(j, i), shift = bs.get(j, i);
#pragma unroll
            for (int k = 0; k < W; k++) v.x[k] = u.x[k] * ((v.x[k] - m) * s) + shift.x[k];
            pn_lanes_put(y + n * r.d + i, v);
        });
        if (d && threadIdx.x == 0) mean[n] = m, rstd[n] = s;
    });
}

/* What is not wanted is NULL, and so are x and w where they are not needed. */
template <class T> struct gradients {
    const T *x;
    const float *w;
    pn_gradient<T> dx;
    float *dw, *db; /* parts of the sums */
};

template <class T, int W, int K> struct operands { pn_staged_row<T, W, K, OPERANDS> x, dy; };

struct statistics {
    float mean, rstd;
};

/* With z = (x - mean) r and c = w * dy: dx += r (c - mean(c) - z mean(c * z)), dw += dy * z, db += dy. */
template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>, K == 1 ? 4 : 1)
    add_gradients(pn_rows r, const T *dy, const float *mean, const float *rstd, gradients<T> g) {
    const float share = 1 / (float)r.d;
    pn_row<float, W, K> ws(g.w + blockIdx.x % (unsigned)r.groups * r.d);
    pn_row_sums<W, K> dw(g.dw, r.d), db(g.db, r.d);
    if (g.dx.to) pn_pieces<W, K>(r.d, [&](int j, int64_t i) { ws.load(j, i); });
    auto row_at = [&](int64_t n, int stage) {
        const int64_t at = n * r.d;
        return operands<T, W, K>{ { g.x + (g.x ? at : 0), stage, 0 }, { dy + at, stage, 1 } };
    };
    auto load = [&](int64_t n, int64_t d, int stage) {
        const operands<T, W, K> row = row_at(n, stage);
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            row.dy.load(j, i);
            if (g.x) row.x.load(j, i);
        });
        return statistics{ mean[n], rstd[n] };
    };
    pn_each_staged_row<K>(r, load, [&](int64_t n, int64_t d, int stage, const statistics &at) {
        const operands<T, W, K> row = row_at(n, stage);
        auto normal = [&](int j, int64_t i) {
            pn_lanes<W> z = row.x.get(j, i);
#pragma unroll
            for (int k = 0; k < W; k++) z.x[k] = (z.x[k] - at.mean) * at.rstd;
            return z;
        };
        float sum[2] = {}; /* of c and c * z */
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.dy.get(j, i);
            if (g.db) db.add(j, i, v);
            if (!g.x) return;
            pn_lanes<W> z = normal(j, i), u = g.dx.to ? ws.get(j, i) : pn_lanes<W>{};
#pragma unroll
            for (int k = 0; k < W; k++) {
                z.x[k] *= v.x[k];
                sum[0] += u.x[k] * v.x[k];
                sum[1] += u.x[k] * z.x[k];
            }
            if (g.dw) dw.add(j, i, z);
        });
        if (!g.dx.to) return;
        pn_team_sum(sum);
        float mean_c = sum[0] * share, mean_cz = sum[1] * share;
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.dy.get(j, i), z = normal(j, i), u = ws.get(j, i);
#pragma unroll
            for (int k = 0; k < W; k++) v.x[k] = at.rstd * (u.x[k] * v.x[k] - mean_c - z.x[k] * mean_cz);
            g.dx.put(n * r.d + i, v);
        });
    });
    dw.finish(r.d, (float *)pn_staged);
    db.finish(r.d, (float *)pn_staged);
}

pn_rows rows_of(const pn_op_call *c) {
    int64_t groups = ((const pn_group_norm_attr *)c->attr)->groups;
    return { c->in[X]->shape[0], groups, c->in[X]->shape[1] / groups, 1 };
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    const T *x = pn_values<T>(c->in[X]);
    const float *w = pn_f32(c->in[SCALE]), *b = pn_f32(c->in[SHIFT]);
    const float eps = (float)((const pn_group_norm_attr *)c->attr)->eps;
    T *y = pn_values<T>(c->out[Y]);
    float *mean = pn_f32(c->out[MEAN]), *rstd = pn_f32(c->out[RSTD]);
    const auto team = pn_cuda_team<T, MOST>(rows_of(c).d, pn_cuda_in_pieces<pn_vector<T>::n>(x, w, b, y));
    const pn_rows r = pn_cuda_rows(rows_of(c), team, PN_ROWS_AHEAD);
    if (r.tokens == 0) return PN_OK;
    return pn_cuda_with_team(name, team, [&](auto kind) {
        normalise<T, kind.W, kind.K>
            <<<pn_rows_blocks(r), team.threads, 0, pn_cuda_stream()>>>(r, eps, x, w, b, y, mean, rstd);
    });
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    const T *dy = pn_values<T>(c->dout[Y]);
    const float *mean = pn_f32(c->out[MEAN]), *rstd = pn_f32(c->out[RSTD]);
    const pn_rows r = pn_cuda_rows_to_sum(rows_of(c));
    float *part = (float *)c->scratch;
    gradients<T> g = {};
    g.x = c->din[X] || c->din[SCALE] ? pn_values<T>(c->in[X]) : NULL;
    g.w = c->din[X] ? pn_f32(c->in[SCALE]) : NULL;
    g.dx = pn_cuda_gradient<T>(c, X);
    g.dw = c->din[SCALE] ? part : NULL;
    g.db = c->din[SHIFT] ? part + pn_row_sums_elems(r, r.d) : NULL;
    const bool whole = pn_cuda_in_pieces<pn_vector<T>::n>(dy, g.x, g.w, g.dx.to);
    const auto team = pn_cuda_staged_team<T, MOST>(r.d, whole, OPERANDS);
    if (r.tokens > 0 && (g.x || g.db))
        PN_TRY(pn_cuda_with_team(name, team, [&](auto kind) {
            const size_t bytes = pn_stages_bytes(team, OPERANDS);
            auto kernel = add_gradients<T, kind.W, kind.K>;
            pn_cuda_allow_shared(kernel, bytes);
            kernel<<<pn_rows_blocks(r), team.threads, bytes, pn_cuda_stream()>>>(r, dy, mean, rstd, g);
        }));
    PN_TRY(pn_cuda_row_sums_finish(name, c, SCALE, r, r.d, g.dw));
    return pn_cuda_row_sums_finish(name, c, SHIFT, r, r.d, g.db);
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[X], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->dout[Y] ? PN_CUDA_TYPED(c->dout[Y], backward_of, c) : pn_cuda_zero_fresh(c);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    const pn_rows r = pn_cuda_rows_to_sum(rows_of(c));
    return backward_pass && (c->wants[SCALE] || c->wants[SHIFT]) ? 2 * (size_t)pn_row_sums_elems(r, r.d) * sizeof(float)
                                                                 : 0;
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(group_norm, &impl)
