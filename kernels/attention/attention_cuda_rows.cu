/* For heads of any width: a block to a row of a result, which its threads hold a run of channels at a time. It reads
 * every operand once per row, so it is for widths that the tiles do not have, not for speed. */
#include "attention_cuda.cuh"
#include "cuda/reduce.cuh"

namespace {

const char name[] = "attention/cuda-rows";

enum { WARPS = 4, THREADS = 32 * WARPS, EACH = 4, RUN = THREADS * EACH, PARTNERS = 32, MOST_BLOCKS = 1 << 20 };

/* <a, b>, for every lane of the warp. */
template <class T> __device__ float dot(const T *a, const T *b, int d) {
    float sum = 0;
    for (int i = threadIdx.x % 32; i < d; i += 32) sum = fmaf(pn_load(a + i), pn_load(b + i), sum);
    for (int n = 16; n > 0; n /= 2) sum += __shfl_xor_sync(~0u, sum, n);
    return sum;
}

/* A query head of a token: where it is among all of them, and the keys first .. last that it sees. */
struct seeing_row {
    int64_t head, key0;
    int kv, first, last;
};
__device__ seeing_row row_at(const pn_attention_call &c, int64_t head) {
    int64_t token = head / c.heads;
    pn_attention_part x = pn_attention_part_at(c, c.doc[token]);
    int position = x.keys - x.queries + (int)(token - x.query0);
    return { head, x.key0, (int)(head % c.heads) / c.group, pn_attention_first(c, position), position };
}

/* sum[e] += f_n . rows: channel `from` + e THREADS + threadIdx.x of the first n partners, weighed. */
template <class T, class R>
__device__ void gather(float (&sum)[EACH], const float *weight, int n, int from, int d, R row) {
    for (int i = 0; i < n; i++) {
        const T *x = row(i);
        for (int e = 0; e < EACH; e++) {
            int at = from + e * THREADS + (int)threadIdx.x;
            if (at < d) sum[e] = fmaf(weight[i], pn_load(x + at), sum[e]);
        }
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    attend(pn_attention_call c, const T *q, const T *k, const T *v, T *o, float *lse) {
    __shared__ float score[PARTNERS];
    for (int64_t head = blockIdx.x; head < (int64_t)c.tokens * c.heads; head += gridDim.x) {
        seeing_row x = row_at(c, head);
        auto row_of = [&](const T *base, int j) { return base + ((x.key0 + j) * c.kv_heads + x.kv) * c.d; };
        for (int from = 0; from < c.d; from += RUN) {
            float most = -INFINITY, sum = 0, out[EACH] = {};
            for (int j0 = x.first; j0 <= x.last; j0 += PARTNERS) {
                int n = min(PARTNERS, x.last - j0 + 1);
                __syncthreads();
                for (int i = threadIdx.x / 32; i < n; i += WARPS)
                    score[i] = dot(q + head * c.d, row_of(k, j0 + i), c.d) * (c.scale * PN_LOG2_E);
                __syncthreads();
                float now = most, weight[PARTNERS];
                for (int i = 0; i < n; i++) now = fmaxf(now, score[i]);
                float shrink = pn_power_of_2(most - now);
                sum *= shrink;
                for (int e = 0; e < EACH; e++) out[e] *= shrink;
                for (int i = 0; i < n; i++) sum += weight[i] = pn_power_of_2(score[i] - now);
                gather<T>(out, weight, n, from, c.d, [&](int i) { return row_of(v, j0 + i); });
                most = now;
            }
            for (int e = 0; e < EACH; e++) {
                int at = from + e * THREADS + (int)threadIdx.x;
                if (at < c.d) pn_store(o + head * c.d + at, out[e] / sum);
            }
            if (threadIdx.x == 0) lse[head] = (most + log2f(sum)) * PN_LN_2;
        }
    }
}

template <class T> struct operands {
    const T *q, *k, *v, *d_o;
    const float *lse;
    float *delta;
    bool adds[3]; /* to dq, dk, dv; else they are written */
};

/* By the whole warp, of a head of queries and a row of keys. */
template <class T>
__device__ float weight_of(const pn_attention_call &c, const operands<T> &x, int64_t head, int64_t key) {
    return pn_power_of_2((dot(x.q + head * c.d, x.k + key * c.d, c.d) * c.scale - x.lse[head]) * PN_LOG2_E);
}
template <class T>
__device__ float weight_gradient(const pn_attention_call &c, const operands<T> &x, int64_t head, int64_t key) {
    return dot(x.d_o + head * c.d, x.v + key * c.d, c.d);
}
template <class T>
__device__ void gradients(const pn_attention_call &c, const operands<T> &x, int64_t head, int64_t key, float *p,
                          float *ds) {
    *p = weight_of(c, x, head, key);
    *ds = *p * (weight_gradient(c, x, head, key) - x.delta[head]);
}

/* delta = sum of p dp, which is <do, o> before o was rounded. */
template <class T> __global__ void __launch_bounds__(THREADS) sum_delta(pn_attention_call c, operands<T> in) {
    for (int64_t head = blockIdx.x; head < (int64_t)c.tokens * c.heads; head += gridDim.x) {
        seeing_row x = row_at(c, head);
        float sum = 0;
        for (int j = x.first + (int)threadIdx.x / 32; j <= x.last; j += WARPS) {
            int64_t key = (x.key0 + j) * c.kv_heads + x.kv;
            sum = fmaf(weight_of(c, in, head, key), weight_gradient(c, in, head, key), sum);
        }
        float all = pn_block_sum<THREADS>(threadIdx.x % 32 == 0 ? sum : 0.0f);
        if (threadIdx.x == 0) in.delta[head] = all;
    }
}

template <class T> __device__ void put(bool add, T *to, const float (&sum)[EACH], float scale, int from, int d) {
    for (int e = 0; e < EACH; e++) {
        int at = from + e * THREADS + (int)threadIdx.x;
        float y = __fmul_rn(scale, sum[e]);
        if (at < d) pn_store(to + at, add ? __fadd_rn(pn_load(to + at), y) : y);
    }
}

template <class T> __global__ void __launch_bounds__(THREADS) add_dq(pn_attention_call c, operands<T> in, T *dq) {
    __shared__ float p[PARTNERS], ds[PARTNERS];
    for (int64_t head = blockIdx.x; head < (int64_t)c.tokens * c.heads; head += gridDim.x) {
        seeing_row x = row_at(c, head);
        auto key_of = [&](int j) { return (x.key0 + j) * c.kv_heads + x.kv; };
        for (int from = 0; from < c.d; from += RUN) {
            float sum[EACH] = {};
            for (int j0 = x.first; j0 <= x.last; j0 += PARTNERS) {
                int n = min(PARTNERS, x.last - j0 + 1);
                __syncthreads();
                for (int i = threadIdx.x / 32; i < n; i += WARPS) gradients(c, in, head, key_of(j0 + i), p + i, ds + i);
                __syncthreads();
                gather<T>(sum, ds, n, from, c.d, [&](int i) { return in.k + key_of(j0 + i) * c.d; });
            }
            put(in.adds[0], dq + head * c.d, sum, c.scale, from, c.d);
        }
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS) add_dk_dv(pn_attention_call c, operands<T> in, T *dk, T *dv) {
    __shared__ float p[PARTNERS], ds[PARTNERS];
    for (int64_t row = blockIdx.x; row < c.key_rows * c.kv_heads; row += gridDim.x) {
        int64_t key = row / c.kv_heads;
        int kv = (int)(row % c.kv_heads), only = c.key_start ? 0 : c.doc[key], end = c.key_start ? c.docs : only + 1;
        for (int from = 0; from < c.d; from += RUN) {
            float sum_k[EACH] = {}, sum_v[EACH] = {};
            for (int doc = only; doc < end; doc++) {
                pn_attention_part x = pn_attention_part_at(c, doc);
                int64_t j = key - x.key0, shift = x.keys - x.queries;
                if (j < 0 || j >= x.keys) continue;
                int64_t first = max(j - shift, (int64_t)0), last = x.queries; /* the queries that see key j */
                if (c.window) last = min(last, j + c.window - shift);
                auto head_of = [&](int64_t i) { /* the i-th head from the first of those queries on */
                                                return (x.query0 + first + i / c.group) * c.heads + kv * c.group +
                                                       i % c.group;
                };
                for (int64_t i0 = 0; i0 < (last - first) * c.group; i0 += PARTNERS) {
                    int n = (int)min((int64_t)PARTNERS, (last - first) * c.group - i0);
                    __syncthreads();
                    for (int i = threadIdx.x / 32; i < n; i += WARPS)
                        gradients(c, in, head_of(i0 + i), row, p + i, ds + i);
                    __syncthreads();
                    gather<T>(sum_v, p, n, from, c.d, [&](int i) { return in.d_o + head_of(i0 + i) * c.d; });
                    gather<T>(sum_k, ds, n, from, c.d, [&](int i) { return in.q + head_of(i0 + i) * c.d; });
                }
            }
            if (dk) put(in.adds[1], dk + row * c.d, sum_k, c.scale, from, c.d);
            if (dv) put(in.adds[2], dv + row * c.d, sum_v, 1.0f, from, c.d);
        }
    }
}

unsigned grid(int64_t rows) {
    return (unsigned)(rows < MOST_BLOCKS ? rows : MOST_BLOCKS);
}

template <class T> pn_status forward(const pn_op_call *c) {
    pn_attention_call a;
    PN_TRY(pn_attention_call_of(c, &a));
    if (a.tokens == 0) return PN_OK;
    attend<<<grid((int64_t)a.tokens * a.heads), THREADS, 0, pn_cuda_stream()>>>(
        a, pn_values<T>(c->in[0]), pn_values<T>(c->in[1]), pn_values<T>(c->in[2]), pn_values<T>(c->out[0]),
        pn_f32(c->out[1]));
    return pn_cuda_launched(name);
}

template <class T> pn_status backward(const pn_op_call *c) {
    pn_attention_call a;
    PN_TRY(pn_attention_call_of(c, &a));
    float *delta = (float *)c->scratch;
    operands<T> x = { pn_values<T>(c->in[0]),   pn_values<T>(c->in[1]), pn_values<T>(c->in[2]),
                      pn_values<T>(c->dout[0]), pn_f32(c->out[1]),      delta };
    for (int i = 0; i < 3; i++) x.adds[i] = pn_op_adds(c, i);
    sum_delta<<<grid((int64_t)a.tokens * a.heads), THREADS, 0, pn_cuda_stream()>>>(a, x);
    PN_TRY(pn_cuda_launched(name));
    if (c->din[0]) {
        add_dq<<<grid((int64_t)a.tokens * a.heads), THREADS, 0, pn_cuda_stream()>>>(a, x, pn_values<T>(c->din[0]));
        PN_TRY(pn_cuda_launched(name));
    }
    if (!c->din[1] && !c->din[2]) return PN_OK;
    add_dk_dv<<<grid(a.key_rows * a.kv_heads), THREADS, 0, pn_cuda_stream()>>>(a, x, pn_values_or_null<T>(c->din[1]),
                                                                               pn_values_or_null<T>(c->din[2]));
    return pn_cuda_launched(name);
}

pn_status forward_any(const pn_op_call *c) {
    return c->dtype == PN_BF16 ? forward<pn_bf16>(c) : forward<float>(c);
}
pn_status backward_any(const pn_op_call *c) {
    if (!pn_attention_has_gradient(c)) return pn_attention_no_gradient(c);
    return c->dtype == PN_BF16 ? backward<pn_bf16>(c) : backward<float>(c);
}

size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    return backward_pass ? pn_attention_delta_bytes(c) : 0;
}

} // namespace

const pn_op_impl pn_attention_cuda_rows = { .name = name,
                                            .bf16 = true,
                                            .fresh = true,
                                            .scratch_bytes = scratch_bytes,
                                            .forward = forward_any,
                                            .backward = backward_any };
