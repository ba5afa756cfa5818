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

/* a may be NULL. */
template <class T, int W, int K>
__global__ void __launch_bounds__(pn_team_threads<W, K>) apply(pn_rows r, factors f, const T *x, const T *a, T *y) {
    pn_each_row(r, [=](int64_t n, int64_t d) {
        const float s = f.at(n, r.groups);
        pn_pieces<W, K>(d, [&](int, int64_t i) {
            pn_lanes<W> v = pn_lanes_at<W>(x + n * r.d + i), b = {};
            if (a) b = pn_lanes_at<W>(a + n * r.d + i);
#pragma unroll
            for (int k = 0; k < W; k++) v.x[k] = s * v.x[k] + b.x[k];
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
    add_gradients(pn_rows r, int64_t run, factors f, const T *dy, gradients<T> g) {
    float all = 0;
    pn_each_row_of_group(r, run, [&](int64_t n, int64_t d) {
        const float s = g.dx.to ? f.at(n, r.groups) : 0;
        float dot[1] = {};
        pn_pieces<W, K>(d, [&](int, int64_t i) {
            const int64_t at = n * r.d + i;
            pn_lanes<W> v = pn_lanes_at<W>(dy + at), u = g.x ? pn_lanes_at<W>(g.x + at) : pn_lanes<W>{};
            if (g.da.to) g.da.put(at, v);
#pragma unroll
            for (int k = 0; k < W; k++) {
                dot[0] += v.x[k] * u.x[k];
                v.x[k] *= s;
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
    return { c->in[X]->shape[0], H, c->in[X]->shape[1] / H };
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    const pn_rows r = rows_of(c);
    const factors f = { pn_f32(c->in[S]), c->in[S]->rank == 2 };
    const T *x = pn_values<T>(c->in[X]), *a = pn_values_or_null<T>(c->in[A]);
    T *y = pn_values<T>(c->out[0]);
    const auto team = pn_cuda_team<T, MOST>(r.d, pn_cuda_in_pieces<pn_vector<T>::n>(x, a, y));
    if (r.tokens == 0) return PN_OK;
    return pn_cuda_with_team(name, team, [&](auto kind) {
        apply<T, kind.W, kind.K><<<pn_rows_grid(r, team), team.threads, 0, pn_cuda_stream()>>>(r, f, x, a, y);
    });
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    const pn_rows r = rows_of(c);
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
            add_gradients<T, kind.W, kind.K>
                <<<pn_row_runs_grid(r), team.threads, 0, pn_cuda_stream()>>>(r, pn_rows_run(r), f, dy, g);
        }));
    return g.part ? pn_cuda_row_sums_finish(name, c, S, r, 1, g.part) : PN_OK;
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->in[X], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    return c->dout[0] ? PN_CUDA_TYPED(c->dout[0], backward_of, c) : PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    return backward_pass && c->wants[S] && c->in[S]->rank == 1 ? pn_row_sums_scratch(rows_of(c), 1) : 0;
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(head_scale, &impl)
