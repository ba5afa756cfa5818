#include "cuda/rows.cuh"

#include "head_scale.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "head_scale/cuda";

enum { MOST = 2 }; /* pieces of an operand that a thread keeps */

enum { X, S, A };

/* A factor for every row (a head of a token), or one for every group of them (a head). */
struct factors {
    const float *s;
    bool each;
    __device__ float at(int64_t row, int64_t groups) const { return s[each ? row : row % groups]; }
};

template <class T, int W, int K> struct operands {
    pn_row<T, W, K> x, other; /* a, or dy */
    float s;
};

/* a may be NULL. */
template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>) apply(pn_rows r, factors f, const T *x, const T *a, T *y) {
    auto load = [&](int64_t n, int64_t d) {
        operands<T, W, K> row = { x + n * r.d, a + (a ? n * r.d : 0), f.at(n, r.groups) };
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            row.x.load(j, i);
            if (a) row.other.load(j, i);
        });
        return row;
    };
    pn_each_row(r, load, [&](int64_t n, int64_t d, const operands<T, W, K> &row) {
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            pn_lanes<W> v = row.x.get(j, i), b = a ? row.other.get(j, i) : pn_lanes<W>{};
#pragma unroll
            for (int k = 0; k < W; k++) v.x[k] = row.s * v.x[k] + b.x[k];
            pn_lanes_put(y + n * r.d + i, v);
        });
    });
}

/* What is not wanted is NULL, and so are x and s where they are not needed. */
template <class T> struct gradients {
    const T *x;
    pn_gradient<T> dx, da;
    pn_gradient<float> ds; /* for every row, or */
    float *part;           /* parts of the sums of every group */
};

/* dx += s dy, da += dy, ds += <dy, x> */
template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>)
    add_gradients(pn_rows r, factors f, const T *dy, gradients<T> g) {
    float all = 0;
    auto load = [&](int64_t n, int64_t d) {
        operands<T, W, K> row = { g.x + (g.x ? n * r.d : 0), dy + n * r.d, g.dx.to ? f.at(n, r.groups) : 0 };
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            row.other.load(j, i);
            if (g.x) row.x.load(j, i);
        });
        return row;
    };
    pn_each_row(r, load, [&](int64_t n, int64_t d, const operands<T, W, K> &row) {
        float dot[1] = {};
        pn_pieces<W, K>(d, [&](int j, int64_t i) {
            const int64_t at = n * r.d + i;
            pn_lanes<W> v = row.other.get(j, i), u = g.x ? row.x.get(j, i) : pn_lanes<W>{};
            if (g.da.to) g.da.put(at, v);
#pragma unroll
            for (int k = 0; k < W; k++) {
                dot[0] += v.x[k] * u.x[k];
                v.x[k] *= row.s;
            }
            if (g.dx.to) g.dx.put(at, v);
        });
        if (!g.x) return;
        pn_team_sum(dot);
        all += dot[0];
        if (g.ds.to && d && threadIdx.x == 0) g.ds.put(n, pn_lanes<1>{ { dot[0] } });
    });
    if (!g.part) return;
    __shared__ float team[PN_TEAM_THREADS];
    if (threadIdx.x == 0) team[threadIdx.y] = all;
    __syncthreads();
    if (threadIdx.x > 0 || threadIdx.y > 0) return;
    for (unsigned y = 1; y < blockDim.y; y++) all += team[y];
    g.part[blockIdx.x] = all;
}

pn_rows rows_of(const pn_op_call *c) {
    const pn_tensor *s = c->in[S];
    int64_t H = s->shape[s->rank - 1];
    return { c->in[X]->shape[0], H, c->in[X]->shape[1] / H, 1 };
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    const factors f = { pn_f32(c->in[S]), c->in[S]->rank == 2 };
    const T *x = pn_values<T>(c->in[X]), *a = pn_values_or_null<T>(c->in[A]);
    T *y = pn_values<T>(c->out[0]);
    const auto team = pn_cuda_team<T, MOST>(rows_of(c).d, pn_cuda_in_pieces<pn_vector<T>::n>(x, a, y));
    const pn_rows r = pn_cuda_rows(rows_of(c), team, 0);
    if (r.tokens == 0) return PN_OK;
    return pn_cuda_with_team(name, team, [&](auto kind) {
        apply<T, kind.W, kind.K><<<pn_rows_blocks(r), team.threads, 0, pn_cuda_stream()>>>(r, f, x, a, y);
    });
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    const pn_rows r = pn_cuda_rows_to_sum(rows_of(c));
    const bool each = c->in[S]->rank == 2;
    const factors f = { c->din[X] ? pn_f32(c->in[S]) : NULL, each };
    const T *dy = pn_values<T>(c->dout[0]);
    gradients<T> g = {};
    g.x = c->din[S] ? pn_values<T>(c->in[X]) : NULL;
    g.dx = pn_cuda_gradient<T>(c, X);
    g.da = pn_cuda_gradient<T>(c, A);
    if (each) g.ds = pn_cuda_gradient<float>(c, S);
    g.part = c->din[S] && !each ? (float *)c->scratch : NULL;
    const auto team = pn_cuda_team<T, MOST>(r.d, pn_cuda_in_pieces<pn_vector<T>::n>(dy, g.x, g.dx.to, g.da.to));
    if (r.tokens > 0 && (g.x || g.dx.to || g.da.to))
        PN_TRY(pn_cuda_with_team(name, team, [&](auto kind) {
            add_gradients<T, kind.W, kind.K><<<pn_rows_blocks(r), team.threads, 0, pn_cuda_stream()>>>(r, f, dy, g);
        }));
    return g.part ? pn_cuda_row_sums_finish(name, c, S, r, 1, g.part) : PN_OK;
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[X], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->dout[0] ? PN_CUDA_TYPED(c->dout[0], backward_of, c) : pn_cuda_zero_fresh(c);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (!backward_pass || !c->wants[S] || c->in[S]->rank == 2) return 0;
    return (size_t)pn_row_sums_elems(pn_cuda_rows_to_sum(rows_of(c)), 1) * sizeof(float);
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(head_scale, &impl)
