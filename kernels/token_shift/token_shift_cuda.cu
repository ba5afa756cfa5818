/* A thread owns a few channels and walks a run of tokens: of the two rows that a token takes, one was read for the
 * token before. */
#include "cuda/channels.cuh"
#include "cuda/reduce.cuh"

#include "token_shift.h"

extern "C" {
#include "cuda/staged_cuda.h"
}

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "token_shift/cuda";

enum { X, MIX, PREVIOUS };
enum { Y, LAST };
enum {
    THREADS = PN_RUN_THREADS,
    RUN = 8,  /* tokens, forward */
    AHEAD = 4 /* backward: tokens read before the first is used */
};

template <class T, int V>
__device__ pn_channels<T, V> start_of(const T *previous, int64_t doc, int64_t D, int64_t channel) {
    return previous ? pn_channels_at<T, V>(previous + doc * D + channel) : pn_channels_zero<T, V>();
}

/* The input before token t of document `doc`. */
template <class T, int V>
__device__ pn_channels<T, V> before(const pn_cuda_docs &docs, const T *x, const T *previous, int doc, int t, int64_t D,
                                    int64_t channel) {
    if (t > docs.offset[doc]) return pn_channels_at<T, V>(x + (int64_t)(t - 1) * D + channel);
    return start_of<T, V>(previous, doc, D, channel);
}

template <class T, int V>
__global__ void __launch_bounds__(THREADS)
    shift(pn_cuda_docs docs, int64_t D, const T *x, const float *w, const T *previous, T *y) {
    const pn_run p = pn_run_of_thread<V>(D, (int)docs.tokens, RUN);
    if (p.begin == p.end) return;
    float mix[V];
    pn_floats_at<V>(w + p.channel, mix);
    int doc = docs.doc[p.begin], end = docs.offset[doc + 1];
    pn_channels<T, V> last = before<T, V>(docs, x, previous, doc, p.begin, D, p.channel), now[RUN];
#pragma unroll
    for (int j = 0; j < RUN; j++)
        if (p.begin + j < p.end) now[j] = pn_channels_at<T, V>(x + (int64_t)(p.begin + j) * D + p.channel);
#pragma unroll
    for (int j = 0; j < RUN; j++) {
        const int t = p.begin + j;
        if (t >= p.end) return;
        if (t == end) {
            doc = docs.doc[t], end = docs.offset[doc + 1];
            last = start_of<T, V>(previous, doc, D, p.channel);
        }
        float out[V];
#pragma unroll
        for (int i = 0; i < V; i++) out[i] = now[j][i] + mix[i] * (last[i] - now[j][i]);
        pn_channels_put<T, V>(y + (int64_t)t * D + p.channel, out);
        last = now[j];
    }
}

/* last[doc]: the last token's input; the previous one where the document has none. */
template <class T>
__global__ void __launch_bounds__(THREADS)
    keep_last(pn_cuda_docs docs, int64_t D, const T *x, const T *previous, T *last) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= docs.n * D) return;
    const int doc = (int)(i / D);
    last[i] = before<T, 1>(docs, x, previous, doc, docs.offset[doc + 1], D, i % D).x[0];
}

/* dx_t += dy_t + w (dy_{t+1} - dy_t), and per run the sum of (x_{t-1} - x_t) dy_t. dx, part: NULL where not wanted; w
 * goes with dx, x and previous with part. */
template <class T, int V>
__global__ void __launch_bounds__(THREADS)
    add_gradients(pn_cuda_docs docs, int64_t D, int run, const T *dy, const T *x, const T *previous, const float *w,
                  T *dx, bool adds, float *part) {
    typedef pn_channels<T, V> row;
    const pn_run p = pn_run_of_thread<V>(D, (int)docs.tokens, run);
    if (p.begin == p.end) return;
    float mix[V] = {}, sum[V] = {};
    if (dx) pn_floats_at<V>(w + p.channel, mix);
    int doc = docs.doc[p.begin], end = docs.offset[doc + 1];
    row last = part ? before<T, V>(docs, x, previous, doc, p.begin, D, p.channel) : pn_channels_zero<T, V>();
    row g = pn_channels_at<T, V>(dy + (int64_t)p.begin * D + p.channel);
    for (int t0 = p.begin; t0 < p.end; t0 += AHEAD) {
        row next[AHEAD], now[AHEAD], to[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const int64_t at = (int64_t)(t0 + j) * D + p.channel;
            if (t0 + j + 1 < docs.tokens) next[j] = pn_channels_at<T, V>(dy + at + D);
            if (t0 + j >= p.end) continue;
            if (part) now[j] = pn_channels_at<T, V>(x + at);
            if (dx && adds) to[j] = pn_channels_at<T, V>(dx + at);
        }
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const int t = t0 + j;
            if (t >= p.end) break;
            if (t == end) {
                doc = docs.doc[t], end = docs.offset[doc + 1];
                if (part) last = start_of<T, V>(previous, doc, D, p.channel);
            }
            if (dx) {
                float out[V];
#pragma unroll
                for (int i = 0; i < V; i++) {
                    float after = t + 1 < end ? next[j][i] : 0;
                    const float value = g[i] + mix[i] * (after - g[i]);
                    out[i] = adds ? __fadd_rn(to[j][i], value) : value;
                }
                pn_channels_put<T, V>(dx + (int64_t)t * D + p.channel, out);
            }
            if (part) {
#pragma unroll
                for (int i = 0; i < V; i++) sum[i] += (last[i] - now[j][i]) * g[i];
                last = now[j];
            }
            g = next[j];
        }
    }
    if (part) pn_floats_put<V>(part + p.begin / run * D + p.channel, sum);
}

/* dprevious[doc] += w dy_first */
template <class T>
__global__ void __launch_bounds__(THREADS)
    add_dprevious(pn_cuda_docs docs, int64_t D, const T *dy, const float *w, T *dprevious) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= docs.n * D) return;
    const int doc = (int)(i / D), first = docs.offset[doc];
    if (first == docs.offset[doc + 1]) return;
    pn_store(dprevious + i, __fadd_rn(pn_load(dprevious + i), w[i % D] * pn_load(dy + first * D + i % D)));
}

pn_status stage(const pn_op_call *c, pn_cuda_docs *docs) {
    pn_docs of = ((const pn_token_shift_attr *)c->attr)->docs;
    of.past = NULL; /* which is not used: layouts that differ in it are one */
    return pn_cuda_docs_stage(&of, docs);
}

template <class T> pn_status forward_in(const pn_op_call *c) {
    const T *x = pn_values<T>(c->in[X]), *previous = pn_values_or_null<T>(c->in[PREVIOUS]);
    const float *w = pn_f32(c->in[MIX]);
    T *y = pn_values<T>(c->out[Y]), *last = pn_values<T>(c->out[LAST]);
    const int64_t D = c->in[X]->shape[1];
    constexpr int V = pn_vector<T>::n;
    pn_cuda_docs docs;
    PN_TRY(stage(c, &docs));
    if (docs.n == 0 || D == 0) return PN_OK;
    keep_last<T><<<pn_cuda_blocks(docs.n * D, THREADS), THREADS, 0, pn_cuda_stream()>>>(docs, D, x, previous, last);
    PN_TRY(pn_cuda_launched(name));
    if (docs.tokens == 0) return PN_OK;
    if (pn_in_vectors<T>(D, x, w, previous, y))
        shift<T, V>
            <<<pn_run_blocks<V>(D, docs.tokens, RUN), THREADS, 0, pn_cuda_stream()>>>(docs, D, x, w, previous, y);
    else
        shift<T, 1>
            <<<pn_run_blocks<1>(D, docs.tokens, RUN), THREADS, 0, pn_cuda_stream()>>>(docs, D, x, w, previous, y);
    return pn_cuda_launched(name);
}

template <class T> pn_status backward_in(const pn_op_call *c) {
    const int64_t D = c->dout[Y]->shape[1];
    const T *dy = pn_values<T>(c->dout[Y]);
    T *dx = pn_values_or_null<T>(c->din[X]), *dprevious = pn_values_or_null<T>(c->din[PREVIOUS]);
    float *dw = pn_f32_or_null(c->din[MIX]), *part = dw ? (float *)c->scratch : NULL;
    const float *w = dx || dprevious ? pn_f32(c->in[MIX]) : NULL;
    const T *x = dw ? pn_values<T>(c->in[X]) : NULL, *previous = dw ? pn_values_or_null<T>(c->in[PREVIOUS]) : NULL;
    constexpr int V = pn_vector<T>::n;
    pn_cuda_docs docs;
    PN_TRY(stage(c, &docs));
    PN_TRY(pn_cuda_zero_fresh(c, MIX));
    PN_TRY(pn_cuda_zero_fresh(c, PREVIOUS));
    const int run = pn_run_with_sums(docs.tokens);
    if (docs.tokens == 0 || D == 0) return PN_OK;
    if (dx || dw) {
        if (pn_in_vectors<T>(D, dy, x, previous, w, dx))
            add_gradients<T, V><<<pn_run_blocks<V>(D, docs.tokens, run), THREADS, 0, pn_cuda_stream()>>>(
                docs, D, run, dy, x, previous, w, dx, pn_op_adds(c, X), part);
        else
            add_gradients<T, 1><<<pn_run_blocks<1>(D, docs.tokens, run), THREADS, 0, pn_cuda_stream()>>>(
                docs, D, run, dy, x, previous, w, dx, pn_op_adds(c, X), part);
        PN_TRY(pn_cuda_launched(name));
    }
    if (dw) PN_TRY(pn_cuda_runs_sum(name, part, pn_cuda_runs(docs.tokens, run), D, pn_add_to{ dw }));
    if (!dprevious) return PN_OK;
    add_dprevious<T><<<pn_cuda_blocks(docs.n * D, THREADS), THREADS, 0, pn_cuda_stream()>>>(docs, D, dy, w, dprevious);
    return pn_cuda_launched(name);
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return c->dtype == PN_BF16 ? forward_in<pn_bf16>(c) : forward_in<float>(c);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[Y]) return PN_OK;
    return c->dtype == PN_BF16 ? backward_in<pn_bf16>(c) : backward_in<float>(c);
}

/* Partial sums of dw. */
static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    const int64_t tokens = c->in[X]->shape[0];
    if (!backward_pass || !c->wants[MIX]) return 0;
    return (size_t)(pn_cuda_runs(tokens, pn_run_with_sums(tokens)) * c->in[X]->shape[1]) * sizeof(float);
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(token_shift, &impl)
