/* Log decays from step sizes, per token and head: decay_gate and time_step.
 *
 *     dt = clamp(softplus(a + dt_bias), min, max)          g = -e^{A_log} dt
 *
 * a is of the call's type, the rest is F32. */
#ifndef PN_KERNELS_CUDA_STEP_SIZE_CUH
#define PN_KERNELS_CUDA_STEP_SIZE_CUH

#include "map.cuh"
#include "rows.cuh"

enum { PN_STEP_HEADS = 32, PN_STEP_TOKENS = 8 }; /* of a block at a time */

template <class T> struct pn_steps {
    int64_t tokens, heads;
    const T *a;
    const float *A_log, *dt_bias;
    float min, max;
};

__device__ static inline float pn_softplus(float u) {
    return fmaxf(u, 0) + log1pf(expf(-fabsf(u)));
}

/* dt may be NULL: not asked for. */
template <class T> __global__ void __launch_bounds__(PN_MAP_THREADS) pn_steps_make(pn_steps<T> p, float *dt, float *g) {
    const int64_t n = p.tokens * p.heads, step = (int64_t)gridDim.x * PN_MAP_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * PN_MAP_THREADS + threadIdx.x; i < n; i += step) {
        int64_t h = i % p.heads;
        float x = fminf(fmaxf(pn_softplus(pn_load(p.a + i) + p.dt_bias[h]), p.min), p.max);
        if (dt) dt[i] = x;
        g[i] = -expf(p.A_log[h]) * x;
    }
}

/* NULL: a gradient that did not come, a sum that is not wanted; g where dA_log is not. */
template <class T> struct pn_steps_gradients {
    const float *g, *d_dt, *dg;
    pn_gradient<T> da;
    float *dA_log, *ddt_bias; /* parts of the sums */
};

/* dA_log += sum g dg; d_dt -= exp(A_log) dg; du = sig(u) d_dt, 0 where clamped; da += du, d_dt_bias += sum du. A block
 * takes a run of tokens of its heads; a thread sums every PN_STEP_TOKENS-th. */
template <class T>
__global__ void __launch_bounds__(PN_STEP_HEADS *PN_STEP_TOKENS)
    pn_steps_add_gradients(pn_steps<T> p, int64_t run, pn_steps_gradients<T> to) {
    __shared__ float part[2][PN_STEP_TOKENS][PN_STEP_HEADS];
    const int64_t h = (int64_t)blockIdx.y * PN_STEP_HEADS + threadIdx.x, begin = blockIdx.x * run;
    const int64_t end = begin + run < p.tokens ? begin + run : p.tokens;
    const bool inside = h < p.heads, du_wanted = to.da.to || to.ddt_bias;
    const float A = inside && du_wanted ? expf(p.A_log[h]) : 0, bias = inside && du_wanted ? p.dt_bias[h] : 0;
    float sum[2] = {}; /* of g dg and du */
    for (int64_t t = begin + threadIdx.y; inside && t < end; t += PN_STEP_TOKENS) {
        int64_t i = t * p.heads + h;
        float dg = to.dg ? to.dg[i] : 0, d_dt = to.d_dt ? to.d_dt[i] : 0;
        if (to.dA_log) sum[0] += to.g[i] * dg;
        if (!du_wanted) continue;
        float u = pn_load(p.a + i) + bias, dt = pn_softplus(u);
        float du = dt < p.min || dt > p.max ? 0 : (d_dt - A * dg) * pn_cuda_sigmoid(u);
        if (to.da.to) to.da.put(i, pn_lanes<1>{ { du } });
        sum[1] += du;
    }
    part[0][threadIdx.y][threadIdx.x] = sum[0];
    part[1][threadIdx.y][threadIdx.x] = sum[1];
    __syncthreads();
    if (threadIdx.y > 0 || !inside) return;
    for (int y = 1; y < PN_STEP_TOKENS; y++) {
        sum[0] += part[0][y][threadIdx.x];
        sum[1] += part[1][y][threadIdx.x];
    }
    if (to.dA_log) to.dA_log[blockIdx.x * p.heads + h] = sum[0];
    if (to.ddt_bias) to.ddt_bias[blockIdx.x * p.heads + h] = sum[1];
}

/* ---- the calls: inputs a, A_log, dt_bias ---- */

/* All heads of a token as one row: parts of the sums are cut as those of norms are. */
static inline pn_rows pn_steps_rows(const pn_op_call *c) {
    return pn_cuda_rows_to_sum({ c->in[0]->shape[0], 1, c->in[0]->shape[1], 1 });
}

template <class T> pn_steps<T> pn_steps_of(const pn_op_call *c, float min, float max, bool values) {
    pn_steps<T> p = {};
    p.tokens = c->in[0]->shape[0];
    p.heads = c->in[0]->shape[1];
    p.min = min;
    p.max = max;
    if (!values) return p;
    p.a = pn_values<T>(c->in[0]);
    p.A_log = pn_f32(c->in[1]);
    p.dt_bias = pn_f32(c->in[2]);
    return p;
}

template <class T>
pn_status pn_cuda_steps(const char *name, const pn_op_call *c, float min, float max, float *dt, float *g) {
    const pn_steps<T> p = pn_steps_of<T>(c, min, max, true);
    if (p.tokens * p.heads == 0) return PN_OK;
    pn_steps_make<<<pn_map_grid(p.tokens * p.heads), PN_MAP_THREADS, 0, pn_cuda_stream()>>>(p, dt, g);
    return pn_cuda_launched(name);
}

/* gate: the output g; d_dt and dg: what came for the outputs. scratch: pn_steps_scratch(c). */
template <class T>
pn_status pn_cuda_steps_backward(const char *name, const pn_op_call *c, float min, float max, const pn_tensor *gate,
                                 const float *d_dt, const float *dg) {
    const pn_rows r = pn_steps_rows(c);
    const pn_steps<T> p = pn_steps_of<T>(c, min, max, c->din[0] || c->din[2]);
    float *part = (float *)c->scratch;
    pn_steps_gradients<T> to = {};
    to.g = c->din[1] ? pn_f32(gate) : NULL;
    to.d_dt = d_dt;
    to.dg = dg;
    to.da = pn_cuda_gradient<T>(c, 0);
    to.dA_log = c->din[1] ? part : NULL;
    to.ddt_bias = c->din[2] ? part + pn_row_sums_elems(r, r.d) : NULL;
    dim3 threads(PN_STEP_HEADS, PN_STEP_TOKENS), blocks(pn_rows_blocks(r), pn_cuda_blocks(p.heads, PN_STEP_HEADS));
    if (p.tokens * p.heads > 0) {
        pn_steps_add_gradients<<<blocks, threads, 0, pn_cuda_stream()>>>(p, r.run, to);
        PN_TRY(pn_cuda_launched(name));
    }
    PN_TRY(pn_cuda_row_sums_finish(name, c, 1, r, r.d, to.dA_log));
    return pn_cuda_row_sums_finish(name, c, 2, r, r.d, to.ddt_bias);
}

static inline size_t pn_steps_scratch(const pn_op_call *c) {
    const pn_rows r = pn_steps_rows(c);
    return c->wants[1] || c->wants[2] ? 2 * (size_t)pn_row_sums_elems(r, r.d) * sizeof(float) : 0;
}

#endif
