#include "cuda/logits_warpgroup.cuh"

#include "linear_argmax.h"

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "linear_argmax/cuda";

enum { THREADS = 256 };

struct head { /* logits.cuh */
    static constexpr int sides = 1;
    struct sums {
        float max;
        int first;
    };
    __device__ sums none() const { return { -INFINITY, 0 }; }
    struct row {};
    __device__ row row_of(int64_t, bool) const { return {}; }
    template <int K, class Z, class W> __device__ void fold(sums &s, const row &, Z z, W word) const {
        const float most = pn_logits_max<K>(s.max, 0, z);
        if (most > s.max) s = { most, pn_logits_first<K>(most, 0, z, word) };
    }
    __device__ void merge(sums &s, const sums &other) const {
        if (other.max > s.max || (other.max == s.max && other.first < s.first)) s = other;
    }
};

__global__ void __launch_bounds__(THREADS)
    finish_rows(head h, int64_t N, const head::sums *part, int64_t parts, int32_t *first) {
    const int64_t n = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (n >= N) return;
    head::sums s = h.none();
    for (int64_t p = 0; p < parts; p++) h.merge(s, part[p * N + n]);
    first[n] = s.first;
}

} // namespace

static bool takes(const pn_op_call *c) {
    return c->in[1]->shape[0] <= INT32_MAX && c->in[1]->shape[1] >= 1;
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

static size_t scratch_bytes(const pn_op_call *c, bool) {
    pn_logits x = logits_of(c);
    return pn_logits_carve_tiles(&x, false, sizeof(head::sums), NULL).n_bytes;
}

static pn_status finish(const pn_op_call *c, const pn_logits_work &w, int64_t parts) {
    const int64_t N = c->in[0]->shape[0];
    if (N == 0) return PN_OK;
    finish_rows<<<pn_cuda_blocks(N, THREADS), THREADS, 0, pn_cuda_stream()>>>(head{}, N, (const head::sums *)w.part,
                                                                              parts, pn_i32(c->out[0]));
    return pn_cuda_launched(name);
}

static pn_status forward(const pn_op_call *c) {
    const pn_logits x = logits_of(c);
    const pn_logits_work w = pn_logits_carve_tiles(&x, false, sizeof(head::sums), c->scratch);
    PN_TRY(pn_logits_fold(&x, head{}, w));
    return finish(c, w, pn_logits_parts(&x, PN_LOGITS_PART));
}

/* ---- on Hopper ---- */

static bool takes_fused(const pn_op_call *c) {
    const pn_logits x = logits_of(c);
    return takes(c) && pn_fused_takes(&x) && pn_fused_there<true, head>();
}

static size_t scratch_bytes_fused(const pn_op_call *c, bool) {
    const pn_logits x = logits_of(c);
    return pn_fused_carve<head>(&x, false, NULL).n_bytes;
}

static pn_status forward_fused(const pn_op_call *c) {
    const pn_logits x = logits_of(c);
    const pn_logits_work w = pn_fused_carve<head>(&x, false, c->scratch);
    const head h = {};
    PN_TRY(pn_fused_fold(&x, h, w));
    return finish(c, w, pn_fused_parts<head>(&x));
}

static const pn_op_impl fused = { .name = "linear_argmax/cuda-fused",
                                  .bf16 = true,
                                  .takes = takes_fused,
                                  .scratch_bytes = scratch_bytes_fused,
                                  .forward = forward_fused };
static const pn_op_impl impl = {
    .name = name, .bf16 = true, .takes = takes, .scratch_bytes = scratch_bytes, .forward = forward
};
PN_CUDA_OP(linear_argmax, &fused, &impl)
