/* A block per row (a group of one), so that its elements are read once from memory and once from the cache. */
#include "cuda/reduce.cuh"

#include "rms_norm.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "rms_norm/cuda";

/* Rows up to this get a small block: they would leave most threads of a large one without work. */
enum { NARROW = 512 };

struct rows {
    int64_t n, d, groups; /* n rows of d, every `groups`-th with the same part of w */
};

template <int THREADS>
__global__ void __launch_bounds__(THREADS)
    normalise(rows r, const float *x, const float *w, float eps, float *y, float *rstd) {
    for (int64_t n = blockIdx.x; n < r.n; n += gridDim.x) {
        const float *xn = x + n * r.d, *wn = w + n % r.groups * r.d;
        float sum = 0;
        for (int64_t i = threadIdx.x; i < r.d; i += THREADS) sum += xn[i] * xn[i];
        float k = 1 / sqrtf(pn_block_sum<THREADS>(sum) / (float)r.d + eps);
        for (int64_t i = threadIdx.x; i < r.d; i += THREADS) y[n * r.d + i] = wn[i] * xn[i] * k;
        if (threadIdx.x == 0) rstd[n] = k;
    }
}

/* dx += r (c - x r^2 mean(c * x)) with c = w * dy. */
template <int THREADS>
__global__ void __launch_bounds__(THREADS)
    add_dx(rows r, const float *x, const float *w, const float *dy, const float *rstd, float *dx) {
    for (int64_t n = blockIdx.x; n < r.n; n += gridDim.x) {
        const float *xn = x + n * r.d, *wn = w + n % r.groups * r.d, *dyn = dy + n * r.d;
        float dot = 0, k = rstd[n];
        for (int64_t i = threadIdx.x; i < r.d; i += THREADS) dot += wn[i] * dyn[i] * xn[i];
        float mean = k * k * pn_block_sum<THREADS>(dot) / (float)r.d;
        for (int64_t i = threadIdx.x; i < r.d; i += THREADS)
            dx[n * r.d + i] = __fadd_rn(dx[n * r.d + i], k * (wn[i] * dyn[i] - xn[i] * mean));
    }
}

struct dw_term {
    const float *x, *dy, *rstd;
    int64_t D, d, groups;
    __device__ float operator()(int64_t n, int64_t i) const {
        return dy[n * D + i] * x[n * D + i] * rstd[n * groups + i / d];
    }
};

} // namespace

static rows rows_of(const pn_op_call *c) {
    const pn_rms_norm_attr *attr = (const pn_rms_norm_attr *)c->attr;
    return { c->in[0]->shape[0] * attr->groups, c->in[0]->shape[1] / attr->groups, attr->groups };
}

static unsigned grid(const rows *r) {
    return (unsigned)(r->n < 1 << 20 ? r->n : 1 << 20);
}

static pn_status forward(const pn_op_call *c) {
    const pn_rms_norm_attr *attr = (const pn_rms_norm_attr *)c->attr;
    rows r = rows_of(c);
    if (r.n == 0) return PN_OK;
    const float *x = pn_f32(c->in[0]), *w = pn_f32(c->in[1]);
    float *y = pn_f32(c->out[0]), *rstd = pn_f32(c->out[1]), eps = (float)attr->eps;
    if (r.d <= NARROW)
        normalise<64><<<grid(&r), 64, 0, pn_cuda_stream()>>>(r, x, w, eps, y, rstd);
    else
        normalise<256><<<grid(&r), 256, 0, pn_cuda_stream()>>>(r, x, w, eps, y, rstd);
    return pn_cuda_launched(name);
}

static pn_status backward(const pn_op_call *c) {
    rows r = rows_of(c);
    if (!c->dout[0] || r.n == 0) return PN_OK;
    const float *x = pn_f32(c->in[0]), *dy = pn_f32(c->dout[0]), *rstd = pn_f32(c->out[1]);
    if (c->din[0]) {
        const float *w = pn_f32(c->in[1]);
        float *dx = pn_f32(c->din[0]);
        if (r.d <= NARROW)
            add_dx<64><<<grid(&r), 64, 0, pn_cuda_stream()>>>(r, x, w, dy, rstd, dx);
        else
            add_dx<256><<<grid(&r), 256, 0, pn_cuda_stream()>>>(r, x, w, dy, rstd, dx);
        PN_TRY(pn_cuda_launched(name));
    }
    if (!c->din[1]) return PN_OK;
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1];
    return pn_cuda_column_sums(name, N, D, dw_term{ x, dy, rstd, D, r.d, r.groups }, pn_add_to{ pn_f32(c->din[1]) },
                               c->scratch);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (!backward_pass || !c->wants[1]) return 0;
    return pn_cuda_column_sum_scratch(c->in[0]->shape[0], c->in[0]->shape[1]);
}

static const pn_op_impl impl = {
    .name = name, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(rms_norm, &impl)
