#include "cuda/rows.cuh"

#include "rwkv_output.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "rwkv_output/cuda";

enum { MOST = 1 }; /* pieces of an operand that a thread keeps */

enum { O, R, KEY, V, GATE, R_K };

template <class T> struct inputs {
    const T *o, *r, *k, *v, *gate;
    const float *r_k;
};

template <class T, int W, int K> struct operands { pn_row<T, W, K> o, r, k, v, gate, dy; /* dy in backward */ };
/* Of the row whose first element is `at`. dy: NULL in forward. */
template <class T, int W, int K>
__device__ operands<T, W, K> load_row(const inputs<T> &p, const T *dy, int64_t at, int64_t d) {
    operands<T, W, K> row = { p.o + at, p.r + at, p.k + at, p.v + at, p.gate + at, dy + (dy ? at : 0) };
    pn_pieces<W, K>(d, [&](int j, int64_t i) {
        row.r.load(j, i), row.k.load(j, i), row.o.load(j, i), row.v.load(j, i), row.gate.load(j, i);
        if (dy) row.dy.load(j, i);
    });
    return row;
}

template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>) apply(pn_rows rows, inputs<T> p, T *y) {
    pn_row<float, W, K> r_ks(p.r_k + blockIdx.x % rows.groups * rows.d);
    pn_pieces<W, K>(rows.d, [&](int j, int64_t i) { r_ks.load(j, i); });
    auto load = [&](int64_t n, int64_t d) { return load_row<T, W, K>(p, NULL, n * rows.d, d); };
    pn_each_row(rows, load, [&](int64_t n, int64_t d, const operands<T, W, K> &row) {
        const int64_t at = n * rows.d;
        float bonus[1] = {};
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> r = row.r.get(j, i), k = row.k.get(j, i), r_k = r_ks.get(j, i);
#pragma unroll
            for (int l = 0; l < W; l++) bonus[0] += r.x[l] * k.x[l] * r_k.x[l];
        });
        pn_team_sum(bonus);
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> o = row.o.get(j, i), v = row.v.get(j, i), gate = row.gate.get(j, i);
#pragma unroll
            for (int l = 0; l < W; l++) o.x[l] = (o.x[l] + bonus[0] * v.x[l]) * gate.x[l];
            pn_lanes_put(y + at + i, o);
        });
    });
}

template <class T> struct gradients {
    pn_gradient<T> o, r, k, v, gate;
    float *r_k; /* parts of the sums; NULL: not wanted */
};

/* With do = dy * gate and dc = <do, v>: dr = dc k r_k, dk = dc r r_k, dr_k = sum dc r k, dv = c do. */
template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>, 2)
    add_gradients(pn_rows rows, inputs<T> p, const T *dy, gradients<T> g) {
    pn_row<float, W, K> r_ks(p.r_k + blockIdx.x % rows.groups * rows.d);
    pn_row_sums<W, K> dr_k(g.r_k, rows.d);
    pn_pieces<W, K>(rows.d, [&](int j, int64_t i) { r_ks.load(j, i); });
    auto load = [&](int64_t n, int64_t d) { return load_row<T, W, K>(p, dy, n * rows.d, d); };
    pn_each_row(rows, load, [&](int64_t n, int64_t d, const operands<T, W, K> &row) {
        const int64_t at = n * rows.d;
        float sum[2] = {}; /* c and dc */
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> r = row.r.get(j, i), k = row.k.get(j, i), r_k = r_ks.get(j, i);
            pn_lanes<W> v = row.v.get(j, i), gate = row.gate.get(j, i), dy = row.dy.get(j, i);
#pragma unroll
            for (int l = 0; l < W; l++) {
                sum[0] += r.x[l] * k.x[l] * r_k.x[l];
                sum[1] += dy.x[l] * gate.x[l] * v.x[l];
            }
        });
        pn_team_sum(sum);
        const float c = sum[0], dc = sum[1];
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> r = row.r.get(j, i), k = row.k.get(j, i), r_k = r_ks.get(j, i), to_r, to_k, to_r_k;
#pragma unroll
            for (int l = 0; l < W; l++) {
                to_r.x[l] = dc * k.x[l] * r_k.x[l];
                to_k.x[l] = dc * r.x[l] * r_k.x[l];
                to_r_k.x[l] = dc * r.x[l] * k.x[l];
            }
            if (g.r_k) dr_k.add(j, i, to_r_k);
            if (g.r.to) g.r.put(at + i, to_r);
            if (g.k.to) g.k.put(at + i, to_k);
        });
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> o = row.o.get(j, i), v = row.v.get(j, i), gate = row.gate.get(j, i), dy = row.dy.get(j, i),
                        to_v;
#pragma unroll
            for (int l = 0; l < W; l++) {
                o.x[l] = dy.x[l] * (o.x[l] + c * v.x[l]);
                gate.x[l] *= dy.x[l];
                to_v.x[l] = c * gate.x[l];
            }
            if (g.gate.to) g.gate.put(at + i, o);
            if (g.o.to) g.o.put(at + i, gate);
            if (g.v.to) g.v.put(at + i, to_v);
        });
    });
    alignas(16) __shared__ float memory[pn_row_sums<W, K>::elements];
    dr_k.finish(rows.d, memory);
}

pn_rows rows_of(const pn_op_call *c) {
    return { c->in[O]->shape[0], c->in[R_K]->shape[0], c->in[R_K]->shape[1], 1 };
}
template <class T> inputs<T> inputs_of(const pn_op_call *c) {
    return { pn_values<T>(c->in[O]), pn_values<T>(c->in[R]),    pn_values<T>(c->in[KEY]),
             pn_values<T>(c->in[V]), pn_values<T>(c->in[GATE]), pn_f32(c->in[R_K]) };
}
template <class T, class... X> pn_team<T, MOST> team_of(const pn_op_call *c, const inputs<T> &p, const X *...more) {
    return pn_cuda_team<T, MOST>(rows_of(c).d,
                                 pn_cuda_in_pieces<pn_vector<T>::n>(p.o, p.r, p.k, p.v, p.gate, p.r_k, more...));
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    const inputs<T> p = inputs_of<T>(c);
    T *y = pn_values<T>(c->out[0]);
    const auto team = team_of(c, p, y);
    const pn_rows r = pn_cuda_rows(rows_of(c), team, 0);
    if (r.tokens == 0) return PN_OK;
    return pn_cuda_with_team(name, team, [&](auto kind) {
        apply<T, kind.W, kind.K><<<pn_rows_blocks(r), team.threads, 0, pn_cuda_stream()>>>(r, p, y);
    });
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    const pn_rows r = pn_cuda_rows_to_sum(rows_of(c));
    const inputs<T> p = inputs_of<T>(c);
    const T *dy = pn_values<T>(c->dout[0]);
    const gradients<T> g = { pn_cuda_gradient<T>(c, O),    pn_cuda_gradient<T>(c, R),
                             pn_cuda_gradient<T>(c, KEY),  pn_cuda_gradient<T>(c, V),
                             pn_cuda_gradient<T>(c, GATE), c->din[R_K] ? (float *)c->scratch : NULL };
    const auto team = team_of(c, p, dy, g.o.to, g.r.to, g.k.to, g.v.to, g.gate.to);
    if (r.tokens > 0)
        PN_TRY(pn_cuda_with_team(name, team, [&](auto kind) {
            add_gradients<T, kind.W, kind.K><<<pn_rows_blocks(r), team.threads, 0, pn_cuda_stream()>>>(r, p, dy, g);
        }));
    return pn_cuda_row_sums_finish(name, c, R_K, r, r.d, g.r_k);
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
    return backward_pass && c->wants[R_K] ? (size_t)pn_row_sums_elems(r, r.d) * sizeof(float) : 0;
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(rwkv_output, &impl)
