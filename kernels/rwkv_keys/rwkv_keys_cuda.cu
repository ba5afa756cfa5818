#include "cuda/rows.cuh"

#include "rwkv_keys.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "rwkv_keys/cuda";

enum { MOST = 1 }; /* pieces of an operand that a thread keeps */

enum { K_IN, A, K_K, K_A };
enum { KEY, REMOVE, ADD };

struct bound { /* of the norm */
    float eps, floor;
    __device__ float unit(float squares) const { return 1 / fmaxf(sqrtf(squares + eps), floor); }
};

template <class T> struct keys {
    const T *k, *a;
    const float *k_k, *k_a;
    T *key, *rem, *add;
};

template <class T, int W, int K> struct rows_of_keys { pn_row<T, W, K> k, a; };

template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>) make(pn_rows r, bound b, keys<T> p) {
    const int64_t first = blockIdx.x % r.groups * r.d;
    pn_row<float, W, K> k_ks(p.k_k + first), k_as(p.k_a + first);
    pn_pieces<W, K>(r.d, [&](int j, int64_t i) { k_ks.load(j, i), k_as.load(j, i); });
    auto load = [&](int64_t n, int64_t d) {
        rows_of_keys<T, W, K> row = { p.k + n * r.d, p.a + n * r.d };
        pn_pieces<W, K>(d, [&](int j, int64_t i) { row.k.load(j, i), row.a.load(j, i); });
        return row;
    };
    pn_each_row(r, load, [&](int64_t n, int64_t d, const rows_of_keys<T, W, K> &row) {
        const int64_t at = n * r.d;
        float sum[1] = {};
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> k = row.k.get(j, i), k_k = k_ks.get(j, i);
#pragma unroll
            for (int l = 0; l < W; l++) sum[0] += k.x[l] * k_k.x[l] * (k.x[l] * k_k.x[l]);
        });
        pn_team_sum(sum);
        const float unit = b.unit(sum[0]);
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> k = row.k.get(j, i), a = row.a.get(j, i), k_k = k_ks.get(j, i), k_a = k_as.get(j, i);
            pn_lanes<W> key, rem, add;
#pragma unroll
            for (int l = 0; l < W; l++) {
                float kk = k.x[l] * k_k.x[l] * unit;
                key.x[l] = k.x[l] * (1 + (a.x[l] - 1) * k_a.x[l]);
                rem.x[l] = -kk;
                add.x[l] = kk * a.x[l];
            }
            pn_lanes_put(p.key + at + i, key);
            pn_lanes_put(p.rem + at + i, rem);
            pn_lanes_put(p.add + at + i, add);
        });
    });
}

/* NULL: a gradient that did not come, a sum that is not wanted. */
template <class T> struct gradients {
    const T *key, *rem, *add;
    pn_gradient<T> k, a;
    float *k_k, *k_a; /* parts of the sums */
};

template <class T, int W, int K> struct operands {
    pn_row<T, W, K> k, a, key, rem, add; /* the last three: gradients that came */
};

/* dkk = a * d_add - d_remove, du = r (dkk - kk <dkk, kk>); dk and dk_k from du and d_key, da from d_add and d_key. */
template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>, 2)
    add_gradients(pn_rows r, bound b, keys<T> p, gradients<T> g) {
    const int64_t first = blockIdx.x % r.groups * r.d;
    pn_row<float, W, K> k_ks(p.k_k + first), k_as(p.k_a + first);
    pn_row_sums<W, K> dk_k(g.k_k, r.d), dk_a(g.k_a, r.d);
    pn_pieces<W, K>(r.d, [&](int j, int64_t i) { k_ks.load(j, i), k_as.load(j, i); });
    auto load = [&](int64_t n, int64_t d) {
        const int64_t at = n * r.d;
        operands<T, W, K> row = { p.k + at, p.a + at, g.key + at, g.rem + at, g.add + at };
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            row.k.load(j, i), row.a.load(j, i);
            if (g.key) row.key.load(j, i);
            if (g.rem) row.rem.load(j, i);
            if (g.add) row.add.load(j, i);
        });
        return row;
    };
    pn_each_row(r, load, [&](int64_t n, int64_t d, const operands<T, W, K> &row) {
        const int64_t at = n * r.d;
        float sum[2] = {}; /* of u^2 and dkk * u */
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> k = row.k.get(j, i), a = row.a.get(j, i), k_k = k_ks.get(j, i), none = {};
            pn_lanes<W> drem = g.rem ? row.rem.get(j, i) : none, dadd = g.add ? row.add.get(j, i) : none;
#pragma unroll
            for (int l = 0; l < W; l++) {
                float u = k.x[l] * k_k.x[l];
                sum[0] += u * u;
                sum[1] += (a.x[l] * dadd.x[l] - drem.x[l]) * u;
            }
        });
        pn_team_sum(sum);
        const float unit = b.unit(sum[0]), dot = sum[1] * unit;
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> k = row.k.get(j, i), a = row.a.get(j, i), k_k = k_ks.get(j, i), k_a = k_as.get(j, i);
            pn_lanes<W> none = {}, dkey = g.key ? row.key.get(j, i) : none, drem = g.rem ? row.rem.get(j, i) : none;
            pn_lanes<W> dadd = g.add ? row.add.get(j, i) : none, to_k, to_a, to_k_k, to_k_a;
#pragma unroll
            for (int l = 0; l < W; l++) {
                float kk = k.x[l] * k_k.x[l] * unit, du = unit * (a.x[l] * dadd.x[l] - drem.x[l] - kk * dot);
                to_k.x[l] = dkey.x[l] * (1 + (a.x[l] - 1) * k_a.x[l]) + k_k.x[l] * du;
                to_a.x[l] = kk * dadd.x[l] + k.x[l] * k_a.x[l] * dkey.x[l];
                to_k_k.x[l] = k.x[l] * du;
                to_k_a.x[l] = k.x[l] * (a.x[l] - 1) * dkey.x[l];
            }
            if (g.k_k) dk_k.add(j, i, to_k_k);
            if (g.k_a) dk_a.add(j, i, to_k_a);
            if (g.k.to) g.k.put(at + i, to_k);
            if (g.a.to) g.a.put(at + i, to_a);
        });
    });
    alignas(16) __shared__ float memory[pn_row_sums<W, K>::elements];
    dk_k.finish(r.d, memory);
    dk_a.finish(r.d, memory);
}

pn_rows rows_of(const pn_op_call *c) {
    int64_t d = ((const pn_rwkv_keys_attr *)c->attr)->head_dim;
    return { c->in[K_IN]->shape[0], c->in[K_IN]->shape[1] / d, d, 1 };
}
bound bound_of(const pn_op_call *c) {
    const pn_rwkv_keys_attr *attr = (const pn_rwkv_keys_attr *)c->attr;
    return { (float)attr->eps, (float)attr->floor };
}
template <class T> keys<T> inputs(const pn_op_call *c) {
    keys<T> p = {};
    p.k = pn_values<T>(c->in[K_IN]);
    p.a = pn_values<T>(c->in[A]);
    p.k_k = pn_f32(c->in[K_K]);
    p.k_a = pn_f32(c->in[K_A]);
    return p;
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    keys<T> p = inputs<T>(c);
    p.key = pn_values<T>(c->out[KEY]);
    p.rem = pn_values<T>(c->out[REMOVE]);
    p.add = pn_values<T>(c->out[ADD]);
    const bool whole = pn_cuda_in_pieces<pn_vector<T>::n>(p.k, p.a, p.k_k, p.k_a, p.key, p.rem, p.add);
    const auto team = pn_cuda_team<T, MOST>(rows_of(c).d, whole);
    const pn_rows r = pn_cuda_rows(rows_of(c), team, 0);
    if (r.tokens == 0) return PN_OK;
    return pn_cuda_with_team(name, team, [&](auto kind) {
        make<T, kind.W, kind.K><<<pn_rows_blocks(r), team.threads, 0, pn_cuda_stream()>>>(r, bound_of(c), p);
    });
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    const pn_rows r = pn_cuda_rows_to_sum(rows_of(c));
    const keys<T> p = inputs<T>(c);
    float *part = (float *)c->scratch;
    gradients<T> g = {};
    g.key = pn_values_or_null<T>(c->dout[KEY]);
    g.rem = pn_values_or_null<T>(c->dout[REMOVE]);
    g.add = pn_values_or_null<T>(c->dout[ADD]);
    g.k = pn_cuda_gradient<T>(c, K_IN);
    g.a = pn_cuda_gradient<T>(c, A);
    g.k_k = c->din[K_K] ? part : NULL;
    g.k_a = c->din[K_A] ? part + pn_row_sums_elems(r, r.d) : NULL;
    const auto team = pn_cuda_team<T, MOST>(
        r.d, pn_cuda_in_pieces<pn_vector<T>::n>(p.k, p.a, p.k_k, p.k_a, g.key, g.rem, g.add, g.k.to, g.a.to));
    if (r.tokens > 0)
        PN_TRY(pn_cuda_with_team(name, team, [&](auto kind) {
            add_gradients<T, kind.W, kind.K>
                <<<pn_rows_blocks(r), team.threads, 0, pn_cuda_stream()>>>(r, bound_of(c), p, g);
        }));
    PN_TRY(pn_cuda_row_sums_finish(name, c, K_K, r, r.d, g.k_k));
    return pn_cuda_row_sums_finish(name, c, K_A, r, r.d, g.k_a);
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[K_IN], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[K_IN], backward_of, c);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    const pn_rows r = pn_cuda_rows_to_sum(rows_of(c));
    return backward_pass && (c->wants[K_K] || c->wants[K_A]) ? 2 * (size_t)pn_row_sums_elems(r, r.d) * sizeof(float)
                                                             : 0;
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(rwkv_keys, &impl)
