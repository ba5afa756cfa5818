/* Targets are checked where they are used (device_cuda.h). */
#include "cuda/logits_loss.cuh"

#include "linear_cross_entropy.h"

namespace {

enum { THREADS = 256 };

/* Rows that have no target count as rows of weight 0. */
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
    pn_check_weight(bad, op, r.weight, n);
    head::sums s = h.none();
    for (int64_t p = 0; p < parts; p++) h.merge(s, part[p * N + n]);
    const double all = (double)s.max + log((double)s.sum);
    lse[n] = r.counts(n) ? (float)all : 0;
    nll[n] = r.counts(n) ? (float)(all - (double)s.at_target) : 0;
}

struct op { /* logits_loss.cuh */
    typedef ::head head;
    static constexpr const char *name = "linear_cross_entropy/cuda";

    static double factor_of(const pn_op_call *) { return 1; }
    static double slope_factor_of(const pn_op_call *) { return 1; }
    static head head_of(const pn_op_call *c) {
        return { { pn_i32(c->in[2]), pn_f32_or_null(c->in[3]), c->in[1]->shape[0] }, NULL, NULL };
    }
    static pn_status finish(const pn_op_call *c, const head &h, int64_t N, const head::sums *part, int64_t parts) {
        finish_rows<<<pn_cuda_blocks(N, THREADS), THREADS, 0, pn_cuda_stream()>>>(
            h, N, part, parts, pn_f32(c->out[1]), pn_f32(c->out[2]), pn_cuda_bad_slot(), "linear_cross_entropy: target",
            "linear_cross_entropy");
        return pn_cuda_launched(name);
    }
    static head head_of_backward(const pn_op_call *c, const float *scale) {
        head h = head_of(c);
        h.lse = pn_f32(c->out[2]), h.scale = scale;
        return h;
    }
    static pn_logits_as_is amend_of(const head &, pn_dtype) { return {}; }
};

} // namespace

static constexpr pn_op_impl fused = pn_logits_loss<op, pn_logits_in_registers>::impl("linear_cross_entropy/cuda-fused"),
                            impl = pn_logits_loss<op, pn_logits_in_tiles>::impl(op::name);
PN_CUDA_OP(linear_cross_entropy, &fused, &impl)
