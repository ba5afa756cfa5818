#include "cuda/logits_op.cuh"

#include "linear_argmax.h"

namespace {

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

struct op { /* logits_op.cuh */
    typedef ::head head;
    static constexpr const char *name = "linear_argmax/cuda";

    static head head_of(const pn_op_call *) { return {}; }
    static pn_status finish(const pn_op_call *c, const head &h, int64_t N, const head::sums *part, int64_t parts) {
        finish_rows<<<pn_cuda_blocks(N, THREADS), THREADS, 0, pn_cuda_stream()>>>(h, N, part, parts, pn_i32(c->out[0]));
        return pn_cuda_launched(name);
    }
};

} // namespace

typedef pn_logits_op<op, pn_logits_in_registers> in_registers;
typedef pn_logits_op<op, pn_logits_in_tiles> in_tiles;

static const pn_op_impl fused = { .name = "linear_argmax/cuda-fused",
                                  .bf16 = true,
                                  .takes = in_registers::takes,
                                  .scratch_bytes = in_registers::scratch_bytes,
                                  .forward = in_registers::forward };
static const pn_op_impl impl = { .name = op::name,
                                 .bf16 = true,
                                 .takes = in_tiles::takes,
                                 .scratch_bytes = in_tiles::scratch_bytes,
                                 .forward = in_tiles::forward };
PN_CUDA_OP(linear_argmax, &fused, &impl)
