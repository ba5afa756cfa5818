#include "cuda/logits_loss.cuh"

#include "linear_kl.h"

namespace {

enum { THREADS = 256 };

struct head { /* logits.cuh */
    static constexpr int sides = 2;
    pn_row_weights r;
    float inverse_tau, exponent; /* exp(z / tau) = 2^(exponent z) */
    const float *lse, *scale;    /* backward: lse [N, 2]; scale: tau dloss / sum of weights */

    /* Of logits z, not yet divided by tau: sum exp((z - max) / tau), and the teacher's sum of that times its z less the
     * student's, so that kl = cross / (tau sum) - lse_t + lse_s. */
    struct sums {
        float max[2], sum[2], cross;
        int first[2]; /* the words of the largest */
    };
    __device__ sums none() const { return { { -INFINITY, -INFINITY }, { 0, 0 }, 0, { 0, 0 } }; }
    struct row {};
    __device__ row row_of(int64_t, bool) const { return {}; }
    __device__ float exp_of(float z) const { return pn_logits_exp2(z * exponent); }

    template <int K, class Z, class W> __device__ void fold(sums &s, const row &, Z z, W word) const {
        float base[2];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const float most = pn_logits_max<K>(s.max[k], k, z);
            if (most > s.max[k]) s.first[k] = pn_logits_first<K>(most, k, z, word);
            base[k] = pn_logits_base(most);
            const float shrink = exp_of(s.max[k] - base[k]);
            s.sum[k] *= shrink;
            if (k == 1) s.cross *= shrink;
            s.max[k] = most;
        }
        float student[2] = {}, teacher[2] = {}, cross[2] = {};
#pragma unroll
        for (int i = 0; i < K; i++) {
            const float e = exp_of(z(1, i) - base[1]);
            student[i % 2] += exp_of(z(0, i) - base[0]);
            teacher[i % 2] += e;
            cross[i % 2] += e * (z(1, i) - z(0, i));
        }
        s.sum[0] += student[0] + student[1];
        s.sum[1] += teacher[0] + teacher[1];
        s.cross += cross[0] + cross[1];
    }
    __device__ void merge(sums &s, const sums &other) const {
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const bool later = other.max[k] > s.max[k] || (other.max[k] == s.max[k] && other.first[k] < s.first[k]);
            if (later) s.first[k] = other.first[k];
            const float most = fmaxf(s.max[k], other.max[k]), base = pn_logits_base(most);
            const float shrink = exp_of(s.max[k] - base), shrink_other = exp_of(other.max[k] - base);
            s.sum[k] = s.sum[k] * shrink + other.sum[k] * shrink_other;
            if (k == 1) s.cross = s.cross * shrink + other.cross * shrink_other;
            s.max[k] = most;
        }
    }
    struct slope {
        float k, lse_s, lse_t;
    };
    __device__ slope slope_of(int64_t n) const {
        return { *scale * r.weight_of(n), lse[2 * n], lse[2 * n + 1] };
    }
    __device__ float dz(const slope &of, float z_s, float z_t, int) const {
        const float q = pn_logits_exp(z_s * inverse_tau - of.lse_s), p = pn_logits_exp(z_t * inverse_tau - of.lse_t);
        return of.k == 0 ? 0 : of.k * (q - p);
    }
};

__global__ void __launch_bounds__(THREADS)
    finish_rows(head h, double tau, int64_t N, const head::sums *part, int64_t parts, float *kl, float *lse,
                int32_t *first, pn_cuda_bad *bad, const char *op) {
    const int64_t n = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (n >= N) return;
    pn_check_weight(bad, op, h.r.weight, n);
    head::sums s = h.none();
    for (int64_t p = 0; p < parts; p++) h.merge(s, part[p * N + n]);
    double of[2];
    for (int k = 0; k < 2; k++) {
        of[k] = (double)s.max[k] / tau + log((double)s.sum[k]);
        lse[2 * n + k] = (float)of[k];
        first[2 * n + k] = s.first[k];
    }
    kl[n] = (float)((double)s.cross / (tau * (double)s.sum[1]) - of[1] + of[0]);
}

struct op { /* logits_loss.cuh */
    typedef ::head head;
    static constexpr const char *name = "linear_kl/cuda";

    static double tau_of(const pn_op_call *c) { return ((const pn_linear_kl_attr *)c->attr)->temperature; }
    static double factor_of(const pn_op_call *c) { return tau_of(c) * tau_of(c); }
    static double slope_factor_of(const pn_op_call *c) { return tau_of(c); } /* logits are over tau */
    static head head_of(const pn_op_call *c) {
        const double tau = tau_of(c);
        return { { pn_f32_or_null(c->in[4]) }, (float)(1 / tau), (float)(1.4426950408889634 / tau), NULL, NULL };
    }
    static pn_status finish(const pn_op_call *c, const head &h, int64_t N, const head::sums *part, int64_t parts) {
        finish_rows<<<pn_cuda_blocks(N, THREADS), THREADS, 0, pn_cuda_stream()>>>(
            h, tau_of(c), N, part, parts, pn_f32(c->out[1]), pn_f32(c->out[2]), pn_i32(c->out[3]), pn_cuda_bad_slot(),
            "linear_kl");
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

static constexpr pn_op_impl fused = pn_logits_loss<op, pn_logits_in_registers>::impl("linear_kl/cuda-fused"),
                            impl = pn_logits_loss<op, pn_logits_in_tiles>::impl(op::name);
PN_CUDA_OP(linear_kl, &fused, &impl)
