/* A block per head of a row: its elements are read once from memory, then from the cache. */
#include "cuda/map.cuh"
#include "cuda/reduce.cuh"

#include "l2_norm.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "l2_norm/cuda";

enum { THREADS = 64 };

template <bool SILU> __device__ float activate(float x) {
    return SILU ? x * pn_cuda_sigmoid(x) : x;
}
template <bool SILU> __device__ float slope(float x) {
    if (!SILU) return 1;
    float s = pn_cuda_sigmoid(x);
    return s * (1 + x * (1 - s));
}

template <bool SILU>
__global__ void __launch_bounds__(THREADS) normalise(const float *x, int64_t rows, int64_t d, float eps, float *y) {
    for (int64_t n = blockIdx.x; n < rows; n += gridDim.x) {
        const float *xn = x + n * d;
        float sum = 0;
        for (int64_t i = threadIdx.x; i < d; i += THREADS) {
            float s = activate<SILU>(xn[i]);
            sum += s * s;
        }
        float r = 1 / sqrtf(pn_block_sum<THREADS>(sum) + eps);
        for (int64_t i = threadIdx.x; i < d; i += THREADS) y[n * d + i] = activate<SILU>(xn[i]) * r;
    }
}

/* ds = r (dy - s r^2 <dy, s>); dx = ds silu'(x) */
template <bool SILU>
__global__ void __launch_bounds__(THREADS)
    add_dx(const float *x, const float *dy, int64_t rows, int64_t d, float eps, float *dx) {
    for (int64_t n = blockIdx.x; n < rows; n += gridDim.x) {
        const float *xn = x + n * d, *dyn = dy + n * d;
        float sum = 0, dot = 0;
        for (int64_t i = threadIdx.x; i < d; i += THREADS) {
            float s = activate<SILU>(xn[i]);
            sum += s * s;
            dot += dyn[i] * s;
        }
        sum = pn_block_sum<THREADS>(sum) + eps;
        dot = pn_block_sum<THREADS>(dot);
        float r = 1 / sqrtf(sum), k = dot / sum;
        for (int64_t i = threadIdx.x; i < d; i += THREADS) {
            float ds = r * (dyn[i] - activate<SILU>(xn[i]) * k);
            dx[n * d + i] = __fadd_rn(dx[n * d + i], ds * slope<SILU>(xn[i]));
        }
    }
}

} // namespace

static unsigned grid(int64_t rows) {
    return (unsigned)(rows < 1 << 20 ? rows : 1 << 20);
}

static pn_status forward(const pn_op_call *c) {
    const pn_l2_norm_attr *attr = (const pn_l2_norm_attr *)c->attr;
    int64_t d = attr->head_dim, rows = pn_tensor_elems(c->in[0]) / d;
    if (rows == 0) return PN_OK;
    auto kernel = attr->silu ? normalise<true> : normalise<false>;
    kernel<<<grid(rows), THREADS, 0, pn_cuda_stream()>>>(pn_f32(c->in[0]), rows, d, (float)attr->eps,
                                                         pn_f32(c->out[0]));
    return pn_cuda_launched(name);
}

static pn_status backward(const pn_op_call *c) {
    const pn_l2_norm_attr *attr = (const pn_l2_norm_attr *)c->attr;
    int64_t d = attr->head_dim, rows = pn_tensor_elems(c->in[0]) / d;
    if (!c->dout[0] || !c->din[0] || rows == 0) return PN_OK;
    auto kernel = attr->silu ? add_dx<true> : add_dx<false>;
    kernel<<<grid(rows), THREADS, 0, pn_cuda_stream()>>>(pn_f32(c->in[0]), pn_f32(c->dout[0]), rows, d,
                                                         (float)attr->eps, pn_f32(c->din[0]));
    return pn_cuda_launched(name);
}

static const pn_op_impl impl = { .name = name, .forward = forward, .backward = backward };
PN_CUDA_OP(l2_norm, &impl)
