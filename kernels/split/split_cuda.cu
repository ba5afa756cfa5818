#include "cuda/map.cuh"

#include "split.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "split/cuda";

/* n elements of a part with `width` columns, which begin at `first` of the C columns of the whole. */
struct part {
    int64_t n, width, first, C;
    __device__ int64_t in_whole(int64_t i) const { return i / width * C + first + i % width; }
};

__global__ void __launch_bounds__(PN_MAP_THREADS) take(part p, const float *whole, float *y) {
    int64_t step = (int64_t)gridDim.x * PN_MAP_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * PN_MAP_THREADS + threadIdx.x; i < p.n; i += step)
        y[i] = whole[p.in_whole(i)];
}

__global__ void __launch_bounds__(PN_MAP_THREADS) add_back(part p, const float *dy, float *dwhole) {
    int64_t step = (int64_t)gridDim.x * PN_MAP_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * PN_MAP_THREADS + threadIdx.x; i < p.n; i += step)
        dwhole[p.in_whole(i)] += dy[i];
}

} // namespace

static part part_of(const pn_split_attr *attr, int k, const pn_tensor *whole) {
    part p = {};
    p.width = attr->width[k];
    p.n = whole->shape[0] * p.width;
    p.C = whole->shape[1];
    for (int i = 0; i < k; i++) p.first += attr->width[i];
    return p;
}

static pn_status forward(const pn_op_call *c) {
    const pn_split_attr *attr = (const pn_split_attr *)c->attr;
    for (int k = 0; k < attr->n; k++) {
        part p = part_of(attr, k, c->in[0]);
        if (p.n == 0) continue;
        take<<<pn_map_grid(p.n), PN_MAP_THREADS, 0, pn_cuda_stream()>>>(p, pn_f32(c->in[0]), pn_f32(c->out[k]));
        PN_TRY(pn_cuda_launched(name));
    }
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    const pn_split_attr *attr = (const pn_split_attr *)c->attr;
    for (int k = 0; c->din[0] && k < attr->n; k++) {
        part p = part_of(attr, k, c->din[0]);
        if (p.n == 0 || !c->dout[k]) continue;
        add_back<<<pn_map_grid(p.n), PN_MAP_THREADS, 0, pn_cuda_stream()>>>(p, pn_f32(c->dout[k]), pn_f32(c->din[0]));
        PN_TRY(pn_cuda_launched(name));
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = name, .forward = forward, .backward = backward };
PN_CUDA_OP(split, &impl)
