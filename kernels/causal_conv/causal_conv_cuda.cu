/* Any width and any shape, an element per thread; backward keeps p = dy act' of every element. */
#include "cuda/channels.cuh"
#include "cuda/map.cuh"
#include "cuda/reduce.cuh"
#include "cuda/window.cuh"

extern "C" {
#include "causal_conv_cuda.h"
}

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "causal_conv/cuda";

enum { X, TAPS, BIAS, STATE };
enum { THREADS = 256 };

template <class T> struct conv {
    pn_window<T> x;
    const T *taps;
    const float *bias; /* may be NULL */
    bool silu;

    __device__ float sum(int64_t token, int64_t channel) const {
        const int64_t doc = x.docs.doc[token], s = token - x.docs.offset[doc];
        float u = bias ? bias[channel] : 0;
        for (int w = 0; w < x.width; w++)
            u += pn_load(taps + channel * x.width + w) * x.at(doc, s - (x.width - 1) + w, channel);
        return u;
    }
};

template <class T> __global__ void __launch_bounds__(THREADS) convolve(conv<T> v, T *y) {
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= v.x.docs.tokens * v.x.channels) return;
    const float u = v.sum(i / v.x.channels, i % v.x.channels);
    pn_store(y + i, v.silu ? u * pn_cuda_sigmoid(u) : u);
}

/* p = dy act' */
template <class T> __global__ void __launch_bounds__(THREADS) make_p(conv<T> v, const T *dy, float *p) {
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= v.x.docs.tokens * v.x.channels) return;
    p[i] = pn_load(dy + i);
    if (!v.silu) return;
    const float u = v.sum(i / v.x.channels, i % v.x.channels), s = pn_cuda_sigmoid(u);
    p[i] *= s * (1 + u * (1 - s));
}

struct p_at {
    const float *p;
    int64_t channels;
    __device__ float operator()(int64_t token, int64_t channel) const { return p[token * channels + channel]; }
};
template <class T> struct tap_at {
    const T *taps;
    int width;
    __device__ float operator()(int64_t, int64_t channel, int w) const { return pn_load(taps + channel * width + w); }
};
/* Of row `token` and column channel * W + w: what the tap's gradient sums. */
template <class T> struct tap_term {
    pn_window<T> x;
    p_at p;
    __device__ float operator()(int64_t token, int64_t i) const {
        const int64_t doc = x.docs.doc[token], s = token - x.docs.offset[doc], channel = i / x.width;
        return p(token, channel) * x.at(doc, s - (x.width - 1) + i % x.width, channel);
    }
};

/* What was not saved for backward is NULL. */
template <class T> const T *saved(const pn_tensor *t) {
    return t && t->storage ? pn_values<T>(t) : NULL;
}

template <class T> pn_status conv_of(const pn_op_call *c, conv<T> *v) {
    const pn_causal_conv_attr *a = (const pn_causal_conv_attr *)c->attr;
    PN_TRY(pn_window_docs(&a->docs, &v->x.docs));
    v->x.x = saved<T>(c->in[X]), v->x.state = saved<T>(c->in[STATE]);
    v->x.channels = c->in[X]->shape[1], v->x.width = a->width;
    v->taps = saved<T>(c->in[TAPS]), v->bias = saved<float>(c->in[BIAS]);
    v->silu = a->silu;
    return PN_OK;
}

template <class T> pn_status forward_in(const pn_op_call *c) {
    conv<T> v;
    PN_TRY(conv_of(c, &v));
    const int64_t n = pn_tensor_elems(c->out[0]);
    if (n) {
        convolve<T><<<pn_cuda_blocks(n, THREADS), THREADS, 0, pn_cuda_stream()>>>(v, pn_values<T>(c->out[0]));
        PN_TRY(pn_cuda_launched(name));
    }
    return pn_cuda_window_new_state(name, v.x, pn_values<T>(c->out[1]));
}

size_t p_bytes(const pn_op_call *c) {
    return (size_t)((pn_tensor_elems(c->in[X]) + 15) / 16 * 16) * sizeof(float);
}

template <class T> pn_status backward_in(const pn_op_call *c) {
    conv<T> v;
    PN_TRY(conv_of(c, &v));
    for (int i = 0; i < c->n_in; i++) PN_TRY(pn_cuda_zero_fresh(c, i));
    const int64_t tokens = v.x.docs.tokens, channels = v.x.channels, n = tokens * channels;
    if (n == 0) return PN_OK;
    const p_at p = { (float *)c->scratch, channels };
    void *sums = (char *)c->scratch + p_bytes(c);
    make_p<T><<<pn_cuda_blocks(n, THREADS), THREADS, 0, pn_cuda_stream()>>>(v, pn_values<T>(c->dout[0]),
                                                                            (float *)c->scratch);
    PN_TRY(pn_cuda_launched(name));
    PN_TRY(pn_cuda_window_gradients(name, v.x.docs, channels, v.x.width, 0, tokens, p, tap_at<T>{ v.taps, v.x.width },
                                    pn_values_or_null<T>(c->din[X]), pn_values_or_null<T>(c->din[STATE])));
    if (c->din[TAPS])
        PN_TRY(pn_cuda_column_sums(name, tokens, channels * v.x.width, tap_term<T>{ v.x, p },
                                   pn_add_to{ pn_f32(c->din[TAPS]) }, sums));
    if (!c->din[BIAS]) return PN_OK;
    return pn_cuda_column_sums(name, tokens, channels, p, pn_add_to{ pn_f32(c->din[BIAS]) }, sums);
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    return c->dtype == PN_BF16 ? forward_in<pn_bf16>(c) : forward_in<float>(c);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    return c->dtype == PN_BF16 ? backward_in<pn_bf16>(c) : backward_in<float>(c);
}

/* p, then the partial sums of taps, and of the bias after them. */
static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (!backward_pass) return 0;
    const int width = ((const pn_causal_conv_attr *)c->attr)->width;
    return p_bytes(c) + pn_cuda_column_sum_scratch(c->in[X]->shape[0], c->in[X]->shape[1] * width);
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(causal_conv, &pn_causal_conv_cuda_four, &impl)
