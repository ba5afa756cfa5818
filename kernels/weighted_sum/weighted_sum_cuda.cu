#include "cuda/lanes.cuh"

#include "weighted_sum.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "weighted_sum/cuda";

struct terms {
    const float *x[PN_WEIGHTED_SUM_MAX];
    double weight[PN_WEIGHTED_SUM_MAX];
    int n;
};
struct gradients {
    pn_gradient<float> dx[PN_WEIGHTED_SUM_MAX];
    double weight[PN_WEIGHTED_SUM_MAX];
    int n;
};

__global__ void add_up(float *y, terms t) {
    double sum = 0;
    for (int i = 0; i < t.n; i++) sum += t.weight[i] * (double)*t.x[i];
    *y = (float)sum;
}

/* One after another: a term may come twice. */
__global__ void add_gradients(gradients g, const float *dy) {
    for (int i = 0; i < g.n; i++)
        if (g.dx[i].to) g.dx[i].put(0, pn_lanes<1>{ { (float)(g.weight[i] * (double)*dy) } });
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    const pn_weighted_sum_attr *attr = (const pn_weighted_sum_attr *)c->attr;
    terms t = {};
    t.n = c->n_in;
    memcpy(t.weight, attr->weight, sizeof t.weight);
    for (int i = 0; i < c->n_in; i++) t.x[i] = pn_f32(c->in[i]);
    add_up<<<1, 1, 0, pn_cuda_stream()>>>(pn_f32(c->out[0]), t);
    return pn_cuda_launched(name);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return pn_cuda_zero_fresh(c);
    const pn_weighted_sum_attr *attr = (const pn_weighted_sum_attr *)c->attr;
    gradients g = {};
    g.n = c->n_in;
    memcpy(g.weight, attr->weight, sizeof g.weight);
    for (int i = 0; i < c->n_in; i++) g.dx[i] = pn_cuda_gradient<float>(c, i);
    add_gradients<<<1, 1, 0, pn_cuda_stream()>>>(g, pn_f32(c->dout[0]));
    return pn_cuda_launched(name);
}

static const pn_op_impl impl = { .name = name, .bf16 = true, .fresh = true, .forward = forward, .backward = backward };
PN_CUDA_OP(weighted_sum, &impl)
