#include "cuda/reduce.cuh"

#include "linear.h"

extern "C" {
#include "cuda/matmul_cuda.h"
}

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "linear/cuda";

struct element {
    const float *dy;
    int64_t M;
    __device__ float operator()(int64_t n, int64_t m) const { return dy[n * M + m]; }
};

} // namespace

/* A product over nothing has no plan. */
static bool takes(const pn_op_call *c) {
    return c->in[1]->shape[0] >= 1 && c->in[1]->shape[1] >= 1;
}

static pn_status forward(const pn_op_call *c) {
    int64_t N = c->in[0]->shape[0], K = c->in[1]->shape[1], M = c->in[1]->shape[0];
    pn_matmul p = {};
    p.name = name;
    p.m = N, p.n = M, p.k = K;
    p.a = pn_f32(c->in[0]);
    p.b = pn_f32(c->in[1]), p.b_turned = true;
    p.bias = pn_f32_or_null(c->in[2]);
    p.c = pn_f32(c->out[0]);
    return pn_cuda_matmul(&p, c->scratch);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const float *dy = pn_f32(c->dout[0]);
    int64_t N = c->in[0]->shape[0], K = c->in[1]->shape[1], M = c->in[1]->shape[0];
    if (c->din[0]) { /* dx += dy W */
        pn_matmul p = {};
        p.name = name;
        p.m = N, p.n = K, p.k = M;
        p.a = dy;
        p.b = pn_f32(c->in[1]);
        p.c = pn_f32(c->din[0]), p.add = true;
        PN_TRY(pn_cuda_matmul(&p, c->scratch));
    }
    if (c->din[1]) { /* dW += dy^T x */
        pn_matmul p = {};
        p.name = name;
        p.m = M, p.n = K, p.k = N;
        p.a = dy, p.a_turned = true;
        p.b = pn_f32(c->in[0]);
        p.c = pn_f32(c->din[1]), p.add = true;
        PN_TRY(pn_cuda_matmul(&p, c->scratch));
    }
    if (!c->din[2]) return PN_OK;
    return pn_cuda_column_sums(name, N, M, element{ dy, M }, pn_add_to{ pn_f32(c->din[2]) }, c->scratch);
}

/* The products' workspace, then the bias gradient's sums: one after the other. */
static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    size_t sums = 0, products = PN_MATMUL_WORKSPACE;
    if (backward_pass && c->in[2] && c->wants[2])
        sums = pn_cuda_column_sum_scratch(c->in[0]->shape[0], c->in[1]->shape[0]);
    return sums > products ? sums : products;
}

static const pn_op_impl impl = {
    .name = name, .takes = takes, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(linear, &impl)
