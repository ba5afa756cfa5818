/* A few hundred numbers in all: one warp, in double. With d_l = z_l0 - log sum_{c>0} exp z_lc, the share of candidate 0
 * is the logistic function of d_l + s, and the others share the rest: the search for s needs only the d_l. */
#include "cuda/lanes.cuh"
#include "cuda/reduce.cuh"

#include "gate_softmax.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "gate_softmax/cuda";

enum { WARP = 32 };

struct gates {
    int64_t L, C;
    double T, budget;
    const float *a, *w; /* w may be NULL */
};

__device__ double logistic(double x) {
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

/* log sum_{c>0} exp(a_c / T), -infinity when there is none. */
__device__ double log_rest(const float *a, int64_t C, double T) {
    double most = -INFINITY, sum = 0;
    for (int64_t c = 1; c < C; c++) most = fmax(most, a[c] / T);
    if (isinf(most)) return most;
    for (int64_t c = 1; c < C; c++) sum += exp(a[c] / T - most);
    return most + log(sum);
}

struct larger {
    __device__ double operator()(double a, double b) const { return fmax(a, b); }
};

/* s by bisection, until two neighbouring doubles are left. A lane has every 32nd d, of which it wrote each itself. */
__device__ double find_shift(const double *d, int64_t L, double budget) {
    double lo = 0, hi = 0;
    for (int64_t l = threadIdx.x; l < L; l += WARP) {
        if (isinf(d[l])) continue;
        lo = fmin(lo, -d[l]);
        hi = fmax(hi, -d[l]);
    }
    lo = -pn_block_reduce<WARP>(-lo, larger{}) - 800;
    hi = pn_block_reduce<WARP>(hi, larger{}) + 800;
    for (;;) {
        double middle = (lo + hi) / 2, spent = 0;
        if (middle <= lo || middle >= hi) return middle;
        for (int64_t l = threadIdx.x; l < L; l += WARP) spent += logistic(d[l] + middle);
        if (pn_block_sum<WARP>(spent) <= budget)
            lo = middle;
        else
            hi = middle;
    }
}

/* d, rest [L]: scratch. */
__global__ void __launch_bounds__(WARP) share(gates g, float *p, float *cost, double *d, double *rest) {
    double sum = 0;
    for (int64_t l = threadIdx.x; l < g.L; l += WARP) {
        rest[l] = log_rest(g.a + l * g.C, g.C, g.T);
        d[l] = g.a[l * g.C] / g.T - rest[l];
    }
    const double shift = g.budget < 0 ? 0 : find_shift(d, g.L, g.budget);
    for (int64_t l = threadIdx.x; l < g.L; l += WARP) {
        const float *a = g.a + l * g.C;
        double others = logistic(-d[l] - shift);
        for (int64_t c = 0; c < g.C; c++) {
            double share = c == 0 ? logistic(d[l] + shift) : isinf(rest[l]) ? 0 : others * exp(a[c] / g.T - rest[l]);
            p[l * g.C + c] = (float)share;
            if (g.w) sum += (double)(float)share * g.w[l * g.C + c];
        }
    }
    sum = pn_block_sum<WARP>(sum);
    if (threadIdx.x == 0) *cost = (float)sum;
}

/* dp and dcost may be NULL. dz [L, C]: scratch. */
__global__ void __launch_bounds__(WARP)
    add_gradients(gates g, const float *p, const float *dp, const float *dcost, pn_gradient<float> da, double *dz) {
    const double to_cost = dcost ? (double)*dcost : 0;
    double B = 0, dshift = 0;
    for (int64_t l = threadIdx.x; l < g.L; l += WARP) {
        const int64_t first = l * g.C, end = first + g.C;
        double mean = 0;
        for (int64_t i = first; i < end; i++) {
            dz[i] = (dp ? (double)dp[i] : 0) + (g.w ? to_cost * g.w[i] : 0);
            mean += p[i] * dz[i];
        }
        for (int64_t i = first; i < end; i++) dz[i] = p[i] * (dz[i] - mean);
        dshift += dz[first];
        B += p[first] * (1 - (double)p[first]);
    }
    B = pn_block_sum<WARP>(B);
    dshift = pn_block_sum<WARP>(dshift);
    const double k = g.budget < 0 || B == 0 ? 0 : dshift / B;
    for (int64_t l = threadIdx.x; l < g.L; l += WARP)
        for (int64_t first = l * g.C, i = first; i < first + g.C; i++)
            da.put(i, pn_lanes<1>{ { (float)((dz[i] - k * p[first] * ((i == first) - (double)p[i])) / g.T) } });
}

gates gates_of(const pn_op_call *c) {
    const pn_gate_softmax_attr *attr = (const pn_gate_softmax_attr *)c->attr;
    return { c->in[0]->shape[0], c->in[0]->shape[1], attr->temperature, attr->budget, NULL, pn_f32_or_null(c->in[1]) };
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    gates g = gates_of(c);
    double *scratch = (double *)c->scratch;
    g.a = pn_f32(c->in[0]);
    share<<<1, WARP, 0, pn_cuda_stream()>>>(g, pn_f32(c->out[0]), pn_f32(c->out[1]), scratch, scratch + g.L);
    return pn_cuda_launched(name);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->din[0]) return PN_OK;
    add_gradients<<<1, WARP, 0, pn_cuda_stream()>>>(gates_of(c), pn_f32(c->out[0]), pn_f32_or_null(c->dout[0]),
                                                    pn_f32_or_null(c->dout[1]), pn_cuda_gradient<float>(c, 0),
                                                    (double *)c->scratch);
    return pn_cuda_launched(name);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    int64_t L = c->in[0]->shape[0], C = c->in[0]->shape[1];
    return (size_t)(backward_pass ? L * C : 2 * L) * sizeof(double);
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(gate_softmax, &impl)
