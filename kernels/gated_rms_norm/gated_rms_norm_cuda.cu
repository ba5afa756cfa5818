/* A block per head of a row: its elements are read once from memory, then from the cache. */
#include "cuda/map.cuh"
#include "cuda/reduce.cuh"

#include "gated_rms_norm.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "gated_rms_norm/cuda";

enum { THREADS = 64 };

struct rows {
    int64_t n, d;
    float eps;
};

/* r = (mean(o^2) + eps)^-1/2, for every thread of the block. */
__device__ float row_rstd(const rows &r, const float *o) {
    float sum = 0;
    for (int64_t i = threadIdx.x; i < r.d; i += THREADS) sum += o[i] * o[i];
    return 1 / sqrtf(pn_block_sum<THREADS>(sum) / (float)r.d + r.eps);
}

/* silu(z), 1 without a gate. */
__device__ float gate(const float *z, int64_t at) {
    return z ? z[at] * pn_cuda_sigmoid(z[at]) : 1;
}

__global__ void __launch_bounds__(THREADS) normalise(rows r, const float *o, const float *z, const float *w, float *y) {
    for (int64_t n = blockIdx.x; n < r.n; n += gridDim.x) {
        float k = row_rstd(r, o + n * r.d);
        for (int64_t i = threadIdx.x; i < r.d; i += THREADS)
            y[n * r.d + i] = w[i] * o[n * r.d + i] * k * gate(z, n * r.d + i);
    }
}

/* q = dy * silu(z): dz += dy * w * o r * silu'(z); with c = w * q: do += r (c - o r^2 mean(c * o)). rstd is kept for
 * dw. w is NULL where neither is wanted. */
__global__ void __launch_bounds__(THREADS) add_do_dz(rows r, const float *o, const float *z, const float *w,
                                                     const float *dy, float *d_o, float *dz, float *rstd) {
    for (int64_t n = blockIdx.x; n < r.n; n += gridDim.x) {
        float k = row_rstd(r, o + n * r.d), dot = 0;
        if (threadIdx.x == 0) rstd[n] = k;
        for (int64_t i = threadIdx.x; d_o && i < r.d; i += THREADS) {
            int64_t at = n * r.d + i;
            dot += w[i] * dy[at] * gate(z, at) * o[at];
        }
        float mean = k * k * pn_block_sum<THREADS>(dot) / (float)r.d;
        for (int64_t i = threadIdx.x; i < r.d; i += THREADS) {
            int64_t at = n * r.d + i;
            if (d_o) d_o[at] = __fadd_rn(d_o[at], k * (w[i] * dy[at] * gate(z, at) - o[at] * mean));
            if (!dz) continue;
            float s = pn_cuda_sigmoid(z[at]);
            dz[at] = __fadd_rn(dz[at], dy[at] * w[i] * o[at] * k * s * (1 + z[at] * (1 - s)));
        }
    }
}

struct dw_term {
    const float *o, *z, *dy, *rstd;
    int64_t d;
    __device__ float operator()(int64_t n, int64_t i) const {
        int64_t at = n * d + i;
        return dy[at] * gate(z, at) * o[at] * rstd[n];
    }
};

} // namespace

static rows rows_of(const pn_op_call *c) {
    const pn_gated_rms_norm_attr *attr = (const pn_gated_rms_norm_attr *)c->attr;
    return { pn_tensor_elems(c->in[0]) / attr->head_dim, attr->head_dim, (float)attr->eps };
}

static unsigned grid(const rows &r) {
    return (unsigned)(r.n < 1 << 20 ? r.n : 1 << 20);
}

static pn_status forward(const pn_op_call *c) {
    rows r = rows_of(c);
    if (r.n == 0) return PN_OK;
    normalise<<<grid(r), THREADS, 0, pn_cuda_stream()>>>(r, pn_f32(c->in[0]), pn_f32_or_null(c->in[1]),
                                                         pn_f32(c->in[2]), pn_f32(c->out[0]));
    return pn_cuda_launched(name);
}

/* Scratch: rstd of every row, then the partial sums of dw. */
static size_t rstd_bytes(const rows &r) {
    return (size_t)(r.n + 15) / 16 * 16 * sizeof(float);
}

static pn_status backward(const pn_op_call *c) {
    rows r = rows_of(c);
    if (!c->dout[0] || r.n == 0) return PN_OK;
    const float *o = pn_f32(c->in[0]), *z = pn_f32_or_null(c->in[1]), *dy = pn_f32(c->dout[0]);
    const float *w = c->din[0] || c->din[1] ? pn_f32(c->in[2]) : NULL;
    float *rstd = (float *)c->scratch;
    add_do_dz<<<grid(r), THREADS, 0, pn_cuda_stream()>>>(r, o, z, w, dy, pn_f32_or_null(c->din[0]),
                                                         pn_f32_or_null(c->din[1]), rstd);
    PN_TRY(pn_cuda_launched(name));
    if (!c->din[2]) return PN_OK;
    return pn_cuda_column_sums(name, r.n, r.d, dw_term{ o, z, dy, rstd, r.d }, pn_add_to{ pn_f32(c->din[2]) },
                               (char *)c->scratch + rstd_bytes(r));
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    rows r = rows_of(c);
    return backward_pass ? rstd_bytes(r) + pn_cuda_column_sum_scratch(r.n, r.d) : 0;
}

static const pn_op_impl impl = {
    .name = name, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(gated_rms_norm, &impl)
