#include "cuda/map.cuh"
#include "cuda/reduce.cuh"

#include "feature_loss.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "feature_loss/cuda";

struct element {
    const float *t;
    int64_t D;
    __device__ float operator()(int64_t n, int64_t i) const { return t[n * D + i]; }
};
struct put_mean {
    float *mean, rows;
    __device__ void operator()(int64_t i, float sum) const { mean[i] = sum / rows; }
};

struct terms { /* error, variance, energy */
    const float *y, *t, *mean;
    int64_t D;
    __device__ void operator()(int64_t i, float v[3]) const {
        float e = y[i] - t[i], d = t[i] - mean[i % D];
        v[0] = e * e;
        v[1] = d * d;
        v[2] = t[i] * t[i];
    }
};
struct put_loss {
    float *loss, *variance;
    int64_t n;
    __device__ void operator()(const double sum[3]) const {
        double S = sum[1] > PN_FEATURE_LOSS_MIN_VARIANCE * sum[2] ? sum[1] : (double)n;
        *loss = n > 0 ? (float)(sum[0] / S) : 0;
        *variance = (float)S;
    }
};

struct gradient {
    const float *dloss, *variance;
    __device__ float operator()(float y, float t) const { return 2 * *dloss / *variance * (y - t); }
};

} // namespace

/* Scratch: the column means, then partial sums. */
static size_t mean_bytes(const pn_op_call *c) {
    return (size_t)(c->in[0]->shape[1] + 15) / 16 * 16 * sizeof(float);
}

static pn_status forward(const pn_op_call *c) {
    const float *y = pn_f32(c->in[0]), *t = pn_f32(c->in[1]);
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1];
    float *mean = (float *)c->scratch;
    void *parts = (char *)c->scratch + mean_bytes(c);
    PN_TRY(pn_cuda_column_sums(name, N, D, element{ t, D }, put_mean{ mean, (float)N }, parts));
    return pn_cuda_sums<3>(name, N * D, terms{ y, t, mean, D }, put_loss{ pn_f32(c->out[0]), pn_f32(c->out[1]), N * D },
                           parts);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    return pn_cuda_map<true>(name, pn_f32(c->din[0]), pn_tensor_elems(c->in[0]),
                             gradient{ pn_f32(c->dout[0]), pn_f32(c->out[1]) }, pn_f32(c->in[0]), pn_f32(c->in[1]));
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (backward_pass) return 0;
    size_t columns = pn_cuda_column_sum_scratch(c->in[0]->shape[0], c->in[0]->shape[1]);
    size_t sums = pn_cuda_sums_scratch(pn_tensor_elems(c->in[0]), 3);
    return mean_bytes(c) + (columns > sums ? columns : sums);
}

static const pn_op_impl impl = {
    .name = name, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(feature_loss, &impl)
