/* The logits of as many rows at a time as fit a tile of fixed size, made by cuBLASLt and read by one block per row; in
 * backward they are made again and become their own gradient, from which two products give dh and dW. Ignored rows are
 * computed with the others: a tile has no holes. */
#include "cuda/inputs.cuh"
#include "cuda/reduce.cuh"

#include "linear_cross_entropy.h"

extern "C" {
#include "cuda/matmul_cuda.h"
}

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "linear_cross_entropy/cuda";

enum { THREADS = 256, TILE = 1 << 26 /* logits, 256 MB */, ROW_STEP = 128 };

/* The rows' targets and weights; NULL weight: all 1. */
struct rows {
    const int32_t *target;
    const float *weight;
    int64_t V;
    __device__ bool counts(int64_t n) const { return target[n] >= 0 && target[n] < V; }
    __device__ float weight_of(int64_t n) const { return !counts(n) ? 0 : weight ? weight[n] : 1; }
};

/* Rows begin .. of the tile z [rows, V]. */
__global__ void __launch_bounds__(THREADS) reduce_rows(rows r, int64_t begin, const float *z, float *nll, float *lse,
                                                       pn_cuda_bad *bad, const char *target_name, const char *op) {
    int64_t n = begin + blockIdx.x;
    const float *row = z + blockIdx.x * r.V;
    if (threadIdx.x == 0 && r.target[n] != PN_IGNORE && !r.counts(n))
        pn_report_id(bad, target_name, r.target[n], n, PN_IGNORE, r.V);
    if (threadIdx.x == 0 && r.weight && !(isfinite(r.weight[n]) && r.weight[n] >= 0))
        pn_report_weight(bad, op, r.weight[n], n);
    if (!r.counts(n)) { /* the whole block */
        if (threadIdx.x == 0) nll[n] = lse[n] = 0;
        return;
    }
    float most = -INFINITY, sum = 0;
    for (int64_t v = threadIdx.x; v < r.V; v += THREADS) most = fmaxf(most, row[v]);
    most = pn_block_max<THREADS>(most);
    for (int64_t v = threadIdx.x; v < r.V; v += THREADS) sum += expf(row[v] - most);
    sum = pn_block_sum<THREADS>(sum);
    if (threadIdx.x) return;
    double all = (double)most + log((double)sum);
    lse[n] = (float)all;
    nll[n] = (float)(all - (double)row[r.target[n]]);
}

struct loss_terms {
    rows r;
    const float *nll;
    __device__ void operator()(int64_t n, float v[2]) const {
        v[1] = r.weight_of(n);
        v[0] = v[1] * nll[n];
    }
};
struct put_loss {
    float *loss;
    __device__ void operator()(const double sum[2]) const { *loss = sum[1] > 0 ? (float)(sum[0] / sum[1]) : 0; }
};

struct weight_term {
    rows r;
    __device__ void operator()(int64_t n, float v[1]) const { v[0] = r.weight_of(n); }
};
struct put_scale {
    const float *dloss;
    float *scale;
    __device__ void operator()(const double sum[1]) const { *scale = sum[0] > 0 ? (float)(*dloss / sum[0]) : 0; }
};

/* z becomes its gradient: scale w (softmax(z) - onehot(target)). */
__global__ void __launch_bounds__(THREADS)
    to_gradient(rows r, int64_t begin, float *z, const float *lse, const float *scale) {
    int64_t n = begin + blockIdx.x;
    float *row = z + blockIdx.x * r.V, k = *scale * r.weight_of(n);
    for (int64_t v = threadIdx.x; v < r.V; v += THREADS)
        row[v] = k == 0 ? 0 : k * (expf(row[v] - lse[n]) - (v == r.target[n] ? 1.0f : 0.0f));
}

} // namespace

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Rows of a tile: as many as fit, a multiple of ROW_STEP where there is a choice. */
static int64_t tile_rows(const pn_op_call *c) {
    int64_t N = c->in[0]->shape[0], fit = TILE / c->in[1]->shape[0];
    if (fit >= ROW_STEP) fit -= fit % ROW_STEP;
    return smaller(N, fit > 1 ? fit : 1);
}

static bool takes(const pn_op_call *c) {
    return c->in[1]->shape[0] >= 1 && c->in[1]->shape[1] >= 1;
}

static rows rows_of(const pn_op_call *c) {
    return { pn_i32(c->in[2]), pn_f32_or_null(c->in[3]), c->in[1]->shape[0] };
}

/* Scratch: the workspace of products, which the sums use when no product runs; a number; the tile. */
const size_t TILE_AT = PN_MATMUL_WORKSPACE + 256;
static float *number(const pn_op_call *c) {
    return (float *)((char *)c->scratch + PN_MATMUL_WORKSPACE);
}
static float *tile(const pn_op_call *c) {
    return (float *)((char *)c->scratch + TILE_AT);
}
static size_t scratch_bytes(const pn_op_call *c, bool) {
    return TILE_AT + (size_t)(tile_rows(c) * c->in[1]->shape[0]) * sizeof(float);
}
static_assert(PN_SUM_MOST_PARTS * 2 * sizeof(double) <= PN_MATMUL_WORKSPACE, "the sums fit the workspace");

static pn_status logits(const pn_op_call *c, int64_t begin, int64_t n) {
    int64_t D = c->in[0]->shape[1];
    pn_matmul p = {};
    p.name = name;
    p.m = n, p.n = c->in[1]->shape[0], p.k = D;
    p.a = pn_f32(c->in[0]) + begin * D;
    p.b = pn_f32(c->in[1]), p.b_turned = true;
    p.c = tile(c);
    return pn_cuda_matmul(&p, c->scratch);
}

static pn_status forward(const pn_op_call *c) {
    int64_t N = c->in[0]->shape[0], step = tile_rows(c);
    rows r = rows_of(c);
    float *nll = pn_f32(c->out[1]), *lse = pn_f32(c->out[2]);
    for (int64_t begin = 0; begin < N; begin += step) {
        int64_t n = smaller(step, N - begin);
        PN_TRY(logits(c, begin, n));
        reduce_rows<<<(unsigned)n, THREADS, 0, pn_cuda_stream()>>>(
            r, begin, tile(c), nll, lse, pn_cuda_bad_slot(), "linear_cross_entropy: target", "linear_cross_entropy");
        PN_TRY(pn_cuda_launched(name));
    }
    return pn_cuda_sums<2>(name, N, loss_terms{ r, nll }, put_loss{ pn_f32(c->out[0]) }, c->scratch);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || (!c->din[0] && !c->din[1])) return PN_OK;
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1], V = c->in[1]->shape[0], step = tile_rows(c);
    rows r = rows_of(c);
    PN_TRY(pn_cuda_sums<1>(name, N, weight_term{ r }, put_scale{ pn_f32(c->dout[0]), number(c) }, c->scratch));
    for (int64_t begin = 0; begin < N; begin += step) {
        int64_t n = smaller(step, N - begin);
        PN_TRY(logits(c, begin, n));
        to_gradient<<<(unsigned)n, THREADS, 0, pn_cuda_stream()>>>(r, begin, tile(c), pn_f32(c->out[2]), number(c));
        PN_TRY(pn_cuda_launched(name));
        pn_matmul p = {};
        p.name = name;
        p.add = true;
        p.a = tile(c);
        p.n = D;
        if (c->din[0]) { /* dh += dz W */
            p.m = n, p.k = V;
            p.b = pn_f32(c->in[1]);
            p.c = pn_f32(c->din[0]) + begin * D;
            PN_TRY(pn_cuda_matmul(&p, c->scratch));
        }
        if (c->din[1]) { /* dW += dz^T h */
            p.m = V, p.k = n;
            p.a_turned = true;
            p.b = pn_f32(c->in[0]) + begin * D;
            p.c = pn_f32(c->din[1]);
            PN_TRY(pn_cuda_matmul(&p, c->scratch));
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = name, .takes = takes, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(linear_cross_entropy, &impl)
