/* Rows of weight 0 are computed with the others: a tile has no holes. Weights are checked where they are used
 * (device_cuda.h). */
#include "cuda/fresh.cuh"
#include "cuda/inputs.cuh"
#include "cuda/logits_warpgroup.cuh"
#include "cuda/reduce.cuh"

#include "linear_kl.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "linear_kl/cuda";

enum { THREADS = 256 };

struct rows {
    const float *weight; /* NULL: all 1 */
    __device__ float weight_of(int64_t n) const { return weight ? weight[n] : 1; }
};

struct head { /* logits.cuh */
    static constexpr int sides = 2;
    rows r;
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
    const float *weight = h.r.weight;
    if (weight && !(isfinite(weight[n]) && weight[n] >= 0)) pn_report_weight(bad, op, weight[n], n);
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

struct loss_terms {
    rows r;
    const float *kl;
    __device__ void operator()(int64_t n, float v[2]) const {
        v[1] = r.weight_of(n);
        v[0] = v[1] * kl[n];
    }
};
struct put_loss {
    double factor;
    float *loss;
    __device__ void operator()(const double sum[2]) const {
        *loss = sum[1] > 0 ? (float)(factor * sum[0] / sum[1]) : 0;
    }
};

struct weight_term {
    rows r;
    __device__ void operator()(int64_t n, float v[1]) const { v[0] = r.weight_of(n); }
};
struct put_scale {
    double factor;
    const float *dloss;
    float *scale;
    __device__ void operator()(const double sum[1]) const {
        *scale = sum[0] > 0 ? (float)(factor * *dloss / sum[0]) : 0;
    }
};

static_assert(PN_SUM_MOST_PARTS * 2 * sizeof(double) <= PN_MATMUL_WORKSPACE, "the sums fit the workspace");

} // namespace

static bool takes(const pn_op_call *c) {
    return c->in[1]->shape[0] >= 1 && c->in[1]->shape[0] <= INT32_MAX && c->in[1]->shape[1] >= 1 &&
           c->in[3]->shape[1] >= 1;
}

static double tau_of(const pn_op_call *c) {
    return ((const pn_linear_kl_attr *)c->attr)->temperature;
}

static pn_logits logits_of(const pn_op_call *c) {
    pn_logits x = {};
    x.name = name;
    x.type = c->dtype;
    x.N = c->in[0]->shape[0], x.V = c->in[1]->shape[0];
    x.sides = head::sides;
    for (int s = 0; s < 2; s++)
        x.side[s] = { pn_logits_address(c->in[2 * s]), pn_logits_address(c->in[2 * s + 1]),
                      c->in[2 * s + 1]->shape[1] };
    return x;
}

static head head_of(const pn_op_call *c) {
    return {
        { pn_f32_or_null(c->in[4]) }, (float)(1 / tau_of(c)), (float)(1.4426950408889634 / tau_of(c)), NULL, NULL
    };
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
    const double tau = tau_of(c);
    float *kl = pn_f32(c->out[1]);
    if (N > 0) {
        finish_rows<<<pn_cuda_blocks(N, THREADS), THREADS, 0, pn_cuda_stream()>>>(
            h, tau, N, (const head::sums *)w.part, parts, kl, pn_f32(c->out[2]), pn_i32(c->out[3]), pn_cuda_bad_slot(),
            "linear_kl");
        PN_TRY(pn_cuda_launched(name));
    }
    return pn_cuda_sums<2>(name, N, loss_terms{ h.r, kl }, put_loss{ tau * tau, pn_f32(c->out[0]) }, w.workspace);
}

static pn_status forward(const pn_op_call *c) {
    const pn_logits x = logits_of(c);
    const pn_logits_work w = work_of(c, &x, false);
    const head h = head_of(c);
    PN_TRY(pn_logits_fold(&x, h, w));
    return finish(c, h, w, pn_logits_parts(&x, PN_LOGITS_PART));
}

/* Without rows or dloss there is nothing to add. */
static bool has_gradients(const pn_op_call *c) {
    return c->dout[0] && c->in[0]->shape[0] > 0 && (c->din[0] || c->din[1]);
}

/* With the gradient's scale, which is made in w. */
static pn_status head_of_backward(const pn_op_call *c, const pn_logits_work &w, head *h) {
    *h = head_of(c);
    h->lse = pn_f32(c->out[2]), h->scale = w.number;
    return pn_cuda_sums<1>(name, c->in[0]->shape[0], weight_term{ h->r },
                           put_scale{ tau_of(c), pn_f32(c->dout[0]), w.number }, w.workspace);
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
    const head h = head_of(c);
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

static const pn_op_impl fused = { .name = "linear_kl/cuda-fused",
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
PN_CUDA_OP(linear_kl, &fused, &impl)
