/* Ids are checked where they are used (device_cuda.h).
 *
 * Where a listed word's logit is made it is put aside and left out of the row's sum, which is so that of the tail; the
 * listed ones join it when all of a row is known. Backward makes every word's gradient as one of the tail and then puts
 * those of listed words, whose logits were kept, over what stands for them in the tile. */
#include "cuda/logits_loss.cuh"

#include "linear_kl_topk.h"

namespace {

enum { THREADS = 256, WARPS = THREADS / 32 };

struct head { /* logits.cuh */
    static constexpr int sides = 1;
    pn_row_weights r;
    float inverse_tau, exponent; /* exp(z / tau) = 2^(exponent z) */
    int64_t V;
    int k;
    const int32_t *ids;                   /* [N, k] */
    float *listed;                        /* [N, k] their logits; backward reads them */
    const float *log_p, *sums_of, *scale; /* backward: [N, k]; [N, PN_TOPK_SUMS]; tau dloss / sum of weights */

    /* sum exp((z - max) / tau) over words that are not listed; and where the row's list is read: place `next`, -1
     * before the first word, has `id`. */
    struct sums {
        float max, sum;
        int next, id;
    };
    __device__ sums none() const { return { -INFINITY, 0, -1, 0 }; }
    struct row {
        const int32_t *ids;
        float *listed; /* NULL: a row that stands in for none */
    };
    __device__ row row_of(int64_t n, bool counts) const { return { ids + n * k, counts ? listed + n * k : NULL }; }
    __device__ float exp_of(float z) const { return pn_logits_exp2(z * exponent); }
    __device__ void read_at(sums &s, const row &of, int place) const {
        s.next = place;
        s.id = place < k ? of.ids[place] : INT32_MAX;
    }
    /* The first listed word that is not before `word`. */
    __device__ void seek(sums &s, const row &of, int word) const {
        int low = 0, high = k;
        while (low < high) {
            const int middle = (low + high) / 2;
            if (of.ids[middle] < word)
                low = middle + 1;
            else
                high = middle;
        }
        read_at(s, of, low);
    }

    template <int K, class Z> __device__ void add(sums &s, Z z) const {
        const float most = pn_logits_max<K>(s.max, 0, z), base = pn_logits_base(most);
        float sum[4] = { s.sum * exp_of(s.max - base) };
#pragma unroll
        for (int i = 0; i < K; i++) sum[i % 4] += exp_of(z(0, i) - base);
        s.max = most;
        s.sum = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
    template <int K, class Z, class W> __device__ void fold(sums &s, const row &of, Z z, W word) const {
        static_assert(K <= 64, "a bit each");
        if (s.next < 0) seek(s, of, word(0));
        uint64_t taken = 0;
        for (; s.next < k && s.id <= word(K - 1); read_at(s, of, s.next + 1)) { /* some are other threads' words */
            float at = 0;
            bool mine = false;
#pragma unroll
            for (int i = 0; i < K; i++)
                if (word(i) == s.id) {
                    at = z(0, i);
                    mine = true;
                    taken |= (uint64_t)1 << i;
                }
            if (mine && of.listed) of.listed[s.next] = at;
        }
        if (taken == 0)
            add<K>(s, z);
        else
            add<K>(s, [&](int side, int i) { return taken >> i & 1 ? -INFINITY : z(side, i); });
    }
    __device__ void merge(sums &s, const sums &other) const {
        const float most = fmaxf(s.max, other.max), base = pn_logits_base(most);
        s.sum = s.sum * exp_of(s.max - base) + other.sum * exp_of(other.max - base);
        s.max = most;
    }

    __device__ float factor_of(int64_t n) const {
        return *scale * r.weight_of(n);
    }
    struct slope {
        float all, tail, lse, lse_tail; /* the sum of all p, and p_tail, times the row's factor */
    };
    __device__ slope slope_of(int64_t n) const {
        const float *of = sums_of + n * PN_TOPK_SUMS, k = factor_of(n);
        return { k * of[PN_TOPK_P_ALL], k * of[PN_TOPK_P_TAIL], of[PN_TOPK_LSE], of[PN_TOPK_LSE_TAIL] };
    }
    __device__ float kq(const slope &of, float y) const {
        return of.all * pn_logits_exp(y - of.lse);
    }
    /* Of a word of the tail, whose y is not above lse_tail. */
    __device__ float dz(const slope &of, float z, float, int) const {
        const float y = z * inverse_tau;
        return of.all == 0 ? 0 : kq(of, y) - of.tail * pn_logits_exp(fminf(y - of.lse_tail, 0));
    }
    __device__ float dz_listed(int64_t n, float z, float log_p_of_it) const {
        const slope of = slope_of(n);
        return of.all == 0 ? 0 : kq(of, z * inverse_tau) - factor_of(n) * pn_logits_exp(log_p_of_it);
    }
};

__device__ double warp_sum(double x) {
    for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(~0u, x, d);
    return x;
}

/* A warp for a row. */
__global__ void __launch_bounds__(THREADS)
    finish_rows(head h, double tau, int64_t N, const head::sums *part, int64_t parts, float *kl, float *sums,
                pn_cuda_bad *bad, const char *id_name, const char *op) {
    const int64_t n = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (n >= N) return;
    const float *listed = h.listed + n * h.k, *log_p = h.log_p + n * h.k;
    const int32_t *ids = h.ids + n * h.k;
    if (lane == 0) pn_check_weight(bad, op, h.r.weight, n);
    head::sums tail = h.none();
    for (int64_t p = lane; p < parts; p += 32) h.merge(tail, part[p * N + n]);
    for (int d = 16; d > 0; d /= 2) h.merge(tail, pn_logits_shuffle(tail, d));
    tail.max = __shfl_sync(~0u, tail.max, 0);
    tail.sum = __shfl_sync(~0u, tail.sum, 0);
    const bool tailed = h.k < h.V;
    float most = tailed ? tail.max : -INFINITY;
    for (int j = lane; j < h.k; j += 32) {
        const int64_t low = j ? (int64_t)ids[j - 1] + 1 : 0;
        if (ids[j] < low || ids[j] >= h.V) pn_report_id(bad, id_name, ids[j], n * h.k + j, low, h.V);
        most = fmaxf(most, listed[j]);
    }
    for (int d = 16; d > 0; d /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
    double all = 0, p = 0, cross = 0;
    for (int j = lane; j < h.k; j += 32) {
        const double p_j = (double)expf(log_p[j]);
        all += (double)expf((listed[j] - most) * h.inverse_tau);
        p += p_j;
        cross += p_j * ((double)log_p[j] - (double)listed[j] / tau);
    }
    all = warp_sum(all), p = warp_sum(p), cross = warp_sum(cross);
    if (lane) return;
    if (tailed) all += (double)tail.sum * (double)expf((tail.max - most) * h.inverse_tau);
    const double lse = (double)most / tau + log(all);
    const double lse_tail = tailed ? (double)tail.max / tau + log((double)tail.sum) : lse;
    const double p_tail = tailed ? fmax(0.0, 1 - p) : 0;
    float *of = sums + n * PN_TOPK_SUMS;
    of[PN_TOPK_LSE] = (float)lse;
    of[PN_TOPK_LSE_TAIL] = (float)lse_tail;
    of[PN_TOPK_P_TAIL] = (float)p_tail;
    of[PN_TOPK_P_ALL] = (float)(p + p_tail);
    kl[n] = (float)(cross + p * lse + (p_tail > 0 ? p_tail * (log(p_tail) - (lse_tail - lse)) : 0));
}

/* dz [n, row] of words v0 .. v0 + v - 1: those of listed words. */
template <class T>
__global__ void __launch_bounds__(THREADS)
    put_listed(head h, int64_t n0, int64_t n, int64_t v0, int64_t v, int64_t row, T *dz) {
    const int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (at >= n * h.k) return;
    const int64_t from = n0 * h.k + at, r = at / h.k, word = h.ids[from] - v0;
    if (word < 0 || word >= v) return;
    pn_store(dz + r * row + word, h.dz_listed(n0 + r, h.listed[from], h.log_p[from]));
}

struct amend { /* logits.cuh */
    const head &h;
    pn_dtype type;
    pn_status operator()(int64_t n0, int64_t n, int64_t v0, int64_t v, int64_t row, void *dz) const {
        const unsigned blocks = pn_cuda_blocks(n * h.k, THREADS);
        if (type == PN_BF16)
            put_listed<<<blocks, THREADS, 0, pn_cuda_stream()>>>(h, n0, n, v0, v, row, (pn_bf16 *)dz);
        else
            put_listed<<<blocks, THREADS, 0, pn_cuda_stream()>>>(h, n0, n, v0, v, row, (float *)dz);
        return pn_cuda_launched("linear_kl_topk/cuda");
    }
};

struct op { /* logits_loss.cuh */
    typedef ::head head;
    static constexpr const char *name = "linear_kl_topk/cuda";

    static double tau_of(const pn_op_call *c) { return ((const pn_linear_kl_topk_attr *)c->attr)->temperature; }
    static double factor_of(const pn_op_call *c) { return tau_of(c) * tau_of(c); }
    static double slope_factor_of(const pn_op_call *c) { return tau_of(c); } /* logits are over tau */
    static head head_of(const pn_op_call *c) {
        head h = {};
        h.r = { pn_f32_or_null(c->in[4]) };
        h.inverse_tau = (float)(1 / tau_of(c));
        h.exponent = (float)(1.4426950408889634 / tau_of(c));
        h.V = c->in[1]->shape[0];
        h.k = (int)c->in[2]->shape[1];
        h.ids = pn_i32(c->in[2]);
        h.listed = pn_f32(c->out[2]);
        h.log_p = pn_f32(c->in[3]);
        return h;
    }
    static pn_status finish(const pn_op_call *c, const head &h, int64_t N, const head::sums *part, int64_t parts) {
        finish_rows<<<pn_cuda_blocks(N, WARPS), THREADS, 0, pn_cuda_stream()>>>(
            h, tau_of(c), N, part, parts, pn_f32(c->out[1]), pn_f32(c->out[3]), pn_cuda_bad_slot(),
            "linear_kl_topk: id", "linear_kl_topk");
        return pn_cuda_launched(name);
    }
    static head head_of_backward(const pn_op_call *c, const float *scale) {
        head h = head_of(c);
        h.sums_of = pn_f32(c->out[3]), h.scale = scale;
        return h;
    }
    static amend amend_of(const head &h, pn_dtype type) { return { h, type }; }
};

} // namespace

static constexpr pn_op_impl fused = pn_logits_loss<op, pn_logits_in_registers>::impl("linear_kl_topk/cuda-fused"),
                            impl = pn_logits_loss<op, pn_logits_in_tiles>::impl(op::name);
PN_CUDA_OP(linear_kl_topk, &fused, &impl)
