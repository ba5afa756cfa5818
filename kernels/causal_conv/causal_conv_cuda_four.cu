/* A window of 4: a thread owns a few channels and walks a run of tokens with the three rows before in registers, so
 * that x and dy are read once, but for the three tokens at either end of a run, which it shares with its neighbour.
 *
 * Backward. A run owns the gradients of its tokens, and of the state of documents that begin in it; the next three
 * tokens add to them as well, where they go on with its last document. Gradients of taps and bias leave a row of sums
 * per run. */
#include "cuda/channels.cuh"
#include "cuda/map.cuh"
#include "cuda/window.cuh"

extern "C" {
#include "causal_conv_cuda.h"
}

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "causal_conv/cuda-four";

enum { X, TAPS, BIAS, STATE };
enum {
    WIDTH = 4,
    BACK = WIDTH - 1, /* rows of the window before the token itself */
    THREADS = PN_RUN_THREADS,
    AHEAD = 2 /* tokens read while as many before them are used */
};

template <class T> struct conv {
    pn_window<T> in;
    const T *taps;
    const float *bias; /* may be NULL */
};

/* The taps and biases of a thread's channels. */
template <class T, int V> struct weights {
    float taps[WIDTH][V], bias[V];

    __device__ weights(const conv<T> &v, int64_t channel) : taps{}, bias{} {
        if (v.taps) { /* [V, WIDTH] */
#pragma unroll
            for (int k = 0; k < WIDTH; k++) {
                const pn_channels<T, V> part = pn_channels_at<T, V>(v.taps + channel * WIDTH + k * V);
#pragma unroll
                for (int i = 0; i < V; i++) taps[(k * V + i) % WIDTH][(k * V + i) / WIDTH] = part[i];
            }
        }
        if (v.bias) pn_floats_at<V>(v.bias + channel, bias);
    }
};

template <class T> __device__ float sigmoid(float x) {
    return sizeof(T) == sizeof(pn_bf16) ? pn_quick_sigmoid(x) : pn_cuda_sigmoid(x);
}

/* The document at hand, and the rows of x before the token at hand, oldest first (undefined where x is NULL). */
template <class T, int V> struct walk {
    int doc, begin, end;
    float back[BACK][V];

    __device__ void enter(const conv<T> &v, int token, int64_t channel) {
        doc = v.in.docs.doc[token], begin = v.in.docs.offset[doc], end = v.in.docs.offset[doc + 1];
#pragma unroll
        for (int k = 0; k < BACK; k++) {
            const int s = token - begin - BACK + k;
            if (!v.in.x) continue;
            if (s >= 0) {
                const pn_channels<T, V> row =
                    pn_channels_at<T, V>(v.in.x + (int64_t)(begin + s) * v.in.channels + channel);
#pragma unroll
                for (int i = 0; i < V; i++) back[k][i] = row[i];
            } else {
#pragma unroll
                for (int i = 0; i < V; i++) back[k][i] = v.in.at(doc, s, channel + i);
            }
        }
    }
    __device__ void step(const float now[V]) {
#pragma unroll
        for (int i = 0; i < V; i++) {
#pragma unroll
            for (int k = 0; k + 1 < BACK; k++) back[k][i] = back[k + 1][i];
            back[BACK - 1][i] = now[i];
        }
    }
    __device__ float sum(const weights<T, V> &by, float now, int i) const {
        float u = by.bias[i];
#pragma unroll
        for (int k = 0; k < BACK; k++) u += by.taps[k][i] * back[k][i];
        return u + by.taps[BACK][i] * now;
    }
};

template <class T, int V, bool SILU> __global__ void __launch_bounds__(THREADS) convolve(conv<T> v, int run, T *y) {
    const pn_run r = pn_run_of_thread<V>(v.in.channels, (int)v.in.docs.tokens, run);
    if (r.begin == r.end) return;
    pn_channels<T, V> read[AHEAD], next[AHEAD];
    auto fetch = [&](pn_channels<T, V> *to, int t0) {
#pragma unroll
        for (int k = 0; k < AHEAD; k++)
            if (t0 + k < r.end) to[k] = pn_channels_at<T, V>(v.in.x + (int64_t)(t0 + k) * v.in.channels + r.channel);
    };
    fetch(read, r.begin);
    const weights<T, V> by(v, r.channel);
    walk<T, V> at;
    at.enter(v, r.begin, r.channel);
    for (int t0 = r.begin; t0 < r.end; t0 += AHEAD) {
        fetch(next, t0 + AHEAD);
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            const int t = t0 + k;
            if (t >= r.end) return;
            if (t == at.end) at.enter(v, t, r.channel);
            float now[V], out[V];
#pragma unroll
            for (int i = 0; i < V; i++) {
                now[i] = read[k][i];
                const float u = at.sum(by, now[i], i);
                out[i] = SILU ? u * sigmoid<T>(u) : u;
            }
            pn_channels_put<T, V>(y + (int64_t)t * v.in.channels + r.channel, out);
            at.step(now);
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) read[k] = next[k];
    }
}

/* What backward is asked for; NULL where it is not. */
template <class T> struct gradients {
    const T *dy;
    T *dx, *dstate;
    float *part; /* [runs, WIDTH + 1, C] of taps and bias */
    bool adds;   /* to dx; else it holds nothing yet */
};

/* The gradient of a position of the document, a token of the run or of the state it begins with; others own the rest.
 * to: what is in dx, where the token is the run's. */
template <class T, int V>
__device__ void put(const conv<T> &v, const gradients<T> &g, const pn_run &r, const walk<T, V> &at, int token,
                    const float value[V], const pn_channels<T, V> &to) {
    if (token >= at.begin) {
        if (!g.dx || token < r.begin || token >= r.end) return;
        float sum[V];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = g.adds ? __fadd_rn(to[i], value[i]) : value[i];
        pn_channels_put<T, V>(g.dx + (int64_t)token * v.in.channels + r.channel, sum);
        return;
    }
    if (!g.dstate || at.begin < r.begin || at.begin >= r.end) return;
#pragma unroll
    for (int i = 0; i < V; i++) {
        T *state = g.dstate + (at.doc * v.in.channels + r.channel + i) * WIDTH + WIDTH + token - at.begin;
        pn_store(state, __fadd_rn(pn_load(state), value[i]));
    }
}
template <class T, int V>
__device__ pn_channels<T, V> what_dx_has(const conv<T> &v, const gradients<T> &g, const pn_run &r, int token) {
    if (!g.dx || !g.adds || token < r.begin || token >= r.end) return pn_channels_zero<T, V>();
    return pn_channels_at<T, V>(g.dx + (int64_t)token * v.in.channels + r.channel);
}

template <class T, int V, bool SILU>
__global__ void __launch_bounds__(THREADS, 2) add_gradients(conv<T> v, gradients<T> g, int run) {
    typedef pn_channels<T, V> row;
    const int tokens = (int)v.in.docs.tokens;
    const pn_run r = pn_run_of_thread<V>(v.in.channels, tokens, run);
    if (r.begin == r.end) return;
    const bool reads_x = SILU || g.part;
    int stop = min(r.end + BACK, tokens);
    struct batch {
        row x[AHEAD], dy[AHEAD], to[AHEAD]; /* to: what dx has of the tokens done then */
    } read, next;
    auto fetch = [&](batch &b, int t0) {
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            b.to[j] = what_dx_has<T, V>(v, g, r, t0 + j - BACK);
            if (t0 + j >= stop) continue;
            const int64_t from = (int64_t)(t0 + j) * v.in.channels + r.channel;
            b.dy[j] = pn_channels_at<T, V>(g.dy + from);
            if (reads_x) b.x[j] = pn_channels_at<T, V>(v.in.x + from);
        }
    };
    fetch(read, r.begin);
    const weights<T, V> by(v, r.channel);
    walk<T, V> at;
    at.enter(v, r.begin, r.channel);
    float dtaps[WIDTH][V] = {}, dbias[V] = {};
    float open[BACK][V] = {}; /* gradients so far of the three positions before the token at hand, oldest first */
    for (int t0 = r.begin; t0 < stop; t0 += AHEAD) {
        fetch(next, t0 + AHEAD);
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const int t = t0 + j;
            if (t >= stop) break;
            if (t == at.end) {
                if (t >= r.end) {
                    stop = t;
                    break;
                }
                at.enter(v, t, r.channel);
            }
            float now[V], p[V], done[V];
#pragma unroll
            for (int i = 0; i < V; i++) {
                p[i] = read.dy[j][i];
                now[i] = reads_x ? read.x[j][i] : 0;
                if (SILU) {
                    const float u = at.sum(by, now[i], i), s = sigmoid<T>(u);
                    p[i] *= s * (1 + u * (1 - s));
                }
            }
            if (g.part && t < r.end) {
#pragma unroll
                for (int i = 0; i < V; i++) {
#pragma unroll
                    for (int k = 0; k < BACK; k++) dtaps[k][i] += p[i] * at.back[k][i];
                    dtaps[BACK][i] += p[i] * now[i];
                    dbias[i] += p[i];
                }
            }
#pragma unroll
            for (int i = 0; i < V; i++) {
                done[i] = open[0][i] + p[i] * by.taps[0][i];
#pragma unroll
                for (int k = 0; k + 1 < BACK; k++) open[k][i] = open[k + 1][i] + p[i] * by.taps[k + 1][i];
                open[BACK - 1][i] = p[i] * by.taps[BACK][i];
            }
            put<T, V>(v, g, r, at, t - BACK, done, read.to[j]);
            if (t + 1 == at.end) {
#pragma unroll
                for (int k = 0; k < BACK; k++) {
                    const int token = t + 1 - BACK + k;
                    put<T, V>(v, g, r, at, token, open[k], what_dx_has<T, V>(v, g, r, token));
#pragma unroll
                    for (int i = 0; i < V; i++) open[k][i] = 0;
                }
            }
            if (reads_x) at.step(now);
        }
        read = next;
    }
    if (!g.part) return;
    float *part = g.part + (int64_t)(r.begin / run) * (WIDTH + 1) * v.in.channels + r.channel;
#pragma unroll
    for (int k = 0; k < WIDTH; k++) pn_floats_put<V>(part + k * v.in.channels, dtaps[k]);
    pn_floats_put<V>(part + WIDTH * v.in.channels, dbias);
}

/* Column k * C + channel of the sums. */
struct add_sums {
    float *dtaps, *dbias;
    int64_t channels;
    __device__ void operator()(int64_t c, float sum) const {
        const int64_t k = c / channels, channel = c % channels;
        if (k == WIDTH) {
            if (dbias) dbias[channel] += sum;
        } else if (dtaps) {
            dtaps[channel * WIDTH + k] += sum;
        }
    }
};

/* What was not saved for backward is NULL. */
template <class T> const T *saved(const pn_tensor *t) {
    return t && t->storage ? pn_values<T>(t) : NULL;
}

template <class T> pn_status conv_of(const pn_op_call *c, conv<T> *v) {
    PN_TRY(pn_window_docs(&((const pn_causal_conv_attr *)c->attr)->docs, &v->in.docs));
    v->in.x = saved<T>(c->in[X]), v->in.state = saved<T>(c->in[STATE]);
    v->in.channels = c->in[X]->shape[1], v->in.width = WIDTH;
    v->taps = saved<T>(c->in[TAPS]), v->bias = saved<float>(c->in[BIAS]);
    return PN_OK;
}

template <class T> pn_status forward_in(const pn_op_call *c) {
    constexpr int V = pn_vector<T>::n;
    conv<T> v;
    PN_TRY(conv_of(c, &v));
    if (v.in.docs.tokens) {
        const int run = v.in.docs.tokens >= 16384 ? 32 : 8;
        const unsigned blocks = pn_run_blocks<V>(v.in.channels, v.in.docs.tokens, run);
        if (((const pn_causal_conv_attr *)c->attr)->silu)
            convolve<T, V, true><<<blocks, THREADS, 0, pn_cuda_stream()>>>(v, run, pn_values<T>(c->out[0]));
        else
            convolve<T, V, false><<<blocks, THREADS, 0, pn_cuda_stream()>>>(v, run, pn_values<T>(c->out[0]));
        PN_TRY(pn_cuda_launched(name));
    }
    return pn_cuda_window_new_state(name, v.in, pn_values<T>(c->out[1]));
}

/* Half vectors: twice the threads, with half as much in registers each. */
template <class T> pn_status backward_in(const pn_op_call *c) {
    constexpr int V = pn_vector<T>::n / 2;
    conv<T> v;
    PN_TRY(conv_of(c, &v));
    for (int i = TAPS; i < c->n_in; i++) PN_TRY(pn_cuda_zero_fresh(c, i));
    if (v.in.docs.tokens == 0 || !pn_op_has_din(c)) return PN_OK;
    const bool sums = c->din[TAPS] || c->din[BIAS];
    const gradients<T> g = { pn_values<T>(c->dout[0]), pn_values_or_null<T>(c->din[X]),
                             pn_values_or_null<T>(c->din[STATE]), sums ? (float *)c->scratch : NULL, pn_op_adds(c, X) };
    const int run = pn_run_with_sums(v.in.docs.tokens);
    const unsigned blocks = pn_run_blocks<V>(v.in.channels, v.in.docs.tokens, run);
    if (((const pn_causal_conv_attr *)c->attr)->silu)
        add_gradients<T, V, true><<<blocks, THREADS, 0, pn_cuda_stream()>>>(v, g, run);
    else
        add_gradients<T, V, false><<<blocks, THREADS, 0, pn_cuda_stream()>>>(v, g, run);
    PN_TRY(pn_cuda_launched(name));
    if (!sums) return PN_OK;
    const add_sums to = { pn_f32_or_null(c->din[TAPS]), pn_f32_or_null(c->din[BIAS]), v.in.channels };
    return pn_cuda_runs_sum(name, g.part, pn_cuda_runs(v.in.docs.tokens, run), (WIDTH + 1) * v.in.channels, to);
}

} // namespace

/* Storage begins at a multiple of 64 bytes. */
static bool aligned(const pn_tensor *t) {
    return !t || (size_t)t->offset * pn_dtype_bytes(t->dtype) % 16 == 0;
}

static bool takes(const pn_op_call *c) {
    const int64_t channels = c->in[X]->shape[1], row = channels * (int64_t)pn_dtype_bytes(c->in[X]->dtype);
    for (int i = 0; i < c->n_in; i++)
        if (!aligned(c->in[i])) return false;
    return ((const pn_causal_conv_attr *)c->attr)->width == WIDTH && channels > 0 && row % 16 == 0;
}

static pn_status forward(const pn_op_call *c) {
    return c->dtype == PN_BF16 ? forward_in<pn_bf16>(c) : forward_in<float>(c);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    return c->dtype == PN_BF16 ? backward_in<pn_bf16>(c) : backward_in<float>(c);
}

/* Rows of sums. */
static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    const int64_t tokens = c->in[X]->shape[0];
    if (!backward_pass) return 0;
    return (size_t)(pn_cuda_runs(tokens, pn_run_with_sums(tokens)) * (WIDTH + 1) * c->in[X]->shape[1]) * sizeof(float);
}

extern "C" const pn_op_impl pn_causal_conv_cuda_four = { .name = name,
                                                         .bf16 = true,
                                                         .fresh = true,
                                                         .takes = takes,
                                                         .scratch_bytes = scratch_bytes,
                                                         .forward = forward,
                                                         .backward = backward };
