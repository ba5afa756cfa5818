/* Any shape. The taps of a run of tokens at a time, by cuBLASLt, in the compute type; backward makes them again, puts
 * their gradients in their place, and has two more products of them. */
#include "cuda/channels.cuh"
#include "cuda/map.cuh"
#include "cuda/reduce.cuh"
#include "cuda/window.cuh"

extern "C" {
#include "cuda/matmul_cuda.h"
#include "dynamic_conv_cuda.h"
}

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "dynamic_conv/cuda";

enum { VALUES, HIDDEN, W2, B2, STATE };
enum {
    THREADS = 256,
    MOST_TAPS = 48 << 20, /* numbers of a run */
    MOST_TOKENS = 4096
};

/* Tokens of a run: a multiple of 64, by the shape alone. */
int64_t run_of(int64_t columns) {
    int64_t n = MOST_TAPS / columns / 64 * 64;
    return n < 64 ? 64 : n < MOST_TOKENS ? n : MOST_TOKENS;
}

template <class T> struct run {
    pn_window<T> c;
    int64_t token0, tokens;
    T *taps; /* of tokens from token0 on, [C, W] each, less b2 */
    const float *b2;

    __device__ float tap(int64_t token, int64_t channel, int w) const {
        const int64_t i = channel * c.width + w;
        return pn_load(taps + (token - token0) * c.channels * c.width + i) + b2[i];
    }
    __device__ float value(int64_t token, int64_t channel, int w) const {
        const int64_t doc = c.docs.doc[token];
        return c.at(doc, token - c.docs.offset[doc] - (c.width - 1) + w, channel);
    }
    __device__ float sum(int64_t token, int64_t channel) const {
        float y = 0;
        for (int w = 0; w < c.width; w++) y += tap(token, channel, w) * value(token, channel, w);
        return y;
    }
};

template <class T> __global__ void __launch_bounds__(THREADS) convolve(run<T> r, T *v) {
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= r.tokens * r.c.channels) return;
    const int64_t token = r.token0 + i / r.c.channels, channel = i % r.c.channels;
    const float y = r.sum(token, channel);
    pn_store(v + token * r.c.channels + channel, y * pn_cuda_sigmoid(y));
}

/* p = dv silu'(y), [tokens, C] */
template <class T> __global__ void __launch_bounds__(THREADS) make_p(run<T> r, const T *dv, float *p) {
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= r.tokens * r.c.channels) return;
    const int64_t token = r.token0 + i / r.c.channels, channel = i % r.c.channels;
    const float y = r.sum(token, channel), s = pn_cuda_sigmoid(y);
    p[i] = pn_load(dv + token * r.c.channels + channel) * s * (1 + y * (1 - s));
}

/* The taps become their gradients. */
template <class T> __global__ void __launch_bounds__(THREADS) taps_to_gradients(run<T> r, const float *p) {
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= r.tokens * r.c.channels) return;
    const int64_t token = r.token0 + i / r.c.channels, channel = i % r.c.channels;
    for (int w = 0; w < r.c.width; w++) pn_store(r.taps + i * r.c.width + w, p[i] * r.value(token, channel, w));
}

struct p_at {
    const float *p;
    int64_t token0, channels;
    __device__ float operator()(int64_t token, int64_t channel) const {
        return p[(token - token0) * channels + channel];
    }
};
template <class T> struct tap_at {
    run<T> r;
    __device__ float operator()(int64_t token, int64_t channel, int w) const { return r.tap(token, channel, w); }
};
template <class T> struct gradient_at {
    const T *taps;
    int64_t columns;
    __device__ float operator()(int64_t token, int64_t i) const { return pn_load(taps + token * columns + i); }
};

/* Scratch: the products' workspace, which the sums of db2 use in turn, then the taps, then p. */
typedef struct layout {
    size_t taps, p, end;
} layout;

layout layout_of(const pn_op_call *c, bool backward) {
    const int64_t width = ((const pn_dynamic_conv_attr *)c->attr)->width, channels = c->in[VALUES]->shape[1];
    const int64_t tokens = c->in[VALUES]->shape[0], columns = channels * width, run = run_of(columns);
    int64_t rows = run + (backward ? width - 1 : 0);
    if (rows > tokens) rows = tokens;
    layout l = {};
    size_t sums = backward ? pn_cuda_column_sum_scratch(rows, columns) : 0;
    l.taps = (sums > PN_MATMUL_WORKSPACE ? sums : PN_MATMUL_WORKSPACE) / 256 * 256 + 256;
    l.p = l.taps + ((size_t)(rows * columns) * pn_dtype_bytes(c->in[VALUES]->dtype) / 256 + 1) * 256;
    l.end = l.p + (backward ? (size_t)(rows * channels) * sizeof(float) : 0);
    return l;
}

template <class T> pn_status run_of_call(const pn_op_call *c, run<T> *r) {
    const pn_dynamic_conv_attr *a = (const pn_dynamic_conv_attr *)c->attr;
    PN_TRY(pn_window_docs(&a->docs, &r->c.docs));
    r->c.x = pn_values<T>(c->in[VALUES]), r->c.state = pn_values_or_null<T>(c->in[STATE]);
    r->c.channels = c->in[VALUES]->shape[1], r->c.width = a->width;
    r->b2 = pn_f32(c->in[B2]);
    return PN_OK;
}

/* Of r->tokens tokens from r->token0 on. */
template <class T> pn_status make_taps(const pn_op_call *c, const run<T> *r) {
    pn_matmul m = {};
    m.name = name;
    m.m = r->tokens, m.n = r->c.channels * r->c.width, m.k = c->in[HIDDEN]->shape[1];
    m.a = pn_values<T>(c->in[HIDDEN]) + r->token0 * m.k;
    m.b = pn_data(c->in[W2]), m.b_turned = true;
    m.c = r->taps;
    m.a_type = m.b_type = m.c_type = pn_dtype_of<T>::value;
    return pn_cuda_matmul(&m, c->scratch);
}

template <class T> pn_status forward_in(const pn_op_call *c) {
    run<T> r;
    PN_TRY(run_of_call(c, &r));
    const int64_t all = r.c.docs.tokens, most = run_of(r.c.channels * r.c.width);
    r.taps = (T *)((char *)c->scratch + layout_of(c, false).taps);
    for (r.token0 = 0; r.token0 < all; r.token0 += most) {
        r.tokens = all - r.token0 < most ? all - r.token0 : most;
        PN_TRY(make_taps(c, &r));
        convolve<T><<<pn_cuda_blocks(r.tokens * r.c.channels, THREADS), THREADS, 0, pn_cuda_stream()>>>(
            r, pn_values<T>(c->out[0]));
        PN_TRY(pn_cuda_launched(name));
    }
    return pn_cuda_window_new_state(name, r.c, pn_values<T>(c->out[1]));
}

/* From the gradients of the run's taps. */
template <class T> pn_status add_products(const pn_op_call *c, const run<T> *r) {
    const int64_t columns = r->c.channels * r->c.width, rank = c->in[HIDDEN]->shape[1];
    pn_matmul m = {};
    m.name = name;
    m.add = true;
    m.a = r->taps;
    m.a_type = m.b_type = pn_dtype_of<T>::value;
    if (c->din[HIDDEN]) { /* dh += dK w2 */
        m.m = r->tokens, m.n = rank, m.k = columns;
        m.b = pn_data(c->in[W2]);
        m.c = pn_values<T>(c->din[HIDDEN]) + r->token0 * rank, m.c_type = pn_dtype_of<T>::value;
        PN_TRY(pn_cuda_matmul(&m, c->scratch));
    }
    if (c->din[W2]) { /* dw2 += dK^T h */
        m.m = columns, m.n = rank, m.k = r->tokens;
        m.a_turned = true;
        m.b = pn_values<T>(c->in[HIDDEN]) + r->token0 * rank;
        m.c = pn_f32(c->din[W2]), m.c_type = PN_F32;
        PN_TRY(pn_cuda_matmul(&m, c->scratch));
    }
    if (!c->din[B2]) return PN_OK;
    return pn_cuda_column_sums(name, r->tokens, columns, gradient_at<T>{ r->taps, columns },
                               pn_add_to{ pn_f32(c->din[B2]) }, c->scratch);
}

/* Values of the run also go to the windows of W - 1 tokens after it: their taps are made with the run's. */
template <class T> pn_status backward_in(const pn_op_call *c) {
    run<T> r;
    PN_TRY(run_of_call(c, &r));
    for (int i = 0; i < c->n_in; i++) PN_TRY(pn_cuda_zero_fresh(c, i));
    const layout l = layout_of(c, true);
    const int64_t all = r.c.docs.tokens, channels = r.c.channels, most = run_of(channels * r.c.width);
    const T *dv = pn_values<T>(c->dout[0]);
    float *p = (float *)((char *)c->scratch + l.p);
    r.taps = (T *)((char *)c->scratch + l.taps);
    for (r.token0 = 0; r.token0 < all; r.token0 += most) {
        const int64_t own = all - r.token0 < most ? all - r.token0 : most;
        const int64_t reach = own + r.c.width - 1, left = all - r.token0;
        r.tokens = reach < left ? reach : left;
        PN_TRY(make_taps(c, &r));
        make_p<T><<<pn_cuda_blocks(r.tokens * channels, THREADS), THREADS, 0, pn_cuda_stream()>>>(r, dv, p);
        PN_TRY(pn_cuda_launched(name));
        PN_TRY(pn_cuda_window_gradients(name, r.c.docs, channels, r.c.width, r.token0, own,
                                        p_at{ p, r.token0, channels }, tap_at<T>{ r },
                                        pn_values_or_null<T>(c->din[VALUES]), pn_values_or_null<T>(c->din[STATE])));
        r.tokens = own;
        taps_to_gradients<T><<<pn_cuda_blocks(own * channels, THREADS), THREADS, 0, pn_cuda_stream()>>>(r, p);
        PN_TRY(pn_cuda_launched(name));
        PN_TRY(add_products(c, &r));
    }
    return PN_OK;
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return c->dtype == PN_BF16 ? forward_in<pn_bf16>(c) : forward_in<float>(c);
}

extern "C" pn_status pn_dynamic_conv_cuda_backward(const pn_op_call *c) {
    if (!c->dout[0] || !pn_op_has_din(c)) return PN_OK;
    return c->dtype == PN_BF16 ? backward_in<pn_bf16>(c) : backward_in<float>(c);
}

extern "C" size_t pn_dynamic_conv_cuda_scratch(const pn_op_call *c, bool backward_pass) {
    return layout_of(c, backward_pass).end;
}

static const pn_op_impl impl = { .name = name,
                                 .bf16 = true,
                                 .fresh = true,
                                 .scratch_bytes = pn_dynamic_conv_cuda_scratch,
                                 .forward = forward,
                                 .backward = pn_dynamic_conv_cuda_backward };
PN_CUDA_OP(dynamic_conv, &pn_dynamic_conv_cuda_fused, &impl)
