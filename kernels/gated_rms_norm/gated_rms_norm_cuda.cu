#include "cuda/map.cuh"
#include "cuda/rows.cuh"

#include "gated_rms_norm.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "gated_rms_norm/cuda";

enum { MOST = 2 }; /* pieces of an operand that a thread keeps */
enum { OPERANDS = 3 };

enum { O, Z, WEIGHT };

template <class T, int W, int K> struct inputs { pn_row<T, W, K> o, z; /* z where there is */ };

/* z may be NULL: no gate. */
template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>)
    normalise(pn_rows r, float eps, const T *o, const T *z, const float *w, T *y) {
    const float share = 1 / (float)r.d;
    pn_row<float, W, K> ws(w);
    pn_pieces<W, K>(r.d, [&](int j, int64_t i) { ws.load(j, i); });
    auto load = [&](int64_t n, int64_t d) {
        inputs<T, W, K> row = { o + n * r.d, z + (z ? n * r.d : 0) };
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            row.o.load(j, i);
            if (z) row.z.load(j, i);
        });
        return row;
    };
    pn_each_row_ahead(r, load, [&](int64_t n, int64_t d, const inputs<T, W, K> &row) {
        float sum[1] = {};
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.o.get(j, i);
#pragma unroll
            for (int k = 0; k < W; k++) sum[0] += v.x[k] * v.x[k];
        });
        pn_team_sum(sum);
        float rstd = rsqrtf(sum[0] * share + eps);
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.o.get(j, i), u = ws.get(j, i);
#pragma unroll
            for (int k = 0; k < W; k++) v.x[k] *= u.x[k] * rstd;
            if (z) {
                u = row.z.get(j, i);
#pragma unroll
                for (int k = 0; k < W; k++) v.x[k] *= u.x[k] * pn_sigmoid_for<T>(u.x[k]);
            }
            pn_lanes_put(y + n * r.d + i, v);
        });
    });
}

/* w is NULL where neither gradient is wanted, part where that of w is not. */
template <class T> struct gradients {
    const float *w;
    pn_gradient<T> d_o, dz;
    float *part;
};

template <class T, int W, int K> struct operands { pn_staged_row<T, W, K, OPERANDS> o, dy, z; };

/* q = dy * silu(z): dw += q * o r; dz += dy * w * o r * silu'(z); with c = w * q: do += r (c - o r^2 mean(c * o)). */
template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>)
    add_gradients(pn_rows r, float eps, const T *o, const T *z, const T *dy, gradients<T> g) {
    const float share = 1 / (float)r.d;
    pn_row<float, W, K> ws(g.w);
    pn_row_sums<W, K> dw(g.part, r.d);
    if (g.w) pn_pieces<W, K>(r.d, [&](int j, int64_t i) { ws.load(j, i); });
    auto row_at = [&](int64_t n, int stage) {
        const int64_t at = n * r.d;
        return operands<T, W, K>{ { o + at, stage, 0 }, { dy + at, stage, 1 }, { z + (z ? at : 0), stage, 2 } };
    };
    auto load = [&](int64_t n, int64_t d, int stage) {
        const operands<T, W, K> row = row_at(n, stage);
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            row.o.load(j, i), row.dy.load(j, i);
            if (z) row.z.load(j, i);
        });
        return PN_NO_MORE;
    };
    pn_each_staged_row<K>(r, load, [&](int64_t n, int64_t d, int stage, pn_no_more) {
        const operands<T, W, K> row = row_at(n, stage);
        pn_lanes<W> s[K > 0 ? K : 1]; /* sig(z) */
        auto open = [&](int j, int64_t i) {
            pn_lanes<W> v = z ? row.z.get(j, i) : pn_lanes<W>{};
#pragma unroll
            for (int k = 0; z && k < W; k++) s[j].x[k] = pn_sigmoid_for<T>(v.x[k]);
            return v;
        };
        float sum[2] = {}; /* of o^2 and c * o */
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.o.get(j, i), q = row.dy.get(j, i), gate = open(j, i);
            pn_lanes<W> u = g.w ? ws.get(j, i) : pn_lanes<W>{};
#pragma unroll
            for (int k = 0; k < W; k++) {
                if (z) q.x[k] *= gate.x[k] * s[j].x[k];
                sum[0] += v.x[k] * v.x[k];
                sum[1] += u.x[k] * q.x[k] * v.x[k];
            }
        });
        pn_team_sum(sum);
        float rstd = rsqrtf(sum[0] * share + eps), mean = rstd * rstd * sum[1] * share;
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.o.get(j, i), q = row.dy.get(j, i);
            pn_lanes<W> gate = K == 0 ? open(j, i) : z ? row.z.get(j, i) : q;
            pn_lanes<W> u = g.w ? ws.get(j, i) : pn_lanes<W>{}, to_o, to_z, to_w;
#pragma unroll
            for (int k = 0; k < W; k++) {
                float normal = v.x[k] * rstd, dyk = q.x[k];
                if (z) {
                    float sig = s[j].x[k];
                    to_z.x[k] = dyk * u.x[k] * normal * sig * (1 + gate.x[k] * (1 - sig));
                    dyk *= gate.x[k] * sig;
                }
                to_w.x[k] = dyk * normal;
                to_o.x[k] = rstd * (u.x[k] * dyk - v.x[k] * mean);
            }
            if (g.part) dw.add(j, i, to_w);
            if (g.d_o.to) g.d_o.put(n * r.d + i, to_o);
            if (g.dz.to) g.dz.put(n * r.d + i, to_z);
        });
    });
    dw.finish(r.d, (float *)pn_staged);
}

/* Heads share the weight: rows of one group. */
pn_rows rows_of(const pn_op_call *c) {
    int64_t d = ((const pn_gated_rms_norm_attr *)c->attr)->head_dim;
    return { pn_tensor_elems(c->in[O]) / d, 1, d, 1 };
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    constexpr int V = pn_vector<T>::n;
    const T *o = pn_values<T>(c->in[O]), *z = pn_values_or_null<T>(c->in[Z]);
    const float *w = pn_f32(c->in[WEIGHT]), eps = (float)((const pn_gated_rms_norm_attr *)c->attr)->eps;
    T *y = pn_values<T>(c->out[0]);
    const auto team = pn_cuda_team<T, MOST>(rows_of(c).d, pn_cuda_in_pieces<V>(o, z, w, y));
    const pn_rows r = pn_cuda_rows(rows_of(c), team, PN_ROWS_AHEAD);
    if (r.tokens == 0) return PN_OK;
    return pn_cuda_with_team(name, team, [&](auto kind) {
        normalise<T, kind.W, kind.K><<<pn_rows_blocks(r), team.threads, 0, pn_cuda_stream()>>>(r, eps, o, z, w, y);
    });
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    constexpr int V = pn_vector<T>::n;
    const T *o = pn_values<T>(c->in[O]), *z = pn_values_or_null<T>(c->in[Z]), *dy = pn_values<T>(c->dout[0]);
    const float eps = (float)((const pn_gated_rms_norm_attr *)c->attr)->eps;
    gradients<T> g = {};
    g.d_o = pn_cuda_gradient<T>(c, O);
    if (z) g.dz = pn_cuda_gradient<T>(c, Z);
    g.w = g.d_o.to || g.dz.to ? pn_f32(c->in[WEIGHT]) : NULL;
    g.part = c->din[WEIGHT] ? (float *)c->scratch : NULL;
    const pn_rows r = pn_cuda_rows_to_sum(rows_of(c));
    const bool whole = pn_cuda_in_pieces<V>(o, z, dy, g.w, g.d_o.to, g.dz.to);
    const auto team = pn_cuda_staged_team<T, MOST>(r.d, whole, OPERANDS);
    if (r.tokens > 0 && (g.w || g.part))
        PN_TRY(pn_cuda_with_team(name, team, [&](auto kind) {
            const size_t bytes = pn_stages_bytes(team, OPERANDS);
            auto kernel = add_gradients<T, kind.W, kind.K>;
            pn_cuda_allow_shared(kernel, bytes);
            kernel<<<pn_rows_blocks(r), team.threads, bytes, pn_cuda_stream()>>>(r, eps, o, z, dy, g);
        }));
    return pn_cuda_row_sums_finish(name, c, WEIGHT, r, r.d, g.part);
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[O], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->dout[0] ? PN_CUDA_TYPED(c->in[O], backward_of, c) : pn_cuda_zero_fresh(c);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    const pn_rows r = pn_cuda_rows_to_sum(rows_of(c));
    return backward_pass && c->wants[WEIGHT] ? (size_t)pn_row_sums_elems(r, r.d) * sizeof(float) : 0;
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(gated_rms_norm, &impl)
