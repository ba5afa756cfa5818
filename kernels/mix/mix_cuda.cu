#include "cuda/map.cuh"
#include "cuda/reduce.cuh"

#include "mix.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "mix/cuda";

struct mixture {
    const float *p, *x[PN_MIX_MAX]; /* NULL: a term of zero */
    int n;
};

__global__ void __launch_bounds__(PN_MAP_THREADS) add_up(float *y, int64_t n, mixture m) {
    int64_t step = (int64_t)gridDim.x * PN_MAP_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * PN_MAP_THREADS + threadIdx.x; i < n; i += step) {
        float sum = 0;
        for (int k = 0; k < m.n; k++)
            if (m.x[k]) sum += m.p[k] * m.x[k][i];
        y[i] = sum;
    }
}

struct weighted {
    const float *p;
    __device__ float operator()(float dy) const { return *p * dy; }
};

struct product {
    const float *dy, *x;
    __device__ void operator()(int64_t i, float v[1]) const { v[0] = dy[i] * x[i]; }
};
struct add_first {
    float *to;
    __device__ void operator()(const double sum[1]) const { *to += (float)sum[0]; }
};

} // namespace

static pn_status forward(const pn_op_call *c) {
    const pn_mix_attr *attr = (const pn_mix_attr *)c->attr;
    int64_t n = pn_tensor_elems(c->out[0]);
    mixture m = {};
    m.p = pn_f32(c->in[0]) + attr->row * c->in[0]->shape[1];
    m.n = c->n_in - 1;
    for (int k = 0; k < m.n; k++) m.x[k] = pn_f32_or_null(c->in[1 + k]);
    if (n == 0) return PN_OK;
    add_up<<<pn_map_grid(n), PN_MAP_THREADS, 0, pn_cuda_stream()>>>(pn_f32(c->out[0]), n, m);
    return pn_cuda_launched(name);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const pn_mix_attr *attr = (const pn_mix_attr *)c->attr;
    int64_t row = attr->row * c->in[0]->shape[1], n = pn_tensor_elems(c->dout[0]);
    const float *dy = pn_f32(c->dout[0]);
    for (int k = 1; k < c->n_in; k++) {
        int64_t at = row + k - 1;
        if (!c->in[k]) continue;
        if (c->din[0])
            PN_TRY(pn_cuda_sums<1>(name, n, product{ dy, pn_f32(c->in[k]) }, add_first{ pn_f32(c->din[0]) + at },
                                   c->scratch));
        if (c->din[k]) PN_TRY(pn_cuda_map<true>(name, pn_f32(c->din[k]), n, weighted{ pn_f32(c->in[0]) + at }, dy));
    }
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    return backward_pass && c->wants[0] ? pn_cuda_sums_scratch(pn_tensor_elems(c->out[0]), 1) : 0;
}

static const pn_op_impl impl = {
    .name = name, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(mix, &impl)
