/* Rows of logits, as many as fit BUDGET, are made whole, in F32, and a block goes through each twice: for the sum and
 * the largest logit of every thread, and for the words that can be among the k largest. The k-th largest of the
 * threads' largest is not above the k-th largest of all; when words are in no special order few more than k reach it,
 * and they fit shared memory. What is left is exact whatever the order: the k-th largest by its digits, then all above
 * it and the first that equal it, in the order of words.
 *
 * Floats are compared as whole numbers of the same order; counts of these are the only atomics, so that nothing depends
 * on time. */
#include "cuda/logits.cuh"
#include "cuda/reduce.cuh"

#include "linear_topk.h"

namespace {

const char name[] = "linear_topk/cuda";

enum {
    THREADS = 1024,
    WARPS = THREADS / 32,
    BUDGET = 1 << 26, /* logits */
    LIST = 2048,      /* words that may be among the k largest */
    BINS = 2048       /* values of a digit */
};

__device__ uint32_t key_of(float z) {
    const uint32_t bits = __float_as_uint(z + 0.0f); /* -0 equals 0 */
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ float float_of(uint32_t key) {
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

struct shared {
    uint32_t key[LIST];
    int32_t id[LIST];
    uint32_t largest[THREADS];
    uint32_t bin[BINS];
    uint32_t of_warp[WARPS];
    uint32_t digit, left;
};

/* What words are chosen from. */
struct from_row {
    const float *z;
    __device__ uint32_t key(int64_t i) const { return key_of(z[i]); }
    __device__ int32_t id(int64_t i) const { return (int32_t)i; }
};
struct from_list {
    const shared *s;
    __device__ uint32_t key(int64_t i) const { return s->key[i]; }
    __device__ int32_t id(int64_t i) const { return s->id[i]; }
};
struct from_largest {
    const shared *s;
    __device__ uint32_t key(int64_t i) const { return s->largest[i]; }
};

/* The sum of x over the threads before this one, and *all over all of them. All threads must come. */
__device__ uint32_t before(shared *s, uint32_t x, uint32_t *all) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t sum = x;
    for (int d = 1; d < 32; d *= 2) {
        const uint32_t other = __shfl_up_sync(~0u, sum, d);
        if (lane >= d) sum += other;
    }
    __syncthreads(); /* of_warp may still be read */
    if (lane == 31) s->of_warp[warp] = sum;
    __syncthreads();
    uint32_t of = s->of_warp[lane];
    for (int d = 1; d < 32; d *= 2) {
        const uint32_t other = __shfl_up_sync(~0u, of, d);
        if (lane >= d) of += other;
    }
    *all = __shfl_sync(~0u, of, 31);
    const uint32_t warps = __shfl_sync(~0u, of, warp ? warp - 1 : 0);
    return sum - x + (warp ? warps : 0);
}

/* The key of the k-th largest of n (k <= n), digit by digit from the highest; *equal: how many of that key are among
 * the k. */
template <class S> __device__ uint32_t kth_largest(shared *s, S from, int64_t n, uint32_t k, uint32_t *equal) {
    uint32_t known = 0, mask = 0;
    for (int shift = 21; shift >= 0; shift -= shift > 10 ? 11 : 10) {
        for (int b = threadIdx.x; b < BINS; b += THREADS) s->bin[b] = 0;
        __syncthreads();
        for (int64_t i = threadIdx.x; i < n; i += THREADS) {
            const uint32_t key = from.key(i);
            if ((key & mask) == known) atomicAdd(&s->bin[key >> shift & (BINS - 1)], 1u);
        }
        __syncthreads();
        /* Each thread has two values, the first thread the highest. */
        const int high = BINS - 1 - 2 * (int)threadIdx.x;
        const uint32_t x = s->bin[high], y = s->bin[high - 1];
        uint32_t all;
        const uint32_t above = before(s, x + y, &all);
        if (above < k && k <= above + x + y) {
            const bool first = k <= above + x;
            s->digit = (uint32_t)(first ? high : high - 1);
            s->left = k - above - (first ? 0 : x);
        }
        __syncthreads();
        known |= s->digit << shift;
        mask |= (uint32_t)(BINS - 1) << shift;
        k = s->left;
    }
    *equal = k;
    return known;
}

/* Those of n that are above the key, and the first `equal` that are it, to ids and log_p in their order. */
template <class S>
__device__ void put(shared *s, S from, int64_t n, uint32_t key, uint32_t equal, float most, double inverse_tau,
                    double log_sum, int32_t *ids, float *log_p) {
    uint32_t above_so_far = 0, equal_so_far = 0;
    for (int64_t i0 = 0; i0 < n; i0 += THREADS) {
        const int64_t i = i0 + threadIdx.x;
        const uint32_t own = i < n ? from.key(i) : 0;
        const bool is_above = i < n && own > key, is_equal = i < n && own == key;
        uint32_t all;
        const uint32_t both = before(s, (is_above ? 1u : 0u) | (is_equal ? 1u << 16 : 0u), &all);
        const uint32_t above_before = above_so_far + (both & 0xffff), equal_before = equal_so_far + (both >> 16);
        if (is_above || (is_equal && equal_before < equal)) {
            const uint32_t at = above_before + min(equal_before, equal);
            const double p = ((double)float_of(own) - (double)most) * inverse_tau - log_sum;
            ids[at] = from.id(i);
            log_p[at] = p > 0 ? 0.0f : (float)p; /* what is no number stays none: whoever reads it must see */
        }
        above_so_far += all & 0xffff;
        equal_so_far += all >> 16;
    }
}

/* Words of a row whose key is not below `least`, in their order, to the list, as far as it has room; how many there
 * are. */
__device__ uint32_t list_words(shared *s, const float *z, int64_t V, uint32_t least) {
    uint32_t n = 0;
    for (int64_t v0 = 0; v0 < V; v0 += 4 * THREADS) {
        const int64_t v = v0 + 4 * threadIdx.x; /* rows are padded to whole groups of eight */
        const float4 four = v < V ? *(const float4 *)(z + v) : float4{};
        const uint32_t key[4] = { key_of(four.x), key_of(four.y), key_of(four.z), key_of(four.w) };
        uint32_t own = 0, all;
        for (int i = 0; i < 4; i++) own += v + i < V && key[i] >= least;
        if (!__syncthreads_or(own)) continue;
        uint32_t at = n + before(s, own, &all);
        for (int i = 0; i < 4; i++) {
            if (v + i >= V || key[i] < least) continue;
            if (at < LIST) s->key[at] = key[i], s->id[at] = (int32_t)(v + i);
            at++;
        }
        n += all;
    }
    __syncthreads();
    return n;
}

/* Rows n0 + blockIdx.x. */
__global__ void __launch_bounds__(THREADS) select_words(const float *rows, int64_t row, int64_t V, int64_t n0, int k,
                                                        double inverse_tau, int32_t *ids, float *log_p) {
    __shared__ shared s;
    const float *z = rows + blockIdx.x * row, scale = (float)inverse_tau;
    float most = -INFINITY, sum = 0;
    for (int64_t v = 4 * threadIdx.x; v < V; v += 4 * THREADS) {
        const float4 four = *(const float4 *)(z + v);
        const float x[4] = { four.x, v + 1 < V ? four.y : -INFINITY, v + 2 < V ? four.z : -INFINITY,
                             v + 3 < V ? four.w : -INFINITY };
        const float larger = fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
        if (larger > most) {
            sum *= expf((most - larger) * scale);
            most = larger;
        }
        for (int i = 0; i < 4; i++) sum += expf((x[i] - most) * scale);
    }
    s.largest[threadIdx.x] = key_of(most);
    const float most_of_all = pn_block_max<THREADS>(most);
    const double all =
        pn_block_sum<THREADS>(most == -INFINITY ? 0.0 : (double)(sum * expf((most - most_of_all) * scale)));
    uint32_t equal, least = 0;
    if (k <= THREADS) least = kth_largest(&s, from_largest{ &s }, THREADS, (uint32_t)k, &equal);
    const uint32_t n = list_words(&s, z, V, least);
    const int64_t at = (n0 + blockIdx.x) * k;
    if (n <= LIST) {
        const uint32_t key = kth_largest(&s, from_list{ &s }, n, (uint32_t)k, &equal);
        put(&s, from_list{ &s }, n, key, equal, most_of_all, inverse_tau, log(all), ids + at, log_p + at);
    } else {
        const uint32_t key = kth_largest(&s, from_row{ z }, V, (uint32_t)k, &equal);
        put(&s, from_row{ z }, V, key, equal, most_of_all, inverse_tau, log(all), ids + at, log_p + at);
    }
}

static_assert(sizeof(shared) + WARPS * sizeof(double) * 2 <= 48 << 10, "shared memory that every block may have");

struct work {
    pn_logits_tile tile;
    void *workspace;
    float *z;
    size_t n_bytes;
};

} // namespace

static pn_logits logits_of(const pn_op_call *c) {
    return pn_logits_of(c, name, 1);
}

static bool takes(const pn_op_call *c) {
    const pn_logits x = logits_of(c);
    return pn_logits_takes(&x);
}

static work work_of(const pn_logits *x, void *scratch) {
    pn_cuda_carve s = { (char *)scratch, 0 };
    work w = {};
    const int64_t rows = BUDGET / x->V > 1 ? BUDGET / x->V : 1;
    w.tile = { pn_logits_least(rows, x->N > 0 ? x->N : 1), x->V, (x->V + 7) / 8 * 8 };
    w.workspace = s.take<char>(PN_MATMUL_WORKSPACE);
    w.z = s.take<float>(w.tile.rows * w.tile.row);
    w.n_bytes = s.n_bytes;
    return w;
}

static size_t scratch_bytes(const pn_op_call *c, bool) {
    const pn_logits x = logits_of(c);
    return work_of(&x, NULL).n_bytes;
}

static pn_status forward(const pn_op_call *c) {
    const pn_linear_topk_attr *attr = (const pn_linear_topk_attr *)c->attr;
    const pn_logits x = logits_of(c);
    const work w = work_of(&x, c->scratch);
    for (int64_t n0 = 0; n0 < x.N; n0 += w.tile.rows) {
        const int64_t n = pn_logits_least(w.tile.rows, x.N - n0);
        PN_TRY(pn_logits_make(&x, 0, n0, n, 0, x.V, &w.tile, w.z, w.workspace));
        select_words<<<(unsigned)n, THREADS, 0, pn_cuda_stream()>>>(
            w.z, w.tile.row, x.V, n0, (int)attr->k, 1 / attr->temperature, pn_i32(c->out[0]), pn_f32(c->out[1]));
        PN_TRY(pn_cuda_launched(name));
    }
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .takes = takes, .scratch_bytes = scratch_bytes, .forward = forward
};
PN_CUDA_OP(linear_topk, &impl)
