/* Ignored rows are computed with the others: a tile has no holes. Targets and weights are checked where they are used
 * (device_cuda.h). */
#include "cuda/fresh.cuh"
#include "cuda/inputs.cuh"
#include "cuda/logits_warpgroup.cuh"
#include "cuda/reduce.cuh"

#include "linear_cross_entropy.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "linear_cross_entropy/cuda";

enum { THREADS = 256 };

/* The rows' targets and weights; NULL weight: all 1. */
struct rows {
    const int32_t *target;
    const float *weight;
    int64_t V;
    __device__ bool counts(int64_t n) const { return target[n] >= 0 && target[n] < V; }
    __device__ float weight_of(int64_t n) const { return !counts(n) ? 0 : weight ? weight[n] : 1; }
};

struct head { /* logits.cuh */
    static constexpr int sides = 1;
    rows r;
    const float *lse, *scale; /* backward: scale: dloss / sum of weights */

    struct sums { /* sum exp(z - max); the target's logit in the part that has it, else 0 */
        float max, sum, at_target;
    };
    __device__ sums none() const { return { -INFINITY, 0, 0 }; }
    struct row {
        int target;
    };
    __device__ row row_of(int64_t n, bool) const { return { r.target[n] }; }
    template <int K, class Z, class W> __device__ void fold(sums &s, const row &of, Z z, W word) const {
        const float most = pn_logits_max<K>(s.max, 0, z), base = pn_logits_base(most);
        float sum[4] = { s.sum * pn_logits_exp(s.max - base) };
#pragma unroll
        for (int i = 0; i < K; i++) sum[i % 4] += pn_logits_exp(z(0, i) - base);
        s.max = most;
        s.sum = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        if (of.target < word(0) || of.target > word(K - 1)) return;
#pragma unroll
        for (int i = 0; i < K; i++) s.at_target = word(i) == of.target ? z(0, i) : s.at_target;
    }
    __device__ void merge(sums &s, const sums &other) const {
        const float most = fmaxf(s.max, other.max), base = pn_logits_base(most);
        s.sum = s.sum * pn_logits_exp(s.max - base) + other.sum * pn_logits_exp(other.max - base);
        s.max = most;
        s.at_target += other.at_target;
    }
    struct slope {
        float k, lse;
        int target;
    };
    __device__ slope slope_of(int64_t n) const {
        return { *scale * r.weight_of(n), lse[n], r.target[n] };
    }
    __device__ float dz(const slope &of, float z, float, int word) const {
        const float p = pn_logits_exp(z - of.lse);
        return of.k == 0 ? 0 : of.k * (word == of.target ? p - 1 : p);
    }
};

__global__ void __launch_bounds__(THREADS)
    finish_rows(head h, int64_t N, const head::sums *part, int64_t parts, float *nll, float *lse, pn_cuda_bad *bad,
                const char *target_name, const char *op) {
    const int64_t n = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (n >= N) return;
    const rows &r = h.r;
    if (r.target[n] != PN_IGNORE && !r.counts(n)) pn_report_id(bad, target_name, r.target[n], n, PN_IGNORE, r.V);
    if (r.weight && !(isfinite(r.weight[n]) && r.weight[n] >= 0)) pn_report_weight(bad, op, r.weight[n], n);
    head::sums s = h.none();
    for (int64_t p = 0; p < parts; p++) h.merge(s, part[p * N + n]);
    const double all = (double)s.max + log((double)s.sum);
    lse[n] = r.counts(n) ? (float)all : 0;
    nll[n] = r.counts(n) ? (float)(all - (double)s.at_target) : 0;
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

static_assert(PN_SUM_MOST_PARTS * 2 * sizeof(double) <= PN_MATMUL_WORKSPACE, "the sums fit the workspace");

} // namespace

static bool takes(const pn_op_call *c) {
    return c->in[1]->shape[0] >= 1 && c->in[1]->shape[0] <= INT32_MAX && c->in[1]->shape[1] >= 1;
}

static pn_logits logits_of(const pn_op_call *c) {
    pn_logits x = {};
    x.name = name;
    x.type = c->dtype;
    x.N = c->in[0]->shape[0], x.V = c->in[1]->shape[0];
    x.sides = head::sides;
    x.side[0] = { pn_logits_address(c->in[0]), pn_logits_address(c->in[1]), c->in[1]->shape[1] };
    return x;
}

static rows rows_of(const pn_op_call *c) {
    return { pn_i32(c->in[2]), pn_f32_or_null(c->in[3]), c->in[1]->shape[0] };
}

static pn_logits_work work_of(const pn_op_call *c, const pn_logits *x, bool backward_pass) {
    return pn_logits_carve_tiles(x, backward_pass, sizeof(head::sums), c->scratch);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    pn_logits x = logits_of(c);
    return work_of(c, &x, backward_pass).n_bytes;
}

/* From the parts of the vocabulary to the loss. */
static pn_status finish(const pn_op_call *c, const head &h, const pn_logits_work &w, int64_t parts) {
    const int64_t N = c->in[0]->shape[0];
    float *nll = pn_f32(c->out[1]), *lse = pn_f32(c->out[2]);
    if (N > 0) {
        finish_rows<<<pn_cuda_blocks(N, THREADS), THREADS, 0, pn_cuda_stream()>>>(
            h, N, (const head::sums *)w.part, parts, nll, lse, pn_cuda_bad_slot(), "linear_cross_entropy: target",
            "linear_cross_entropy");
        PN_TRY(pn_cuda_launched(name));
    }
    return pn_cuda_sums<2>(name, N, loss_terms{ h.r, nll }, put_loss{ pn_f32(c->out[0]) }, w.workspace);
}

static pn_status forward(const pn_op_call *c) {
    const pn_logits x = logits_of(c);
    const pn_logits_work w = work_of(c, &x, false);
    const head h = { rows_of(c), NULL, NULL };
    PN_TRY(pn_logits_fold(&x, h, w));
    return finish(c, h, w, pn_logits_parts(&x, PN_LOGITS_PART));
}

/* Without rows or dloss there is nothing to add. */
static bool has_gradients(const pn_op_call *c) {
    return c->dout[0] && c->in[0]->shape[0] > 0 && (c->din[0] || c->din[1]);
}

/* With the gradient's scale, which is made in w. */
static pn_status head_of_backward(const pn_op_call *c, const pn_logits_work &w, head *h) {
    *h = { rows_of(c), pn_f32(c->out[2]), w.number };
    return pn_cuda_sums<1>(name, c->in[0]->shape[0], weight_term{ h->r }, put_scale{ pn_f32(c->dout[0]), w.number },
                           w.workspace);
}

static pn_logits_gradients gradients_of(const pn_op_call *c) {
    return { c->din[0] ? pn_data(c->din[0]) : NULL, pn_f32_or_null(c->din[1]), pn_op_adds(c, 0), pn_op_adds(c, 1),
             NULL };
}

static pn_status backward(const pn_op_call *c) {
    if (!has_gradients(c)) return pn_cuda_zero_fresh(c);
    const pn_logits x = logits_of(c);
    const pn_logits_work w = work_of(c, &x, true);
    head h;
    PN_TRY(head_of_backward(c, w, &h));
    return x.type == PN_BF16 ? pn_logits_backward<pn_bf16>(&x, h, gradients_of(c), w)
                             : pn_logits_backward<float>(&x, h, gradients_of(c), w);
}

/* ---- on Hopper ---- */

static bool takes_fused(const pn_op_call *c) {
    const pn_logits x = logits_of(c);
    return takes(c) && pn_fused_takes(&x) && pn_fused_there<true, head>();
}

static size_t scratch_bytes_fused(const pn_op_call *c, bool backward_pass) {
    const pn_logits x = logits_of(c);
    return pn_fused_carve<head>(&x, backward_pass, NULL).n_bytes;
}

static pn_status forward_fused(const pn_op_call *c) {
    const pn_logits x = logits_of(c);
    const pn_logits_work w = pn_fused_carve<head>(&x, false, c->scratch);
    const head h = { rows_of(c), NULL, NULL };
    PN_TRY(pn_fused_fold(&x, h, w));
    return finish(c, h, w, pn_fused_parts<head>(&x));
}

static pn_status backward_fused(const pn_op_call *c) {
    if (!has_gradients(c)) return pn_cuda_zero_fresh(c);
    const pn_logits x = logits_of(c);
    const pn_logits_work w = pn_fused_carve<head>(&x, true, c->scratch);
    head h;
    PN_TRY(head_of_backward(c, w, &h));
    return pn_fused_backward(&x, h, gradients_of(c), w);
}

static const pn_op_impl fused = { .name = "linear_cross_entropy/cuda-fused",
                                  .bf16 = true,
                                  .fresh = true,
                                  .takes = takes_fused,
                                  .scratch_bytes = scratch_bytes_fused,
                                  .forward = forward_fused,
                                  .backward = backward_fused };
static const pn_op_impl impl = { .name = name,
                                 .bf16 = true,
                                 .fresh = true,
                                 .takes = takes,
                                 .scratch_bytes = scratch_bytes,
                                 .forward = forward,
                                 .backward = backward };
PN_CUDA_OP(linear_cross_entropy, &fused, &impl)
